import { execFileSync } from 'node:child_process'
import { readdirSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import test from 'ava'
import { fillUp, memoryCgroup, smallTmpfs, testWithLimits } from '../helpers/limits.js'
import { addModel, wideModel, writeModel } from '../helpers/onnx-builder.js'
import { spawnServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { untilSome } from '../helpers/waiting.js'

const WIDE_MODEL_BYTES = 32 * 1024 * 1024

testWithLimits(
  'a segment that does not fit fails the start with required and available space and a remedy',
  ['tmpfs'],
  async (t) => {
    const segmentDir = smallTmpfs(t, 'size=2m')
    const server = spawnServer(t, { segmentDir })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find((line) => line.level === 'fatal')
    t.is(fatal?.code, 'SEGMENT_SPACE')
    t.regex(fatal?.msg ?? '', /needs 3\.3 MB .* 2\.1 MB are free: raise .*sizeLimit/)
    t.deepEqual(readdirSync(segmentDir), [])
  },
)

test.serial('a missing segment folder is named in the error', async (t) => {
  const server = spawnServer(t, { args: ['--segment-dir', '/no/such/folder'] })
  t.deepEqual(await server.exited, { code: 1, signal: null })
  t.is(server.log.find((line) => line.level === 'fatal')?.code, 'SEGMENT_FOLDER_INVALID')
})

testWithLimits(
  'a segment folder that fills up during the write fails like a full one',
  ['tmpfs'],
  async (t) => {
    const segmentDir = smallTmpfs(t, 'size=80m')
    const models = writeModel(temporaryFolder(t), 'large', wideModel(WIDE_MODEL_BYTES))
    const server = spawnServer(t, { models, segmentDir })
    // As soon as the write of the segment starts, the rest of the folder is filled.
    await untilSome(
      'the segment file',
      () => server.segments().find((path) => path.endsWith('.writing')) ?? null,
      { pollMs: 0 },
    )
    fillUp(segmentDir)
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find((line) => line.level === 'fatal')
    t.is(fatal?.code, 'SEGMENT_SPACE')
    t.regex(fatal?.msg ?? '', /needs .* MB in .*, the file system is full: raise/)
    t.deepEqual(readdirSync(segmentDir), ['filler'])
  },
)

testWithLimits(
  'a segment folder without inodes fails the start, and nothing is left',
  ['tmpfs'],
  async (t) => {
    // Enough inodes for the root, the server's folder and its record only.
    const segmentDir = smallTmpfs(t, 'size=64m,nr_inodes=4')
    const server = spawnServer(t, { segmentDir })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    t.is(server.log.find((line) => line.level === 'fatal')?.code, 'SEGMENT_SPACE')
    t.deepEqual(readdirSync(segmentDir), [])
  },
)

testWithLimits('a read-only cache is used for its content, with a warning', ['tmpfs'], async (t) => {
  const cacheDir = smallTmpfs(t, 'size=64m')
  const models = writeModel(temporaryFolder(t), 'cached', addModel())
  const first = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  await stopCleanly(t, first.server)
  execFileSync('mount', ['-o', 'remount,ro', cacheDir])
  writeModel(models, 'new', addModel([3, 4]))
  const before = readdirSync(tmpdir()).filter((name) => name.startsWith('onecopy.work-'))
  const second = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  const modelsIn = (msg: string) =>
    second.server.log.filter((line) => line.msg === msg).map((line) => line.model)
  t.deepEqual(modelsIn('segment written from the cache'), ['cached'])
  t.deepEqual(modelsIn('compiled, segment written'), ['new'])
  t.is(modelsIn('the compile cache cannot be used').length, 1)
  const after = readdirSync(tmpdir()).filter((name) => name.startsWith('onecopy.work-'))
  t.deepEqual(after, before)
  await stopCleanly(t, second.server)
})

testWithLimits(
  'a memory limit that is too low fails the start with the sizes, before an OOM kill',
  ['memory limit'],
  async (t) => {
    const cgroup = memoryCgroup(t, 250_000_000)
    const start = (workers: string) => spawnServer(t, { args: ['--workers', workers], cgroup: cgroup.procs })
    const refused = start('8')
    t.deepEqual(await refused.exited, { code: 1, signal: null })
    const fatal = refused.log.find((line) => line.level === 'fatal')
    t.is(fatal?.code, 'MEMORY_LIMIT')
    t.regex(
      fatal?.msg ?? '',
      /at least 543\.\d MB \(segments 3\.\d MB, 8 workers of 60\.0 MB, .*allows only 250\.0 MB/,
    )
    t.deepEqual(refused.segments(), [])
    const served = start('2')
    await served.ready()
    await stopCleanly(t, served)
  },
)

test.serial('a segment folder on a disk works if configured, with a warning', async (t) => {
  const segmentDir = temporaryFolder(t)
  const { server, url } = await startServer(t, { segmentDir, args: ['--workers', '2'] })
  t.is((await fetch(`${url}/v2/models/logp/ready`)).status, 200)
  const isDisk = statfsSync(segmentDir).type !== 0x01021994
  const hasWarned = server.log.some((line) => line.msg.startsWith('the segment folder is not in memory'))
  t.is(hasWarned, isDisk)
  await stopCleanly(t, server)
})
