import test from 'ava'
import { createClient, InferenceError, type InputTensor, type OutputTensor } from '../../src/client/client.js'
import { addModel, slowModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { EDGES, IDENTITY_MODEL } from './identity-model.js'

const POINT: InputTensor = { name: 'x', datatype: 'FP32', shape: [1, 2], data: Float32Array.of(10, 20) }

function asText(one: string | Uint8Array): string {
  return typeof one === 'string' ? one : new TextDecoder().decode(one)
}

/** The expected output for an input. */
function expected({ name, datatype, data }: InputTensor): Partial<OutputTensor> {
  const output = name.replace('in_', '')
  const elements = datatype === 'BYTES' ? data.map(asText) : data
  return { name: output, datatype, shape: [2, 2], data: elements } as Partial<OutputTensor>
}

test('every datatype makes the round trip, as binary and JSON, compressed and uncompressed', async (t) => {
  const models = writeModel(temporaryFolder(t), 'identity', IDENTITY_MODEL)
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const halves = EDGES.filter(({ datatype }) => datatype === 'FP16' || datatype === 'BF16')
  for (const encoding of ['binary', 'json'] as const) {
    for (const compression of [null, 'gzip', 'deflate'] as const) {
      const client = createClient({ url, encoding })
      // Two datatypes have no JSON form, so their outputs are requested as binary.
      const outputs = EDGES.map(({ datatype }) =>
        halves.some((half) => half.datatype === datatype)
          ? { name: datatype, encoding: 'binary' as const }
          : datatype,
      )
      const result = await client.infer({ model: 'identity', inputs: EDGES, outputs, compression, id: 'i' })
      t.is(result.modelName, 'identity')
      t.is(result.modelVersion, '1')
      t.is(result.id, 'i')
      for (const [i, input] of EDGES.entries())
        t.like(result.outputs[i], expected(input), `${encoding} ${compression} ${input.datatype}`)
      t.deepEqual(result.output('BYTES', 'BYTES').bytes[2], new TextEncoder().encode('bytes'))
    }
  }
  await t.throwsAsync(createClient({ url, encoding: 'json' }).infer({ model: 'identity', inputs: EDGES }), {
    instanceOf: InferenceError,
    message: /FP16|BF16/,
  })
  await stopCleanly(t, server)
})

test('metadata methods return what the routes send, and rejections are errors with status and code', async (t) => {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel(), '1')
  writeModel(models, 'add', addModel([3, 4]), '2')
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const client = createClient({ url: `${url}/` })
  t.is((await client.server()).name, 'onecopy')
  t.true(await client.live())
  t.true(await client.ready())
  t.deepEqual(await client.models(), ['add'])
  t.deepEqual((await client.metadata('add')).versions, ['2', '1'])
  t.true(await client.modelReady('add', { version: 1 }))
  const first = await client.infer({ model: 'add', version: '1', inputs: [POINT], outputs: ['y'] })
  t.deepEqual(first.output().data, Float32Array.of(11, 22))
  const latest = await client.infer({ model: 'add', inputs: [POINT], parameters: { priority: 1 } })
  t.deepEqual(latest.output('y', 'FP32').data, Float32Array.of(13, 24))
  t.throws(() => latest.output('z'), { instanceOf: InferenceError, message: /expected output z, got y FP32/ })
  t.throws(() => latest.output('y', 'INT64'), { message: /expected output y INT64, got y FP32/ })

  const refused = async (call: Promise<unknown>, status: number, code: string) =>
    t.like(await t.throwsAsync(call, { instanceOf: InferenceError }), { kind: 'status', status, code })
  await refused(client.metadata('none'), 404, 'MODEL_NOT_FOUND')
  await refused(client.modelReady('a/b'), 404, 'MODEL_NOT_FOUND')
  await refused(client.metadata('add', { version: 9 }), 404, 'MODEL_NOT_FOUND')
  await refused(client.infer({ model: 'add', inputs: [] }), 400, 'TENSOR_INVALID')
  await refused(client.infer({ model: 'add', inputs: [{ ...POINT, shape: [2, 2] }] }), 400, 'TENSOR_INVALID')
  await t.throwsAsync(
    client.infer({
      model: 'add',
      inputs: [{ ...POINT, data: new Float64Array(2) } as unknown as InputTensor],
    }),
    { instanceOf: TypeError, message: /input x: expected a Float32Array for FP32, got Float64Array/ },
  )
  // Encoders replace unpaired surrogates with U+FFFD.
  for (const encoding of ['binary', 'json'] as const)
    await t.throwsAsync(
      client.infer({
        model: 'add',
        encoding,
        inputs: [{ name: 'x', datatype: 'BYTES', shape: [2], data: ['😀', 'a\ud800'] }],
      }),
      { instanceOf: TypeError, message: /input x, element 1: .*surrogate/ },
    )
  await stopCleanly(t, server)
})

test('a call ends with its signal or deadline, and the server keeps serving others', async (t) => {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const client = createClient({ url })
  const request = (iterations: bigint) => ({
    model: 'slow',
    inputs: [
      { name: 'iterations', datatype: 'INT64' as const, shape: [], data: BigInt64Array.of(iterations) },
    ],
  })
  const leaving = new AbortController()
  const left = client.infer({ ...request(20_000n), signal: leaving.signal })
  leaving.abort(new Error('the user went home'))
  await t.throwsAsync(left, { message: 'the user went home' })
  await t.throwsAsync(client.infer({ ...request(1n), signal: leaving.signal }), {
    message: 'the user went home',
  })
  const late = await t.throwsAsync(client.infer({ ...request(20_000n), timeoutMs: 50 }), {
    instanceOf: InferenceError,
  })
  t.like(late, { kind: 'timeout', status: null })
  t.deepEqual((await client.infer(request(1n))).output().shape, [128, 128])
  await stopCleanly(t, server)
})
