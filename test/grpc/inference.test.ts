import { once } from 'node:events'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { create } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import {
  DataType,
  GRPCInferenceService,
  type InferTensorContentsSchema,
  type ModelConfigResponse,
  ModelInferRequestSchema,
  type ModelMetadataResponse,
  type ModelStatisticsResponse,
  type ModelStreamInferResponse,
  type RepositoryIndexResponse,
  type ServerMetadataResponse,
} from '../../src/grpc/schema/inference_pb.js'
import { addRequest, floats, GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'
import { addModel, ELEMENT, identityModel, writeModel } from '../helpers/onnx-builder.js'
import { type StartOptions, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

const { method } = GRPCInferenceService

interface Scene {
  readonly client: GrpcClient
  readonly address: string
  readonly url: string
}

/** Every datatype that the runtime passes through, each `y_T = x_T`. */
const TYPES = {
  BOOL: ELEMENT.bool,
  UINT8: ELEMENT.uint8,
  UINT16: 4,
  UINT32: 12,
  UINT64: 13,
  INT8: ELEMENT.int8,
  INT16: 5,
  INT32: ELEMENT.int32,
  INT64: ELEMENT.int64,
  FP16: 10,
  BF16: ELEMENT.bfloat16,
  FP32: ELEMENT.float,
  FP64: ELEMENT.double,
  BYTES: ELEMENT.string,
} as const

async function withServer(
  t: ExecutionContext,
  options: StartOptions,
  use: (scene: Scene) => Promise<void>,
  models: Readonly<Record<string, Uint8Array>> = { add: addModel() },
): Promise<void> {
  const folder = temporaryFolder(t)
  for (const [name, bytes] of Object.entries(models)) writeModel(folder, name, bytes)
  const args = ['--grpc-port', '0', ...(options.args ?? ['--workers', '2'])]
  const { server, url } = await startServer(t, { ...options, models: folder, args })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  const address = `127.0.0.1:${grpcPort}`
  const client = new GrpcClient(address)
  await use({ client, address, url })
  client.close()
  await stopCleanly(t, server)
}

async function failure(t: ExecutionContext, answer: Promise<unknown>): Promise<GrpcFailure> {
  return (await t.throwsAsync(answer, { instanceOf: GrpcFailure })) as GrpcFailure
}

test.serial('metadata, configuration and statistics are those of REST, and it infers', async (t) => {
  await withServer(t, {}, async ({ client, url }) => {
    t.like(await client.call(method.serverLive, {}), { live: true })
    t.like(await client.call(method.serverReady, {}), { ready: true })
    const rest = async (path: string) => (await (await fetch(`${url}${path}`)).json()) as never
    const server: ServerMetadataResponse = await client.call(method.serverMetadata, {})
    t.like(server, {
      name: 'onecopy',
      extensions: ((await rest('/v2')) as { extensions: string[] }).extensions,
    })
    t.like(await client.call(method.modelReady, { name: 'add' }), { ready: true })
    t.like(await client.call(method.modelReady, { name: 'none' }), { ready: false })
    const metadata: ModelMetadataResponse = await client.call(method.modelMetadata, {
      name: 'add',
      version: '1',
    })
    t.like(metadata, { name: 'add', versions: ['1'], platform: 'onnx_onnxv1' })
    t.like(metadata.inputs[0], { name: 'x', datatype: 'FP32', shape: [-1n, 2n] })
    const { config }: ModelConfigResponse = await client.call(method.modelConfig, { name: 'add' })
    const configuration = (await rest('/v2/models/add/config')) as { max_batch_size: number }
    t.like(config, { name: 'add', backend: 'onnxruntime', maxBatchSize: configuration.max_batch_size })
    t.is(config?.input[0]?.dataType, DataType.TYPE_FP32)

    const answer = await client.infer(addRequest([10, 20, 30, 40], { id: 'seven' }))
    t.like(answer, { modelName: 'add', modelVersion: '1', id: 'seven' })
    t.like(answer.outputs[0], { name: 'y', datatype: 'FP32', shape: [2n, 2n] })
    t.deepEqual(new Uint8Array(answer.rawOutputContents[0] ?? []), floats(11, 22, 31, 42))
    const stats: ModelStatisticsResponse = await client.call(method.modelStatistics, { name: 'add' })
    t.like(stats.modelStats[0], { name: 'add', inferenceCount: 2n, executionCount: 1n })
    t.is(stats.modelStats[0]?.inferenceStats?.success?.count, 1n)
  })
})

const CONTENTS: Readonly<
  Record<string, readonly [MessageInitShape<typeof InferTensorContentsSchema>, Uint8Array]>
> = {
  BOOL: [{ boolContents: [true, false] }, Uint8Array.of(1, 0)],
  UINT8: [{ uintContents: [0, 255] }, Uint8Array.of(0, 255)],
  UINT16: [{ uintContents: [1, 65535] }, new Uint8Array(Uint16Array.of(1, 65535).buffer)],
  UINT32: [{ uintContents: [1, 4294967295] }, new Uint8Array(Uint32Array.of(1, 4294967295).buffer)],
  UINT64: [
    { uint64Contents: [1n, 2n ** 64n - 1n] },
    new Uint8Array(BigUint64Array.of(1n, 2n ** 64n - 1n).buffer),
  ],
  INT8: [{ intContents: [-128, 127] }, new Uint8Array(Int8Array.of(-128, 127).buffer)],
  INT16: [{ intContents: [-32768, 7] }, new Uint8Array(Int16Array.of(-32768, 7).buffer)],
  INT32: [{ intContents: [-5, 7] }, new Uint8Array(Int32Array.of(-5, 7).buffer)],
  INT64: [
    { int64Contents: [-(2n ** 63n), 2n ** 53n + 1n] },
    new Uint8Array(BigInt64Array.of(-(2n ** 63n), 2n ** 53n + 1n).buffer),
  ],
  FP32: [{ fp32Contents: [Number.NaN, -0] }, floats(Number.NaN, -0)],
  FP64: [
    { fp64Contents: [Number.POSITIVE_INFINITY, 0.1] },
    new Uint8Array(Float64Array.of(Number.POSITIVE_INFINITY, 0.1).buffer),
  ],
  BYTES: [
    { bytesContents: [Buffer.from('phenol'), Buffer.from('é')] },
    Buffer.concat([
      Buffer.from([6, 0, 0, 0]),
      Buffer.from('phenol'),
      Buffer.from([2, 0, 0, 0]),
      Buffer.from('é'),
    ]),
  ],
}

test.serial(
  'every datatype goes in as raw and as typed contents, and comes out as the binary answers of REST',
  async (t) => {
    const models = Object.fromEntries(
      Object.entries(TYPES).map(([name, element]) => [name.toLowerCase(), identityModel(element)]),
    )
    await withServer(
      t,
      {},
      async ({ client, url }) => {
        for (const datatype of Object.keys(TYPES)) {
          const [contents, bytes] = CONTENTS[datatype] ?? [undefined, Uint8Array.of(0, 60, 0, 192)]
          const modelName = datatype.toLowerCase()
          const input = { name: 'x', datatype, shape: [2n] }
          const head = JSON.stringify({
            inputs: [{ name: 'x', datatype, shape: [2], parameters: { binary_data_size: bytes.length } }],
            parameters: { binary_data_output: true },
          })
          const rest = await fetch(`${url}/v2/models/${modelName}/infer`, {
            method: 'POST',
            headers: { 'Inference-Header-Content-Length': String(head.length) },
            body: Buffer.concat([Buffer.from(head), bytes]),
          })
          const length = Number(rest.headers.get('Inference-Header-Content-Length'))
          const expected = Buffer.from(await rest.arrayBuffer()).subarray(length)
          const raw = await client.infer({ modelName, inputs: [input], rawInputContents: [bytes] })
          t.deepEqual(Buffer.from(raw.rawOutputContents[0] ?? []), expected, `${datatype}, raw`)
          const typed = client.infer({ modelName, inputs: [{ ...input, ...(contents && { contents }) }] })
          if (contents === undefined) {
            const { status, details } = await failure(t, typed)
            t.is(status, 'INVALID_ARGUMENT')
            t.regex(details, /raw_input_contents/)
          } else
            t.deepEqual(Buffer.from((await typed).rawOutputContents[0] ?? []), expected, `${datatype}, typed`)
        }
      },
      models,
    )
  },
)

test.serial(
  "a wrong request is refused with a code, the catalogue's code and a text that names the tensor",
  async (t) => {
    await withServer(t, { args: ['--workers', '1', '--max-body', '1MiB'] }, async ({ client }) => {
      const x = { name: 'x', datatype: 'FP32', shape: [1n, 2n] }
      const one = [floats(1, 2)]
      for (const [message, status, code, pattern] of [
        [{ modelName: 'none' }, 'NOT_FOUND', 'MODEL_NOT_FOUND', /^Request for unknown model/],
        [{ modelName: 'add', modelVersion: '9' }, 'NOT_FOUND', 'MODEL_NOT_FOUND', /no version "9"/],
        [
          { inputs: [{ ...x, shape: [1n, 3n] }], rawInputContents: one },
          'INVALID_ARGUMENT',
          'TENSOR_INVALID',
          /expected shape/,
        ],
        [
          { inputs: [{ ...x, datatype: 'FP99' }], rawInputContents: one },
          'INVALID_ARGUMENT',
          'TENSOR_INVALID',
          /datatype FP32, got FP99/,
        ],
        [
          { inputs: [{ ...x, shape: [-1n, 2n] }], rawInputContents: one },
          'INVALID_ARGUMENT',
          'TENSOR_INVALID',
          /non-negative/,
        ],
        [
          { inputs: [x], rawInputContents: [floats(1)] },
          'INVALID_ARGUMENT',
          'TENSOR_INVALID',
          /needs 8 bytes/,
        ],
        [
          { inputs: [x], rawInputContents: [...one, ...one] },
          'INVALID_ARGUMENT',
          'BODY_MALFORMED',
          /for 1 inputs, got 2/,
        ],
        [
          { inputs: [{ ...x, contents: { fp32Contents: [1] } }] },
          'INVALID_ARGUMENT',
          'TENSOR_INVALID',
          /2 elements in fp32Contents, got 1/,
        ],
        [
          { inputs: [{ ...x, contents: { intContents: [1, 2] } }] },
          'INVALID_ARGUMENT',
          'TENSOR_INVALID',
          /2 elements in fp32Contents, got 0/,
        ],
        [
          { inputs: [x], rawInputContents: one, outputs: [{ name: 'z' }] },
          'INVALID_ARGUMENT',
          'REQUEST_INVALID',
          /no such output/,
        ],
      ] as const) {
        const failed = await failure(t, client.infer({ modelName: 'add', ...(message as object) }))
        t.deepEqual([failed.status, failed.code], [status, code], failed.details)
        t.regex(failed.details, pattern)
      }
      const large = Array.from({ length: 600_000 }, () => 0)
      t.is((await failure(t, client.infer(addRequest(large)))).status, 'RESOURCE_EXHAUSTED')
      const late = await failure(t, client.infer(addRequest([1, 2]), { deadline: Date.now() - 1 }))
      t.is(late.status, 'DEADLINE_EXCEEDED')
      const off = await failure(t, client.call(method.repositoryIndex, {}))
      t.deepEqual([off.status, off.code], ['UNIMPLEMENTED', 'ROUTE_NOT_FOUND'])
      t.regex(off.details, /--repository-api/)
      t.deepEqual(
        new Uint8Array((await client.infer(addRequest([1, 2]))).rawOutputContents[0] ?? []),
        floats(2, 4),
        'it answers the next request',
      )
    })
  },
)

test.serial('a stream keeps the order, answers a wrong request in its place, and continues', async (t) => {
  await withServer(t, {}, async ({ client }) => {
    const stream = client.stream()
    const answers: ModelStreamInferResponse[] = []
    stream.on('data', (answer: ModelStreamInferResponse) => answers.push(answer))
    const requests = 200
    for (let i = 0; i < requests; i++) {
      const wrong = i % 10 === 3 ? { modelName: 'none' } : {}
      const request = addRequest([i, i], {
        id: String(i),
        ...wrong,
        parameters: {
          triton_enable_empty_final_response: { parameterChoice: { case: 'boolParam', value: true } },
        },
      })
      stream.write(create(ModelInferRequestSchema, request))
    }
    stream.end()
    await once(stream, 'end')
    t.is(answers.length, requests)
    for (const [i, { errorMessage, inferResponse }] of answers.entries()) {
      t.is(inferResponse?.id, String(i))
      if (i % 10 === 3) t.regex(errorMessage, /^Request for unknown model/)
      else {
        t.deepEqual(new Uint8Array(inferResponse?.rawOutputContents[0] ?? []), floats(i + 1, i + 2))
        t.true(inferResponse?.parameters.triton_final_response?.parameterChoice.value)
      }
    }
  })
})

test.serial('model control follows --repository-api', async (t) => {
  const args = [
    '--workers',
    '2',
    '--repository-api',
    'public',
    '--model-control',
    'explicit',
    '--load-model',
    '*',
  ]
  await withServer(t, { args }, async ({ client }) => {
    const { models }: RepositoryIndexResponse = await client.call(method.repositoryIndex, {})
    t.like(models[0], { name: 'add', version: '1', state: 'READY' })
    await client.call(method.repositoryModelUnload, { modelName: 'add' })
    t.is((await failure(t, client.infer(addRequest([1, 2])))).status, 'NOT_FOUND')
    const config = { config: { parameterChoice: { case: 'stringParam', value: '{"max_batch_size":"3"}' } } }
    await client.call(method.repositoryModelLoad, { modelName: 'add', parameters: config })
    const changed: ModelConfigResponse = await client.call(method.modelConfig, { name: 'add' })
    t.is(changed.config?.maxBatchSize, 3)
    const missing = await failure(t, client.call(method.repositoryModelLoad, { modelName: 'wrong' }))
    t.is(missing.status, 'NOT_FOUND')
    t.regex(missing.details, /^failed to load 'wrong'/)
  })
})
