import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { OnecopyError } from '../../src/errors.js'
import { ownIdentity, type ProcessIdentity } from '../../src/process/identity.js'
import { createServerFolder } from '../../src/segment/folder.js'
import {
  DATA_ALIGNMENT_BYTES,
  encodeHeader,
  SEGMENT_FILE_NAME,
  type SegmentHeader,
  TEMPORARY_FILE_NAME,
} from '../../src/segment/layout.js'
import { listServers } from '../../src/segment/listing.js'
import { sweepSegmentFolder } from '../../src/segment/sweep.js'
import { type SegmentFile, writeSegment } from '../../src/segment/write.js'
import { startZombie } from '../helpers/processes.js'
import { temporaryFolder } from '../helpers/server.js'

const SHM = '/dev/shm'

/** An image as the compiler writes it, but with a graph that is never loaded. */
function writeImage(t: ExecutionContext): string {
  const graph = Buffer.from('graph')
  const data = Buffer.from('weights')
  const roomBytes = 4096
  const header: SegmentHeader = {
    key: '0'.repeat(64),
    createdAt: new Date(0).toISOString(),
    runtimeVersion: '0',
    fileBytes: DATA_ALIGNMENT_BYTES + data.length,
    graph: {
      offsetBytes: roomBytes,
      bytes: graph.length,
      sha256: createHash('sha256').update(graph).digest('hex'),
    },
    data: { offsetBytes: DATA_ALIGNMENT_BYTES, bytes: data.length, crc32: crc32(data) },
    form: 'compiled',
    externalDataFolder: null,
    inputs: [],
    outputs: [{ name: 'y', datatype: 'FP32', shape: null }],
    skippedOutputs: [],
    rawRanges: [],
    sharing: {
      state: 'shared',
      weightsBytes: data.length,
      sharedRawBytes: data.length,
      sharedPackedBytes: 0,
      privatelyPackedBytes: 0,
      unshareableBytes: 0,
      notes: [],
    },
    batching: { batchable: false, reason: 'not of interest' },
    random: null,
    divisions: [],
    valueDependent: null,
    selfCheck: null,
    owner: null,
    model: null,
  }
  const file = Buffer.alloc(header.fileBytes)
  encodeHeader(header, roomBytes).copy(file)
  graph.copy(file, roomBytes)
  data.copy(file, DATA_ALIGNMENT_BYTES)
  const path = join(temporaryFolder(t), 'image.segment')
  writeFileSync(path, file)
  return path
}

/** This process as a server with one segment. */
async function ownServer(t: ExecutionContext, segmentDir: string): Promise<SegmentFile> {
  const server = await createServerFolder(segmentDir)
  return await writeSegment({ imagePath: writeImage(t), server, model: { name: 'add', version: '3' } })
}

/** The folder that a server with this identity creates; without an owner record if omitted. */
function folderOf(segmentDir: string, owner: Pick<ProcessIdentity, 'pid' | 'startTicks'>, record?: unknown) {
  const path = join(segmentDir, `onecopy-${owner.pid}-${owner.startTicks}`)
  mkdirSync(path, { mode: 0o700 })
  if (record !== undefined) writeFileSync(join(path, 'owner.json'), JSON.stringify(record), { mode: 0o400 })
  return path
}

async function onlySegment(segmentDir: string) {
  const [server] = await listServers(segmentDir)
  return server?.segments[0]
}

async function refused(t: ExecutionContext, segmentDir: string, says: RegExp): Promise<void> {
  const error = await t.throwsAsync(listServers(segmentDir), { instanceOf: OnecopyError })
  t.is(error?.code, 'SEGMENT_FOLDER_INVALID')
  t.regex(error?.message ?? '', says)
}

test('a running server is listed with its segments and never swept', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const startedMs = Date.now()
  const { path, bytes, header } = await ownServer(t, segmentDir)
  const [server, ...others] = await listServers(segmentDir)
  t.deepEqual(others, [])
  t.like(server, {
    path: dirname(dirname(path)),
    name: basename(dirname(dirname(path))),
    uid: process.getuid?.(),
    owner: ownIdentity(),
    state: 'live',
  })
  // File times come from the kernel's coarse clock.
  t.true(Math.abs((server?.createdAtMs ?? 0) - startedMs) < 10_000)
  const memoryBytes = statSync(path).blocks * 512
  t.deepEqual(server?.segments, [
    { path, model: 'add', version: '3', bytes, memoryBytes, isFinished: true, header, problem: null },
  ])
  t.deepEqual(await sweepSegmentFolder(segmentDir), [])
  t.true(existsSync(path))
})

test('a server is dead unless its pid, start time and boot id match a running process', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const self = ownIdentity()
  const zombie = await startZombie(t)
  const dead = [
    folderOf(segmentDir, { pid: 999_999_999, startTicks: 5 }, { ...self, pid: 999_999_999, startTicks: 5 }),
    folderOf(segmentDir, { ...self, startTicks: 6 }, { ...self, startTicks: self.startTicks + 1 }),
    folderOf(segmentDir, { ...self, startTicks: 7 }, { ...self, bootId: 'another boot' }),
    folderOf(segmentDir, zombie, zombie),
  ]
  const live = folderOf(segmentDir, self, self)
  const listed = await listServers(segmentDir)
  t.deepEqual(
    Object.fromEntries(listed.map(({ path, state }) => [path, state])),
    Object.fromEntries([...dead.map((path) => [path, 'dead']), [live, 'live']]),
  )
  t.deepEqual((await sweepSegmentFolder(segmentDir)).sort(), [...dead].sort())
  t.deepEqual(readdirSync(segmentDir), [basename(live)])
})

test('a folder without a readable owner record counts as starting for one minute', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const missing = folderOf(segmentDir, { pid: 1, startTicks: 1 })
  const broken = folderOf(segmentDir, { pid: 1, startTicks: 2 }, { pid: 'none' })
  const states = async () => (await listServers(segmentDir)).map(({ owner, state }) => ({ owner, state }))
  t.deepEqual(await states(), [
    { owner: null, state: 'starting' },
    { owner: null, state: 'starting' },
  ])
  t.deepEqual(await sweepSegmentFolder(segmentDir), [])
  const beforeSeconds = Date.now() / 1000 - 61
  for (const path of [missing, broken]) utimesSync(path, beforeSeconds, beforeSeconds)
  t.deepEqual(await states(), [
    { owner: null, state: 'dead' },
    { owner: null, state: 'dead' },
  ])
  t.deepEqual((await sweepSegmentFolder(segmentDir)).sort(), [missing, broken].sort())
})

test('only real folders with the name of a server are inspected', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const elsewhere = temporaryFolder(t, SHM)
  const target = folderOf(elsewhere, { pid: 999_999_999, startTicks: 5 }, { ...ownIdentity(), startTicks: 5 })
  symlinkSync(target, join(segmentDir, basename(target)))
  writeFileSync(join(segmentDir, 'onecopy-1-2'), '')
  mkdirSync(join(segmentDir, 'onecopy-test-1'))
  mkdirSync(join(segmentDir, 'sem.other'))
  const names = readdirSync(segmentDir)
  t.deepEqual(await listServers(segmentDir), [])
  t.deepEqual(await sweepSegmentFolder(segmentDir), [])
  t.deepEqual(readdirSync(segmentDir), names)
  t.deepEqual(readdirSync(target), ['owner.json'])
})

const testAsRoot = process.getuid?.() === 0 ? test : test.skip
testAsRoot("another user's folder is not looked into and not swept", async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const path = folderOf(segmentDir, { pid: 999_999_999, startTicks: 5 }, { ...ownIdentity(), startTicks: 5 })
  mkdirSync(join(path, 'add@1'))
  writeFileSync(join(path, 'add@1', SEGMENT_FILE_NAME), 'bytes')
  chownSync(path, 12_345, 12_345)
  t.like(await listServers(segmentDir), [{ path, uid: 12_345, owner: null, state: 'foreign', segments: [] }])
  t.deepEqual(await sweepSegmentFolder(segmentDir), [])
  t.true(existsSync(path))
})

test('an unfinished write is listed with its size, and removed with its dead server', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const record = { ...ownIdentity(), pid: 999_999_999, startTicks: 5 }
  const server = folderOf(segmentDir, record, record)
  // A model name can contain the separator before the version.
  const folder = join(server, 'a@b@2')
  mkdirSync(folder)
  mkdirSync(join(server, 'empty@1'))
  const path = join(folder, TEMPORARY_FILE_NAME)
  writeFileSync(path, Buffer.alloc(5000))
  t.deepEqual((await listServers(segmentDir))[0]?.segments, [
    {
      path,
      model: 'a@b',
      version: '2',
      bytes: 5000,
      memoryBytes: 8192,
      isFinished: false,
      header: null,
      problem: null,
    },
  ])
  t.deepEqual(await sweepSegmentFolder(segmentDir), [server])
  t.deepEqual(readdirSync(segmentDir), [])
})

test('an invalid segment is listed with its problem', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const { path, header } = await ownServer(t, segmentDir)
  const original = readFileSync(path)
  const restored = (bytes: Buffer) => {
    rmSync(path, { force: true })
    writeFileSync(path, bytes, { mode: 0o400 })
  }

  chmodSync(path, 0o444)
  t.like(await onlySegment(segmentDir), { header, problem: 'expected mode 0400, got 0444' })

  restored(original)
  appendFileSync(path, 'more')
  const { fileBytes } = header
  const problem = `expected ${fileBytes} bytes, got ${fileBytes + 4}`
  t.like(await onlySegment(segmentDir), { header, bytes: fileBytes + 4, problem })

  const flipped = Buffer.from(original)
  flipped[60] = (flipped[60] ?? 0) ^ 1
  restored(flipped)
  t.like(await onlySegment(segmentDir), { header: null, problem: 'the header does not match its checksum' })

  restored(original.subarray(0, 10))
  t.like(await onlySegment(segmentDir), { header: null, bytes: 10 })
  t.regex((await onlySegment(segmentDir))?.problem ?? '', /expected 32 bytes, the file ends at 10/)

  restored(original)
  renameSync(path, `${path}.moved`)
  symlinkSync(`${path}.moved`, path)
  t.like(await onlySegment(segmentDir), { header: null, problem: 'expected a regular file' })
})

test('a segment folder that is missing or a symbolic link is rejected', async (t) => {
  const folder = temporaryFolder(t, SHM)
  const link = join(folder, 'link')
  symlinkSync(folder, link)
  await refused(t, join(folder, 'none'), /nothing there/)
  await refused(t, link, /symbolic link/)
  t.deepEqual(await sweepSegmentFolder(join(folder, 'none')), [])
})

test('a server in another pid namespace is alive while it holds its lock', async (t) => {
  const segmentDir = temporaryFolder(t, SHM)
  const script = `
    const { createServerFolder } = await import(process.argv[1])
    const { path } = await createServerFolder(process.argv[2])
    process.stdout.write(path)
    setInterval(() => {}, 1000)`
  const module = new URL('../../src/segment/folder.js', import.meta.url).href
  const owner = spawn(process.execPath, ['--input-type=module', '-e', script, module, segmentDir])
  t.teardown(() => owner.kill('SIGKILL'))
  const [said] = (await once(owner.stdout, 'data')) as [Buffer]
  const record = join(said.toString(), 'owner.json')
  chmodSync(record, 0o600)
  // Written in place, because the lock belongs to this file.
  writeFileSync(record, JSON.stringify({ ...ownIdentity(), pid: 1, startTicks: 1 }), { flag: 'r+' })
  truncateSync(record, JSON.stringify({ ...ownIdentity(), pid: 1, startTicks: 1 }).length)
  const stateNow = async () => (await listServers(segmentDir))[0]?.state
  t.is(await stateNow(), 'live')
  t.deepEqual(await sweepSegmentFolder(segmentDir), [])
  owner.kill('SIGKILL')
  await once(owner, 'exit')
  t.is(await stateNow(), 'dead')
  t.is((await sweepSegmentFolder(segmentDir)).length, 1)
})
