import { create, toBinary } from '@bufbuild/protobuf'
import { Client, credentials, Metadata, status } from '@grpc/grpc-js'
import test from 'ava'
import { GRPCInferenceService, ModelInferRequestSchema } from '../../src/grpc/schema/inference_pb.js'
import { addRequest, GrpcClient } from '../helpers/grpc-client.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

/** More with ONECOPY_FUZZ_RUNS. */
const RUNS = Number(process.env.ONECOPY_FUZZ_RUNS ?? 20_000)
const AT_ONCE = 64
const SEED = Number(process.env.ONECOPY_FUZZ_SEED ?? Date.now() % 2 ** 31)

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

function mutated(bytes: Uint8Array, random: () => number): Buffer {
  const at = () => Math.floor(random() * bytes.length)
  let result = Buffer.from(bytes)
  for (let changes = Math.floor(random() * 4); changes >= 0; changes--) {
    const kind = Math.floor(random() * 4)
    if (kind === 0) result[at() % Math.max(1, result.length)] = Math.floor(random() * 256)
    else if (kind === 1) result = result.subarray(0, at())
    else if (kind === 2) result = Buffer.concat([result, Buffer.from(result.subarray(at()))])
    else result = Buffer.concat([result.subarray(0, at()), Buffer.from([Math.floor(random() * 256)]), result])
  }
  return result
}

/** What a client's message may be answered with; INTERNAL would be a bug of the server. */
const FORESEEN: ReadonlySet<number> = new Set([
  status.OK,
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.RESOURCE_EXHAUSTED,
  status.DEADLINE_EXCEEDED,
  status.UNIMPLEMENTED,
  status.FAILED_PRECONDITION,
])

test(`${RUNS} mutated messages to every method end no worker (seed ${SEED})`, async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server } = await startServer(t, { models, args: ['--grpc-port', '0', '--workers', '1'] })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  const address = `127.0.0.1:${grpcPort}`
  const random = randomNumbers(SEED)
  const valid = toBinary(
    ModelInferRequestSchema,
    create(ModelInferRequestSchema, addRequest([1, 2, 3, 4], { id: 'a' })),
  )
  const paths = Object.values(GRPCInferenceService.method)
    .filter(({ methodKind }) => methodKind === 'unary')
    .map(({ name }) => `/inference.GRPCInferenceService/${name}`)
  const raw = new Client(address, credentials.createInsecure())
  const send = (path: string, bytes: Buffer) =>
    new Promise<number>((resolve) => {
      raw.makeUnaryRequest(
        path,
        (one: Buffer) => one,
        (one: Buffer) => one,
        bytes,
        new Metadata(),
        (error) => resolve(error === null ? status.OK : error.code),
      )
    })
  const codes = new Map<number, number>()
  for (let run = 0; run < RUNS; run += AT_ONCE) {
    const answers = Array.from({ length: Math.min(AT_ONCE, RUNS - run) }, (_, i) => {
      const path =
        i % 2 === 0 ? '/inference.GRPCInferenceService/ModelInfer' : (paths[(run + i) % paths.length] ?? '')
      return send(path, mutated(valid, random))
    })
    for (const code of await Promise.all(answers)) codes.set(code, (codes.get(code) ?? 0) + 1)
  }
  for (const [code, count] of codes) t.true(FORESEEN.has(code), `${count} times ${status[code]}`)
  t.true((codes.get(status.INVALID_ARGUMENT) ?? 0) > 100)
  const client = new GrpcClient(address)
  await client.infer(addRequest([1, 2]))
  t.is(server.log.filter(({ msg }) => msg === 'worker ready').length <= 1, true)
  t.deepEqual(
    server.log.filter(({ level }) => level === 'error' || level === 'fatal'),
    [],
  )
  client.close()
  raw.close()
  await stopCleanly(t, server)
})
