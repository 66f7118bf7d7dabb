/**
 * Drain, rolling restart, hot swap and killed workers while unary calls and streams arrive over several
 * channels.
 */
import { renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import { clientPortsOf, ownerOf } from '../../bench/harness/connections.js'
import { Health } from '../../src/grpc/schema/health_pb.js'
import {
  GRPCInferenceService,
  ModelInferRequestSchema,
  type ModelInferResponse,
  type ModelStreamInferResponse,
} from '../../src/grpc/schema/inference_pb.js'
import { FaultServer } from '../faults/fault-server.js'
import { metricOf, scrape } from '../faults/slow-requests.js'
import { addRequest, GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'
import { iterations } from '../helpers/model-inputs.js'
import { addModel, slowModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'
import { GrpcLoad } from './grpc-load.js'

const { method } = GRPCInferenceService
const WORKERS = 2
const CHANNELS = 4
/** Long enough for `slow` to be seen in the queue; 0.1 ms per iteration. */
const SLOW_ITERATIONS = 3000
const REPLACED = 'every worker was replaced'
/** A retry policy as clients configure it. */
const RETRY = {
  'grpc.service_config': JSON.stringify({
    methodConfig: [
      {
        name: [{}],
        retryPolicy: {
          ...{ maxAttempts: 5, initialBackoff: '0.05s', maxBackoff: '1s', backoffMultiplier: 2 },
          retryableStatusCodes: ['UNAVAILABLE'],
        },
      },
    ],
  }),
}

interface Scene {
  readonly server: FaultServer
  readonly models: string
  readonly address: string
  readonly adminUrl: string
}

async function serve(t: ExecutionContext, args: readonly string[] = []): Promise<Scene> {
  const models = writeModel(temporaryFolder(t), 'add', addModel([1, 1]))
  writeModel(models, 'slow', slowModel())
  const server = new FaultServer(t, {
    models,
    args: ['--grpc-port', '0', '--workers', String(WORKERS), ...args],
  })
  const { adminUrl } = await server.server.ready()
  const { grpcPort } = await server.server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  return { server, models, address: `127.0.0.1:${grpcPort}`, adminUrl }
}

function slowRequest() {
  const { name, datatype, bytes = new Uint8Array() } = iterations(SLOW_ITERATIONS)
  return { modelName: 'slow', inputs: [{ name, datatype, shape: [] }], rawInputContents: [bytes] }
}

/** The product of identity matrices is the identity. */
function isSlowAnswer({ rawOutputContents: [bytes] }: ModelInferResponse): boolean {
  const values = new Float32Array(Uint8Array.from(bytes ?? []).buffer)
  return values.length === 128 * 128 && values.every((one, i) => one === Number(i % 129 === 0))
}

interface Channel {
  readonly client: GrpcClient
  readonly ownerPid: number
}

/** Channels to known workers, made one after the other so that each new connection is theirs. */
async function channelsTo({ server, address }: Scene): Promise<Channel[]> {
  const port = Number(address.split(':')[1])
  const channels: Channel[] = []
  while (channels.length < CHANNELS) {
    const before = clientPortsOf(port)
    const client = new GrpcClient(address)
    await client.infer(addRequest([1, 2]))
    const [clientPort = 0] = clientPortsOf(port).filter((one) => !before.includes(one))
    const ownerPid = ownerOf({ port, workerPids: server.workerPids() }, clientPort)
    if (ownerPid === null) throw new Error(`no worker has the connection from port ${clientPort}`)
    channels.push({ client, ownerPid })
  }
  return channels
}

type End = 'answered' | 'wrong' | string

/** Three slow calls on each channel: one in each worker runs, all others are queued. */
async function holdCalls({ adminUrl }: Scene, channels: readonly Channel[]) {
  const calls = channels.flatMap(({ client, ownerPid }) =>
    Array.from({ length: 3 }, () => {
      const end: Promise<End> = client.infer(slowRequest()).then(
        (answer) => (isSlowAnswer(answer) ? 'answered' : 'wrong'),
        (thrown: GrpcFailure) => thrown.status,
      )
      const call = { ownerPid, end, hasEnded: false }
      void end.then(() => {
        call.hasEnded = true
      })
      return call
    }),
  )
  await until('every call is in the queue of its worker', async () => {
    const queued = metricOf(await scrape(adminUrl), 'onecopy_queue_depth ')
    return queued === calls.length - WORKERS
  })
  return calls
}

async function untilGone({ server }: Scene, t: ExecutionContext): Promise<void> {
  await server.untilGone()
  t.deepEqual(server.leftovers(), [])
}

test.serial('SIGTERM: calls and requests of streams in flight are answered, open streams end', async (t) => {
  // Longer than the test: nothing here may wait for it.
  const scene = await serve(t, ['--drain-timeout', '10m'])
  const channels = await channelsTo(scene)
  t.is(new Set(channels.map(({ ownerPid }) => ownerPid)).size, WORKERS)
  // Enough streams for Node.js to warn about listeners, if they were limited.
  const watch = Array.from({ length: 6 }, () => channels)
    .flat()
    .map(({ client }) => {
      const stream = client.bidi(Health.method.watch)
      stream.end(create(Health.method.watch.input, {}))
      return stream
    })
  const watched = watch.map((stream) => new Promise((resolve) => stream.on('error', resolve).resume()))
  const streamed = channels.map(({ client }) => {
    const stream = client.stream()
    const answers: ModelStreamInferResponse[] = []
    stream.on('data', (answer) => answers.push(answer))
    const failed = new Promise<GrpcFailure>((resolve) =>
      stream.on('error', (thrown) => resolve(new GrpcFailure(thrown as never))),
    )
    return { stream, answers, failed }
  })
  const calls = await holdCalls(scene, channels)
  for (const { stream } of streamed)
    for (let i = 0; i < 5; i++) stream.write(create(ModelInferRequestSchema, addRequest([i, i])))
  const streamedSlow = streamed.map(({ stream }) =>
    stream.write(create(ModelInferRequestSchema, slowRequest())),
  )
  t.is(streamedSlow.length, CHANNELS)
  await until('requests of the streams are queued', async () => {
    const queued = metricOf(await scrape(scene.adminUrl), 'onecopy_queue_depth ')
    return queued >= calls.length - WORKERS + 1
  })
  const exit = scene.server.server.stop('SIGTERM')
  t.deepEqual(new Set(await Promise.all(calls.map(({ end }) => end))), new Set(['answered']))
  for (const { answers, failed } of streamed) {
    const { status, code } = await failed
    t.deepEqual([status, code], ['UNAVAILABLE', 'SHUTTING_DOWN'])
    t.is(answers.length, 6, 'what was read has its answer first')
    t.deepEqual(
      answers.map(({ errorMessage }) => errorMessage),
      ['', '', '', '', '', ''],
    )
  }
  await Promise.all(watched)
  t.deepEqual(await exit, { code: 0, signal: null })
  t.notRegex(scene.server.server.stderr, /MaxListenersExceededWarning/)
  for (const { client } of channels) client.close()
  await untilGone(scene, t)
})

test.serial('rolling restarts under load lose no call and cut no stream that ends', async (t) => {
  const scene = await serve(t, ['--drain-timeout', '4s'])
  const load = new GrpcLoad(t, {
    ...{ address: scene.address, channels: CHANNELS, unaryPerChannel: 3, hasStreams: true },
  })
  await until('every loop is answered', load.progress(3))
  for (let count = 1; count <= 2; count++) {
    const answered = load.answered
    scene.server.server.process.kill('SIGHUP')
    await until(`restart ${count}`, () => {
      scene.server.assertAlive()
      return scene.server.server.log.filter(({ msg }) => msg === REPLACED).length >= count
    })
    t.true(load.answered > answered, 'calls were answered during the restart')
    await until('every loop goes on', load.progress(3))
  }
  await load.stop()
  t.log(`${load.answered} answers, ${load.reopened.length} endless streams were opened again`)
  t.deepEqual([load.failures, load.cutResponses, load.cutStreams], [[], [], []])
  t.deepEqual([...load.added.keys()], ['1,1'])
  t.true(load.reopened.length >= CHANNELS)
  for (const end of load.reopened) t.regex(end, /UNAVAILABLE: the server is shutting down/)
  t.is(scene.server.server.log.filter(({ msg }) => /killed/.test(msg)).length, 0)
  t.deepEqual(await scene.server.server.stop(), { code: 0, signal: null })
  await untilGone(scene, t)
})

test.serial('hot swaps by RepositoryModelLoad under load lose no call and no stream', async (t) => {
  const args = ['--repository-api', 'public', '--model-control', 'explicit', '--load-model', '*']
  const scene = await serve(t, args)
  const load = new GrpcLoad(t, {
    ...{ address: scene.address, channels: CHANNELS, unaryPerChannel: 3, hasStreams: true },
  })
  const control = new GrpcClient(scene.address)
  await until('every loop is answered', load.progress(3))
  const SWAPS = 5
  for (let swap = 2; swap <= SWAPS; swap++) {
    const staging = writeModel(join(scene.models, '.staging'), 'add', addModel([swap, swap]))
    rmSync(join(scene.models, 'add'), { recursive: true })
    renameSync(join(staging, 'add'), join(scene.models, 'add'))
    await control.call(method.repositoryModelLoad, { modelName: 'add' })
    const { rawOutputContents } = await control.infer(addRequest([10, 20]))
    t.deepEqual(
      new Float32Array(Uint8Array.from(rawOutputContents[0] ?? []).buffer),
      Float32Array.of(10 + swap, 20 + swap),
    )
    await until('every loop goes on', load.progress(3))
  }
  await load.stop()
  control.close()
  t.deepEqual([load.failures, load.cutResponses, load.cutStreams, load.reopened], [[], [], [], []])
  t.deepEqual(
    [...load.added.keys()],
    Array.from({ length: SWAPS }, (_, i) => `${i + 1},${i + 1}`),
    'in this order, and nothing else',
  )
  t.deepEqual(await scene.server.server.stop(), { code: 0, signal: null })
  await untilGone(scene, t)
})

test.serial('a killed worker fails the calls in flight in it, as UNAVAILABLE, and no others', async (t) => {
  const scene = await serve(t)
  const channels = await channelsTo(scene)
  const calls = await holdCalls(scene, channels)
  const [victim = 0] = channels.map(({ ownerPid }) => ownerPid)
  process.kill(victim, 'SIGKILL')
  const endsOf = (some: typeof calls) => Promise.all(some.map(({ end }) => end))
  const inFlight = calls.filter(({ ownerPid, hasEnded }) => ownerPid === victim && !hasEnded)
  t.true(inFlight.length >= 5, `${inFlight.length} of 6 calls were in flight`)
  t.deepEqual(new Set(await endsOf(inFlight)), new Set(['UNAVAILABLE']))
  const others = calls.filter((call) => !inFlight.includes(call))
  t.deepEqual(new Set(await endsOf(others)), new Set(['answered']))
  // Without a retry policy.
  for (const { client } of channels) {
    await client.infer(addRequest([1, 2]))
    client.close()
  }
  t.deepEqual(await scene.server.server.stop(), { code: 0, signal: null })
  await untilGone(scene, t)
})

test.serial(
  'killed workers under load: a retry policy repeats every call whose response had not begun',
  async (t) => {
    const scene = await serve(t, ['--log-level', 'debug'])
    const common = { address: scene.address, channels: CHANNELS, unaryPerChannel: 3 }
    const retrying = new GrpcLoad(t, { ...common, hasStreams: true, clientOptions: RETRY })
    const plain = new GrpcLoad(t, { ...common, hasStreams: false })
    await until('every loop is answered', retrying.progress(3))
    for (let kill = 1; kill <= 3; kill++) {
      const before = scene.server.workerPids()
      process.kill(before[0] ?? 0, 'SIGKILL')
      await until('the worker is replaced', () => {
        const now = scene.server.workerPids()
        return now.length === WORKERS && !now.includes(before[0] ?? 0)
      })
      await until('the replacement serves', () => {
        const ready = scene.server.server.log.filter(({ msg }) => msg === 'worker ready')
        return ready.length >= WORKERS + kill
      })
      await until(`kill ${kill}: calls with a retry policy go on`, retrying.progress(3))
      await until('calls without one go on', plain.progress(3))
    }
    await Promise.all([retrying.stop(), plain.stop()])
    t.log(`${retrying.answered + plain.answered} answers; without a policy ${plain.failures.length} failed`)
    // A worker that dies between the two writes of a response leaves a call that no policy repeats.
    t.log(`in the middle of a response: ${retrying.cutResponses.length} and ${plain.cutResponses.length}`)
    t.deepEqual(retrying.failures, [])
    t.deepEqual([...retrying.added.keys(), ...plain.added.keys()], ['1,1', '1,1'])
    for (const failure of plain.failures) t.regex(failure, /UNAVAILABLE/)
    // grpc-js reports some responses that end in the middle as INTERNAL.
    const cut = [retrying, plain].flatMap((one) => [...one.cutResponses, ...one.cutStreams, ...one.reopened])
    for (const failure of cut) t.regex(failure, /UNAVAILABLE|INTERNAL: Received RST_STREAM/)
    t.deepEqual(await scene.server.server.stop(), { code: 0, signal: null })
    await untilGone(scene, t)
  },
)
