import { fromBinary } from '@bufbuild/protobuf'
import { Client, type ClientDuplexStream, credentials, Metadata, status } from '@grpc/grpc-js'
import test from 'ava'
import { ModelStreamInferResponseSchema } from '../../src/grpc/schema/inference_pb.js'
import { addRequest, GrpcClient } from '../helpers/grpc-client.js'
import { addModel, ELEMENT, identityModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { INFER_SEEDS, mutated, OTHER_SEEDS, pick, randomNumbers } from './fuzz-messages.js'

/** More by `npm run fuzz:grpc`. */
const RUNS = Number(process.env.ONECOPY_FUZZ_RUNS ?? 20_000)
const SEED = Number(process.env.ONECOPY_FUZZ_SEED ?? Date.now() % 2 ** 31)
const IN_FLIGHT = 64
/** Of those in flight: on one stream. */
const STREAMED = 16

/** What a client's message may be answered with; INTERNAL would be a bug of the server. */
const FORESEEN: ReadonlySet<string> = new Set([
  ...['OK', 'INVALID_ARGUMENT', 'NOT_FOUND', 'RESOURCE_EXHAUSTED', 'DEADLINE_EXCEEDED'],
  ...['UNIMPLEMENTED', 'FAILED_PRECONDITION', 'stream: answer', 'stream: error_message'],
])

const same = (one: Buffer) => one

class RawClient {
  readonly #client: Client

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure())
  }

  send(path: string, bytes: Buffer): Promise<string> {
    return new Promise((resolve) => {
      this.#client.makeUnaryRequest(path, same, same, bytes, new Metadata(), (error) =>
        resolve(error === null ? 'OK' : (status[error.code] ?? '')),
      )
    })
  }

  /** One outcome for each message: a stream continues after a wrong one. */
  stream(messages: readonly Buffer[]): Promise<string[]> {
    const path = '/inference.GRPCInferenceService/ModelStreamInfer'
    const stream: ClientDuplexStream<Buffer, Buffer> = this.#client.makeBidiStreamRequest(path, same, same)
    const outcomes: string[] = []
    stream.on('data', (bytes: Buffer) => {
      const { errorMessage } = fromBinary(ModelStreamInferResponseSchema, bytes)
      outcomes.push(errorMessage === '' ? 'stream: answer' : 'stream: error_message')
    })
    for (const message of messages) stream.write(message)
    stream.end()
    return new Promise((resolve) => {
      stream.on('error', (thrown) => resolve([...outcomes, `stream: ${thrown.message}`]))
      stream.on('end', () => resolve(outcomes))
    })
  }

  close(): void {
    this.#client.close()
  }
}

test(`${RUNS} mutated messages to every method end no worker (seed ${SEED})`, async (t) => {
  t.timeout(3_600_000)
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  writeModel(models, 'words', identityModel(ELEMENT.string))
  const args = ['--grpc-port', '0', '--workers', '1', '--system-shared-memory', 'on', '--log-level', 'debug']
  const { server } = await startServer(t, { models, args })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  const address = `127.0.0.1:${grpcPort}`
  const random = randomNumbers(SEED)
  const raw = new RawClient(address)
  const counts = new Map<string, number>()
  const count = (outcome: string) => counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  let streamed = 0
  let streamOutcomes = 0
  for (let run = 0; run < RUNS; run += IN_FLIGHT) {
    const messages = Math.min(IN_FLIGHT, RUNS - run)
    const unary = Array.from({ length: Math.max(0, messages - STREAMED) }, (_, i) => {
      const { method, bytes } = pick(i % 3 === 0 ? OTHER_SEEDS : INFER_SEEDS, random)
      return raw.send(`/${method.parent.typeName}/${method.name}`, mutated(bytes, random))
    })
    const onStream = Array.from({ length: messages - unary.length }, () =>
      mutated(pick(INFER_SEEDS, random).bytes, random),
    )
    const ofStream = raw.stream(onStream)
    for (const outcome of await Promise.all(unary)) count(outcome)
    for (const outcome of await ofStream) count(outcome)
    streamed += onStream.length
    streamOutcomes += (await ofStream).length
  }
  t.log(Object.fromEntries([...counts].sort(([, a], [, b]) => b - a)))
  t.deepEqual(
    [...counts.keys()].filter((outcome) => !FORESEEN.has(outcome)),
    [],
  )
  t.is(streamOutcomes, streamed, 'every message of a stream has its answer')
  t.true((counts.get('INVALID_ARGUMENT') ?? 0) > RUNS / 50)
  t.true((counts.get('OK') ?? 0) > RUNS / 50)
  const client = new GrpcClient(address)
  await client.infer(addRequest([1, 2]))
  t.is(server.log.filter(({ msg }) => msg === 'worker ready').length, 1)
  t.deepEqual(
    server.log.filter(({ level }) => level === 'error' || level === 'fatal'),
    [],
  )
  client.close()
  raw.close()
  await stopCleanly(t, server)
})
