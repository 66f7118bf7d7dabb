import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { encodeHeader, type SegmentHeader } from '../../src/segment/layout.js'
import { readHeader } from '../../src/segment/write.js'
import { POINT } from '../helpers/model-inputs.js'
import { addModel, slowModel, writeModel } from '../helpers/onnx-builder.js'
import { killWithChildren } from '../helpers/processes.js'
import {
  type ServerUnderTest,
  spawnServer,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../helpers/server.js'
import { inferOutputs } from '../helpers/v2-client.js'

const ADOPTED = 'segment adopted from a dead server'
const NOT_USED = 'the segment of a dead server was not adopted'

async function answerOf(url: string): Promise<number[]> {
  const [output] = await inferOutputs({ url, model: 'add', inputs: [POINT] })
  return [...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)]
}

interface Scene {
  readonly models: string
  readonly segmentDir: string
  /** The path of the leftover segment. */
  readonly path: string
}

/** A server whose processes were all killed at the same time. */
async function killedServer(t: ExecutionContext): Promise<Scene> {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const { server } = await startServer(t, { models, segmentDir, args: ['--workers', '2'] })
  await killWithChildren(server.process.pid as number)
  await server.exited
  const [path] = server.segments().filter((one) => one.endsWith('.segment'))
  return { models, segmentDir, path: join(segmentDir, path as string) }
}

function hasLogged(server: ServerUnderTest, msg: string): boolean {
  return server.log.some((line) => line.msg === msg)
}

test.serial(
  'after a kill of all processes, the next start adopts the segment and compiles nothing',
  async (t) => {
    const { models, segmentDir, path } = await killedServer(t)
    const { server, url } = await startServer(t, { models, segmentDir, args: ['--workers', '2'] })
    t.true(hasLogged(server, ADOPTED))
    t.false(hasLogged(server, 'compiled, segment written'))
    t.false(
      server.segments().some((one) => join(segmentDir, one) === path),
      'it was moved',
    )
    t.is(server.segments().filter((one) => one.endsWith('.segment')).length, 1)
    t.deepEqual(await answerOf(url), [11, 22])
    await stopCleanly(t, server)
  },
)

async function edited(path: string, edit: (bytes: Buffer) => Buffer): Promise<void> {
  const bytes = edit(readFileSync(path))
  chmodSync(path, 0o600)
  writeFileSync(path, bytes)
  chmodSync(path, 0o400)
}

async function withHeader(path: string, change: Partial<SegmentHeader>): Promise<void> {
  const file = await open(path)
  const header = await readHeader(file)
  await file.close()
  const head = encodeHeader({ ...header, ...change }, header.graph.offsetBytes)
  await edited(path, (bytes) => {
    head.copy(bytes)
    return bytes
  })
}

const DAMAGES: Record<string, (path: string) => Promise<void>> = {
  'a bit of it was flipped': (path) =>
    edited(path, (bytes) => {
      bytes[bytes.length - 3] = (bytes[bytes.length - 3] as number) ^ 1
      return bytes
    }),
  'it was truncated': (path) => edited(path, (bytes) => bytes.subarray(0, bytes.length - 1)),
  'it was extended': (path) => edited(path, (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])),
  'its format differs': (path) =>
    edited(path, (bytes) => {
      bytes.writeUInt32LE(99, 8)
      return bytes
    }),
  'its runtime differs': (path) => withHeader(path, { runtimeVersion: '0.0.1' }),
  'its CPU, options or model differ': (path) => withHeader(path, { key: 'a'.repeat(64) }),
  'it is writable': async (path) => chmodSync(path, 0o600),
}

for (const [what, damage] of Object.entries(DAMAGES)) {
  test.serial(`the segment of a dead server is not adopted if ${what}`, async (t) => {
    const { models, segmentDir, path } = await killedServer(t)
    await damage(path)
    const { server, url } = await startServer(t, { models, segmentDir, args: ['--workers', '1'] })
    t.false(hasLogged(server, ADOPTED))
    t.true(hasLogged(server, 'compiled, segment written'))
    t.deepEqual(await answerOf(url), [11, 22])
    t.is(server.segments().filter((one) => one.endsWith('.segment')).length, 1)
    await stopCleanly(t, server)
  })
}

test.serial('a model that has changed is compiled, and the leftover segment is removed', async (t) => {
  const { models, segmentDir } = await killedServer(t)
  writeModel(models, 'add', addModel([5, 6]))
  const { server, url } = await startServer(t, { models, segmentDir, args: ['--workers', '1'] })
  t.false(hasLogged(server, ADOPTED))
  t.false(hasLogged(server, NOT_USED))
  t.deepEqual(await answerOf(url), [15, 26])
  await stopCleanly(t, server)
})

test.serial('of two servers that start concurrently, one adopts the segment, and both serve', async (t) => {
  const { models, segmentDir } = await killedServer(t)
  const servers = [1, 2].map(() => spawnServer(t, { models, segmentDir, args: ['--workers', '1'] }))
  for (const server of servers) t.deepEqual(await answerOf((await server.ready()).url), [11, 22])
  t.true(servers.filter((server) => hasLogged(server, ADOPTED)).length <= 1)
  for (const server of servers) t.deepEqual(await server.stop(), { code: 0, signal: null })
  t.deepEqual(servers[0]?.segments(), [])
})

test.serial('the segment of a live server is not adopted', async (t) => {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  const first = await startServer(t, { models, args: ['--workers', '1'] })
  const { segmentDir } = first.server
  const second = await startServer(t, { models, segmentDir, args: ['--workers', '1'] })
  t.false(hasLogged(second.server, ADOPTED))
  t.is(first.server.segments().filter((one) => one.endsWith('.segment')).length, 2)
  t.deepEqual(await second.server.stop(), { code: 0, signal: null })
  await stopCleanly(t, first.server)
})
