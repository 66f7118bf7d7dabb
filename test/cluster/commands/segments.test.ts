import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import * as z from 'zod'
import { ownIdentity } from '../../../src/process/identity.js'
import { TEMPORARY_FILE_NAME } from '../../../src/segment/layout.js'
import { formatAge } from '../../../src/units.js'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { killWithChildren } from '../../helpers/processes.js'
import {
  runCommand,
  type ServerUnderTest,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { inferOutputs } from '../../helpers/v2-client.js'

const Document = z.object({
  segmentDir: z.string(),
  bytes: z.int(),
  memoryBytes: z.int(),
  servers: z.array(
    z.object({
      path: z.string(),
      state: z.string(),
      owner: z.object({ pid: z.int() }).nullable(),
      segments: z.array(
        z.object({
          path: z.string(),
          model: z.string(),
          version: z.string(),
          bytes: z.int(),
          memoryBytes: z.int(),
          problem: z.string().nullable(),
        }),
      ),
    }),
  ),
  removed: z.array(z.object({ path: z.string(), bytes: z.int(), memoryBytes: z.int() })).optional(),
})

function segments(segmentDir: string, ...flags: string[]) {
  return runCommand(['segments', '--segment-dir', segmentDir, ...flags])
}

function document(t: ExecutionContext, segmentDir: string, ...flags: string[]): z.infer<typeof Document> {
  const { code, stdout, stderr } = segments(segmentDir, '--json', ...flags)
  t.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  return Document.parse(JSON.parse(stdout))
}

async function startAdd(t: ExecutionContext, segmentDir: string) {
  const models = writeModel(temporaryFolder(t), 'add', addModel(), '7')
  return await startServer(t, { models, segmentDir, args: ['--workers', '2'] })
}

/** Killed together with its workers, so that no process cleans up. */
async function kill(t: ExecutionContext, server: ServerUnderTest): Promise<void> {
  await killWithChildren(server.process.pid as number)
  t.deepEqual(await server.exited, { code: null, signal: 'SIGKILL' })
}

/** The cells of the table row whose first cell starts with this text. */
function rowOf(stdout: string, owner: string): string[] {
  const rows = stdout.split('\n').map((line) => line.split('│').map((cell) => cell.trim()))
  return rows.find((cells) => cells[1]?.startsWith(owner))?.slice(1, -1) ?? []
}

test.serial('segments of a killed server are listed and removed; a live server keeps its own', async (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const killed = await startAdd(t, segmentDir)
  const living = await startAdd(t, segmentDir)
  await kill(t, killed.server)
  const livingPid = living.server.process.pid as number
  const killedPid = killed.server.process.pid as number

  const before = document(t, segmentDir)
  const [dead, live] = ['dead', 'live'].map((state) => before.servers.find((one) => one.state === state))
  t.is(before.servers.length, 2)
  t.is(dead?.owner?.pid, killedPid)
  t.is(live?.owner?.pid, livingPid)
  for (const server of [dead, live]) {
    const [segment] = server?.segments ?? []
    t.like(segment, { model: 'add', version: '7', problem: null })
    t.is(segment?.bytes, statSync(segment?.path ?? '').size)
    t.is(segment?.memoryBytes, statSync(segment?.path ?? '').blocks * 512)
  }
  const bytes = dead?.segments[0]?.bytes as number
  const memoryBytes = dead?.segments[0]?.memoryBytes as number
  t.is(before.bytes, 2 * bytes)
  t.is(before.memoryBytes, 2 * memoryBytes)
  t.is(before.removed, undefined)

  const table = segments(segmentDir)
  t.is(table.code, 0)
  const [owner, age, , , model, state] = rowOf(table.stdout, `pid ${killedPid}`)
  t.deepEqual([owner, model, state], [`pid ${killedPid}, dead`, 'add@7', 'orphaned'])
  t.regex(age ?? '', /^\d+ (s|min)$/)
  t.is(rowOf(table.stdout, `pid ${livingPid}`)[5], 'live')
  t.regex(table.stdout, /^total: 2 servers, 2 segments, .* of dead servers \(--sweep removes it\)$/m)
  t.is(readdirSync(segmentDir).length, 2, 'listing removes nothing')

  const swept = segments(segmentDir, '--sweep')
  t.is(swept.code, 0)
  t.true(swept.stdout.includes(`removed ${dead?.path}, `))
  t.true(swept.stdout.includes(`removed the segments of 1 dead server, `))
  t.true(swept.stdout.includes(` (${memoryBytes} bytes)\n`))
  t.deepEqual(readdirSync(segmentDir), [basename(live?.path ?? '')])

  const [output] = await inferOutputs({
    url: living.url,
    model: 'add',
    inputs: [
      { name: 'x', datatype: 'FP32', shape: [1, 2], bytes: new Uint8Array(Float32Array.of(10, 20).buffer) },
    ],
  })
  t.is(output?.bytes?.byteLength, 8)
  const again = document(t, segmentDir, '--sweep')
  t.deepEqual(again.removed, [])
  t.is(again.servers.length, 1)
  await stopCleanly(t, living.server)
})

test.serial('the JSON of a sweep lists what was removed, with the bytes', async (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const owner = { ...ownIdentity(), pid: 999_999_999, startTicks: 5 }
  const path = join(segmentDir, 'onecopy-999999999-5')
  mkdirSync(join(path, 'add@1'), { recursive: true })
  writeFileSync(join(path, 'owner.json'), JSON.stringify(owner))
  writeFileSync(join(path, 'add@1', TEMPORARY_FILE_NAME), Buffer.alloc(1234))
  t.deepEqual(rowOf(segments(segmentDir).stdout, 'pid 999999999').slice(2), [
    '1.2 kB',
    '4.1 kB',
    'add@1',
    'unfinished, orphaned',
  ])
  t.deepEqual(document(t, segmentDir, '--sweep'), {
    segmentDir,
    bytes: 0,
    memoryBytes: 0,
    servers: [],
    removed: [{ path, bytes: 1234, memoryBytes: 4096 }],
  })
  t.deepEqual(readdirSync(segmentDir), [])
})

test.serial('an empty folder prints one line; the environment variable of the server applies', (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const { code, stdout } = runCommand(['segments'], { ONECOPY_SEGMENT_DIR: segmentDir })
  t.deepEqual({ code, stdout }, { code: 0, stdout: `no segments in ${segmentDir}\n` })
})

test.serial('a missing folder and unknown flags exit with 2', (t) => {
  const missing = segments('/no/such/folder', '--sweep')
  t.is(missing.code, 2)
  t.regex(missing.stderr, /^onecopy: SEGMENT_FOLDER_INVALID: .*\/no\/such\/folder.*nothing there/)
  for (const flags of [['--swep'], ['extra'], ['--json=yes'], ['--segment-dir'], ['--segment-dir', '']]) {
    const { code, stdout, stderr } = runCommand(['segments', ...flags])
    t.deepEqual({ code, stdout }, { code: 2, stdout: '' }, flags.join(' '))
    t.regex(stderr, /^onecopy: CONFIG_INVALID: [\s\S]*\(see onecopy segments --help\)\n$/, flags.join(' '))
  }
})

test.serial('an age is printed in the largest unit that fits', (t) => {
  const ages = [-5, 59_999, 60_000, 3_599_999, 3_600_000, 86_399_999, 3 * 86_400_000].map(formatAge)
  t.deepEqual(ages, ['0 s', '59 s', '1 min', '59 min', '1 h', '23 h', '3 d'])
})
