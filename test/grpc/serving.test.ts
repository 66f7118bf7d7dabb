import { once } from 'node:events'
import { connect } from 'node:http2'
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import test, { type ExecutionContext } from 'ava'
import { createKey, formatKey } from '../../src/access/api-keys.js'
import {
  Health,
  type HealthCheckResponse,
  HealthCheckResponse_ServingStatus as Status,
} from '../../src/grpc/schema/health_pb.js'
import {
  GRPCInferenceService,
  type LogSettingsResponse,
  ModelInferRequestSchema,
} from '../../src/grpc/schema/inference_pb.js'
import {
  ServerReflection,
  ServerReflectionRequestSchema,
  type ServerReflectionResponse,
} from '../../src/grpc/schema/reflection_pb.js'
import { addRequest, GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until, withinDeadline } from '../helpers/waiting.js'

const { method } = GRPCInferenceService

interface Scene extends RunningServer {
  readonly address: string
}

async function serve(t: ExecutionContext, args: readonly string[]): Promise<Scene> {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const running = await startServer(t, { models, args: ['--grpc-port', '0', ...args] })
  const { grpcPort } = await running.server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  return { ...running, address: `127.0.0.1:${grpcPort}` }
}

async function failure(t: ExecutionContext, answer: Promise<unknown>): Promise<GrpcFailure> {
  return (await t.throwsAsync(answer, { instanceOf: GrpcFailure })) as GrpcFailure
}

test.serial('keys, scopes and limits hold as for REST; probes need no key', async (t) => {
  const infer = createKey({ name: 'caller', scopes: ['infer'] })
  const admin = createKey({ name: 'operator', scopes: ['infer', 'admin'] })
  const keys = [infer, admin].map(({ entry }) => formatKey(entry)).join(';')
  const args = ['--workers', '1', '--api-keys', keys, '--rate-limit', '3/1h', '--repository-api', 'public']
  const { server, address } = await serve(t, args)
  const client = new GrpcClient(address)
  const none = await failure(t, client.infer(addRequest([1, 2])))
  t.deepEqual([none.status, none.code], ['UNAUTHENTICATED', 'UNAUTHORIZED'])
  t.like(await client.call(method.serverReady, {}), { ready: true })
  t.like(await client.call(Health.method.check, {}), { status: Status.SERVING })
  const headers = { authorization: `Bearer ${infer.key}` }
  await client.infer(addRequest([1, 2]), { headers })
  const scope = await failure(t, client.call(method.repositoryIndex, {}, { headers }))
  t.deepEqual([scope.status, scope.code], ['PERMISSION_DENIED', 'FORBIDDEN'])
  const log: LogSettingsResponse = await client.call(method.logSettings, {}, { headers })
  t.is(log.settings.log_info?.parameterChoice.value, true)
  await client.infer(addRequest([1, 2]), { headers: { 'x-api-key': infer.key } })
  const limited = await failure(t, client.infer(addRequest([1, 2]), { headers }))
  t.deepEqual([limited.status, limited.code], ['RESOURCE_EXHAUSTED', 'RATE_LIMITED'])
  t.true(Number(limited.metadata.get('retry-after')[0]) > 0)
  await client.call(method.repositoryIndex, {}, { headers: { authorization: `Bearer ${admin.key}` } })
  client.close()
  await stopCleanly(t, server)
})

test.serial('health names the server and its models; reflection describes every service', async (t) => {
  const { server, address } = await serve(t, ['--workers', '1'])
  const client = new GrpcClient(address)
  for (const service of ['', 'inference.GRPCInferenceService', 'add']) {
    const answer: HealthCheckResponse = await client.call(Health.method.check, { service })
    t.is(answer.status, Status.SERVING, service)
  }
  t.is((await failure(t, client.call(Health.method.check, { service: 'none' }))).status, 'NOT_FOUND')
  const unknown = { ...method.serverLive, name: 'Nothing' } as typeof method.serverLive
  t.is((await failure(t, client.call(unknown, {}))).status, 'UNIMPLEMENTED')

  const reflection = client.bidi(ServerReflection.method.serverReflectionInfo)
  const ask = async (messageRequest: object): Promise<ServerReflectionResponse['messageResponse']> => {
    reflection.write(create(ServerReflectionRequestSchema, { messageRequest } as never))
    const [answer] = (await once(reflection, 'data')) as [ServerReflectionResponse]
    return answer.messageResponse
  }
  const services = await ask({ case: 'listServices', value: '*' })
  t.deepEqual(
    services.case === 'listServicesResponse' && services.value.service.map(({ name }) => name).sort(),
    [
      'grpc.health.v1.Health',
      'grpc.reflection.v1.ServerReflection',
      'grpc.reflection.v1alpha.ServerReflection',
      'inference.GRPCInferenceService',
    ],
  )
  const file = await ask({ case: 'fileContainingSymbol', value: 'inference.GRPCInferenceService' })
  if (file.case !== 'fileDescriptorResponse') return t.fail(`got ${file.case}`)
  const proto = fromBinary(FileDescriptorProtoSchema, file.value.fileDescriptorProto[0] ?? new Uint8Array())
  t.true(proto.service[0]?.method.some(({ name }) => name === 'ModelInfer'))
  t.is((await ask({ case: 'fileContainingSymbol', value: 'none.Such' })).case, 'errorResponse')
  reflection.end()
  client.close()
  await stopCleanly(t, server)
})

/** Calls one after the other until `stop`; counts answers and failures. */
function callInLoop(client: GrpcClient) {
  const counts = { answered: 0, failures: [] as string[] }
  let isOver = false
  const done = (async () => {
    while (!isOver)
      await client.infer(addRequest([1, 2])).then(
        () => counts.answered++,
        (thrown) => counts.failures.push(String(thrown)),
      )
  })()
  const stop = async () => {
    isOver = true
    await done
    return counts
  }
  return { counts, stop }
}

test.serial('a failure is one frame of headers, so that a retry policy may repeat the call', async (t) => {
  const { server, address } = await serve(t, ['--workers', '1'])
  const session = connect(`http://${address}`)
  const ask = async (message: MessageInitShape<typeof ModelInferRequestSchema>) => {
    const bytes = toBinary(ModelInferRequestSchema, create(ModelInferRequestSchema, message))
    const head = Buffer.alloc(5)
    head.writeUInt32BE(bytes.length, 1)
    const path = '/inference.GRPCInferenceService/ModelInfer'
    const common = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' }
    const stream = session.request({ ...common, 'x-request-id': 'mine' })
    stream.end(Buffer.concat([head, bytes]))
    const [headers] = (await once(stream, 'response')) as [Record<string, string>]
    stream.resume()
    return headers
  }
  const failed = await ask({ modelName: 'none' })
  t.like(failed, { 'grpc-status': '5', 'x-error-code': 'MODEL_NOT_FOUND', 'x-request-id': 'mine' })
  const answered = await ask(addRequest([1, 2]))
  t.like(answered, { 'grpc-status': undefined, 'x-request-id': 'mine' })
  session.close()
  await stopCleanly(t, server)
})

test.serial(
  'a message that never arrives completely ends at --request-timeout, and holds up no drain',
  async (t) => {
    const { server, address } = await serve(t, ['--workers', '1', '--request-timeout', '1s'])
    const session = connect(`http://${address}`)
    const path = '/inference.GRPCInferenceService/ModelInfer'
    const common = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' }
    const stream = session.request(common)
    const head = Buffer.alloc(5)
    head.writeUInt32BE(1000, 1)
    stream.write(Buffer.concat([head, Buffer.alloc(10)]))
    const [headers] = (await withinDeadline('the end of the call', once(stream, 'response'))) as [
      Record<string, string>,
    ]
    t.like(headers, { 'grpc-status': '4', 'x-error-code': 'REQUEST_TIMEOUT' })
    stream.close()
    session.close()
    const client = new GrpcClient(address)
    await client.infer(addRequest([1, 2]))
    client.close()
    await stopCleanly(t, server)
  },
)

test.serial('channels that all met one worker are evened out, as connections of REST are', async (t) => {
  const { server, address } = await serve(t, ['--workers', '2', '--log-level', 'debug'])
  const idle = Array.from({ length: 4 }, () => new GrpcClient(address))
  const busy: GrpcClient[] = []
  // Round robin deals to the workers in turn: every other channel is left idle.
  for (const client of idle) {
    await client.infer(addRequest([1, 2]))
    const next = new GrpcClient(address)
    await next.infer(addRequest([1, 2]))
    busy.push(next)
  }
  const loops = busy.flatMap((client) => [callInLoop(client), callInLoop(client)])
  await until('a worker is requested to close a connection', () =>
    server.log.some(({ msg }) => msg === 'asking the worker to close a connection'),
  )
  const before = loops.map(({ counts }) => counts.answered)
  await until('calls go on', () => loops.every(({ counts }, i) => counts.answered > (before[i] ?? 0) + 50))
  for (const { stop } of loops) t.deepEqual((await stop()).failures, [])
  for (const client of [...idle, ...busy]) client.close()
  await stopCleanly(t, server)
})
