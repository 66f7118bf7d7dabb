import { chmodSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { attachWhole } from '../../../src/segment/attach.js'
import { decodeHeader, type SegmentHeader } from '../../../src/segment/layout.js'
import { fillUp, smallTmpfs, testWithLimits } from '../../helpers/limits.js'
import {
  ELEMENT,
  graph,
  modelBytes,
  node,
  value,
  weights,
  wideModel,
  writeModel,
} from '../../helpers/onnx-builder.js'
import { killWithChildren } from '../../helpers/processes.js'
import {
  type RunningServer,
  type ServerUnderTest,
  type StartOptions,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { inferOutputs } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

const WEIGHTS_BYTES = 8_000_000
const INPUTS = 1024
const RELEASED = 'released raw weights'
const ADOPTED = 'segment adopted from a dead server'

function floats(name: string, shape: readonly number[]) {
  const count = shape.reduce((product, size) => product * size, 1)
  const bytes = new Uint8Array(Float32Array.from({ length: count }, (_, i) => Math.cos(i)).buffer)
  return { name, datatype: 'FP32', shape, bytes }
}

/** All outputs, each over a new connection. */
async function answerOf(url: string, inputs = [floats('x', [1, INPUTS])]): Promise<unknown> {
  return await inferOutputs({ url, model: 'wide', inputs, encoding: 'binary' })
}

function segmentPath(server: ServerUnderTest): string {
  const paths = server.segments().filter((path) => path.endsWith('.segment'))
  if (paths.length !== 1) throw new Error(`expected one segment, got ${JSON.stringify(paths)}`)
  return join(server.segmentDir, paths[0] as string)
}

/** Memory of the segment, in bytes. */
function memoryOf(server: ServerUnderTest): number {
  return statSync(segmentPath(server)).blocks * 512
}

function count(server: ServerUnderTest, msg: string): number {
  return server.log.filter((line) => line.msg === msg).length
}

async function isReleased(server: ServerUnderTest, times = 1): Promise<void> {
  await until(`release ${times}`, () => count(server, RELEASED) === times)
}

async function start(t: ExecutionContext, options: StartOptions = {}): Promise<RunningServer> {
  const models = options.models ?? writeModel(temporaryFolder(t), 'wide', wideModel(WEIGHTS_BYTES))
  return await startServer(t, {
    models,
    ...options,
    args: ['--log-level', 'debug', ...(options.args ?? ['--workers', '2'])],
  })
}

async function startReleased(t: ExecutionContext, options: StartOptions = {}): Promise<RunningServer> {
  const running = await start(t, options)
  await isReleased(running.server)
  return running
}

/** Kills a serving worker, and waits for its replacement. */
async function replaceWorker(server: ServerUnderTest): Promise<void> {
  const ready = server.log.filter(({ msg }) => msg === 'worker ready')
  process.kill(ready.at(-1)?.workerPid as number, 'SIGKILL')
  await until('another worker', () => count(server, 'worker ready') > ready.length)
}

test.serial('weights are in memory once between loads, and complete during a load', async (t) => {
  const { server, url, adminUrl } = await start(t)
  const expected = await answerOf(url)
  const whole = statSync(segmentPath(server)).size
  await isReleased(server)
  t.true(memoryOf(server) < whole - 0.95 * WEIGHTS_BYTES, `${memoryOf(server)} of ${whole} bytes in use`)
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), expected)

  await replaceWorker(server)
  t.true(memoryOf(server) >= whole, 'raw weights are restored')
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), expected)
  await isReleased(server, 2)
  t.true(memoryOf(server) < whole - 0.95 * WEIGHTS_BYTES)

  await fetch(`${adminUrl}/restart`, { method: 'POST' })
  await server.logged(({ msg }) => msg === 'every worker was replaced')
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), expected)
  await stopCleanly(t, server)
})

test.serial('weights that two operators share stay, because one still reads them', async (t) => {
  const size = 520
  const shared = modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['batch', size]), value('z', ELEMENT.float, [1])],
      output: [value('y', ELEMENT.float, ['batch', 2 * size]), value('sum', ELEMENT.float, [size, size])],
      node: [
        node('MatMul', ['x', 'shared'], ['h']),
        node('MatMul', ['h', 'own'], ['y']),
        node('Add', ['shared', 'z'], ['sum']),
      ],
      initializer: [weights('shared', [size, size]), weights('own', [size, 2 * size])],
    }),
  )
  const models = writeModel(temporaryFolder(t), 'wide', shared)
  const { server, url } = await start(t, { models })
  const inputs = [floats('x', [1, size]), floats('z', [1])]
  const expected = await answerOf(url, inputs)
  await isReleased(server)
  const bytes = server.log.find(({ msg }) => msg === RELEASED)?.bytes
  t.true((bytes as number) <= 2 * size * size * 4, `${bytes} bytes were released`)
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url, inputs), expected)
  await replaceWorker(server)
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url, inputs), expected)
  await stopCleanly(t, server)
})

interface Scene {
  readonly models: string
  readonly segmentDir: string
  readonly cacheDir: string
  /** The segment without raw weights of a server whose processes were all killed. */
  readonly path: string
  readonly expected: unknown
}

async function killedWhenReleased(t: ExecutionContext): Promise<Scene> {
  const models = writeModel(temporaryFolder(t), 'wide', wideModel(WEIGHTS_BYTES))
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const cacheDir = temporaryFolder(t)
  const { server, url } = await startReleased(t, { models, segmentDir, cacheDir })
  const expected = await answerOf(url)
  await killWithChildren(server.process.pid as number)
  await server.exited
  return { models, segmentDir, cacheDir, path: segmentPath(server), expected }
}

test.serial('a leftover segment without raw weights is completed and adopted', async (t) => {
  const { models, segmentDir, cacheDir, expected } = await killedWhenReleased(t)
  const { server, url } = await start(t, { models, segmentDir, cacheDir })
  t.is(count(server, ADOPTED), 1)
  t.deepEqual(await answerOf(url), expected)
  await stopCleanly(t, server)
})

function headerAt(path: string): SegmentHeader {
  return decodeHeader(readFileSync(path))
}

test.serial('a leftover segment with partially restored raw weights is completed and adopted', async (t) => {
  const { models, segmentDir, cacheDir, path, expected } = await killedWhenReleased(t)
  const { key, data, rawRanges } = headerAt(path)
  const image = readFileSync(join(cacheDir, `${key}.segment`))
  const [range] = rawRanges
  chmodSync(path, 0o600)
  const from = data.offsetBytes + (range?.offsetBytes ?? 0)
  const half = Math.floor((range?.bytes ?? 0) / 2)
  writeSync(openSync(path, 'r+'), image, from, half, from)
  chmodSync(path, 0o400)
  const { server, url } = await start(t, { models, segmentDir, cacheDir })
  t.is(count(server, ADOPTED), 1)
  t.deepEqual(await answerOf(url), expected)
  await stopCleanly(t, server)
})

test.serial('a leftover segment without raw weights does not count as complete', async (t) => {
  const { models, segmentDir, expected } = await killedWhenReleased(t)
  const { server, url } = await start(t, { models, segmentDir })
  t.is(count(server, ADOPTED), 0)
  t.is(count(server, 'compiled, segment written'), 1)
  t.deepEqual(await answerOf(url), expected)
  await stopCleanly(t, server)
})

test.serial('the compile cache can be deleted while its weights are needed', async (t) => {
  const { server, url } = await startReleased(t)
  const expected = await answerOf(url)
  rmSync(server.cacheDir, { recursive: true })
  await replaceWorker(server)
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), expected)
  await stopCleanly(t, server)
})

test.serial(
  'a segment is rebuilt if the compile cache is corrupted while its weights are needed',
  async (t) => {
    const { server, url } = await startReleased(t)
    const expected = await answerOf(url)
    const { key, data, rawRanges } = headerAt(segmentPath(server))
    const image = join(server.cacheDir, `${key}.segment`)
    chmodSync(image, 0o600)
    writeSync(
      openSync(image, 'r+'),
      Buffer.of(1, 2, 3),
      0,
      3,
      data.offsetBytes + (rawRanges[0]?.offsetBytes ?? 0),
    )
    await replaceWorker(server)
    t.is(count(server, 'rebuilding the segment'), 1)
    for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), expected)
    await isReleased(server, 2)
    await stopCleanly(t, server)
  },
)

testWithLimits(
  'a worker cannot start without space to restore raw weights, and starts once there is space',
  ['tmpfs'],
  async (t) => {
    const segmentDir = smallTmpfs(t, 'size=40m')
    const { server, url, adminUrl } = await startReleased(t, { segmentDir })
    const expected = await answerOf(url)
    const filler = fillUp(segmentDir)
    process.kill(
      server.log.filter(({ msg }) => msg === 'worker ready').at(-1)?.workerPid as number,
      'SIGKILL',
    )
    await until('a failed start', () => server.log.some(({ code }) => code === 'SEGMENT_SPACE'))
    t.deepEqual(await answerOf(url), expected, 'the other worker keeps serving')
    rmSync(filler)
    const before = count(server, 'worker ready')
    // If the supervisor has reached the boot limit, a restart starts the replica again.
    await fetch(`${adminUrl}/restart`, { method: 'POST' })
    await until('all workers', () => count(server, 'worker ready') >= before + 2)
    for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), expected)
    await stopCleanly(t, server)
  },
)

test.serial('a model with released raw weights can be replaced', async (t) => {
  const models = writeModel(temporaryFolder(t), 'wide', wideModel(WEIGHTS_BYTES))
  const args = ['--workers', '2', '--model-control', 'explicit', '--load-model', '*']
  const { server, url, adminUrl } = await startReleased(t, { models, args })
  const before = await answerOf(url)
  const size = WEIGHTS_BYTES / INPUTS / 4
  const other = graph({
    input: [value('x', ELEMENT.float, ['batch', INPUTS])],
    output: [value('y', ELEMENT.float, ['batch', Math.round(size)])],
    node: [node('MatMul', ['x', 'weight'], ['h']), node('Neg', ['h'], ['y'])],
    initializer: [weights('weight', [INPUTS, Math.round(size)])],
  })
  writeModel(models, 'wide', modelBytes(other))
  const loaded = await fetch(`${adminUrl}/v2/repository/models/wide/load`, { method: 'POST' })
  t.is(loaded.status, 200, await loaded.text())
  const after = await answerOf(url)
  t.notDeepEqual(after, before)
  await isReleased(server, 2)
  t.true(memoryOf(server) < statSync(segmentPath(server)).size - 0.95 * WEIGHTS_BYTES)
  await replaceWorker(server)
  for (let i = 0; i < 4; i++) t.deepEqual(await answerOf(url), after)
  await stopCleanly(t, server)
})

test.serial('raw weights are kept if configured', async (t) => {
  const kept = await start(t, { args: ['--workers', '2', '--raw-weights', 'keep'] })
  const released = await startReleased(t)
  t.true(memoryOf(kept.server) >= statSync(segmentPath(kept.server)).size)
  await stopCleanly(t, released.server)
  await stopCleanly(t, kept.server)
})

test.serial('raw weights in use by another process are released only after it has finished', async (t) => {
  const { server, url } = await start(t)
  const path = segmentPath(server)
  const held = await attachWhole(path)
  // A segment of the same age that no process holds.
  const other = await startReleased(t)
  t.true(memoryOf(server) >= statSync(path).size)
  t.is(held.header.model?.name, 'wide')
  await held.close()
  await isReleased(server)
  const refused = await t.throwsAsync(attachWhole(path), { code: 'SEGMENT_INVALID' })
  t.regex(refused?.message ?? '', /its raw weights are released/)
  await answerOf(url)
  await stopCleanly(t, other.server)
  await stopCleanly(t, server)
})
