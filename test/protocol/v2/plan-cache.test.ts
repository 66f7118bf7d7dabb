import test from 'ava'
import { PlanCache, type RequestPlan } from '../../../src/protocol/v2/plan-cache.js'
import { decodeInferRequest, type InferRequestBody } from '../../../src/protocol/v2/request.js'
import { decode, joined, LIMITS, modelOfX, refused, utf8 } from './helpers/requests.js'

const X = { name: 'x', datatype: 'FP32', shape: [1, 2] }
const BINARY = JSON.stringify({
  inputs: [{ ...X, parameters: { binary_data_size: 8 } }],
  parameters: { binary_data_output: true },
})
const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer)

test('requests with the same JSON around the data differ in the data only', (t) => {
  const model = modelOfX('FP32', [-1, 2])
  const binary = (...values: number[]) =>
    decode(joined(BINARY, floats(...values)), model, { jsonBytes: BINARY.length })
  const json = (...values: number[]) => decode(JSON.stringify({ inputs: [{ ...X, data: values }] }), model)
  for (const decodeOne of [binary, json]) {
    const [first, second] = [decodeOne(1, 2), decodeOne(3, -4)]
    t.deepEqual(first.inputs, [{ ...X, datatype: 'FP32', data: Float32Array.of(1, 2) }])
    t.deepEqual(second.inputs, [{ ...X, datatype: 'FP32', data: Float32Array.of(3, -4) }])
    t.deepEqual(second.outputs, first.outputs)
    t.is(second.outputs[0]?.binary, decodeOne === binary)
  }
})

test('a known JSON with wrong data behind it is rejected like an unknown one', (t) => {
  const model = modelOfX('FP32', [-1, 2])
  const header = { jsonBytes: BINARY.length }
  decode(joined(BINARY, floats(1, 2)), model, header)
  for (const bytes of [floats(), floats(1), floats(1, 2, 3)]) {
    const words = ['declare 8 bytes', `${bytes.length} bytes follow the JSON`]
    refused(t, 'BODY_MALFORMED', words, () => decode(joined(BINARY, bytes), model, header))
  }
  refused(t, 'BODY_MALFORMED', ['but the body has'], () => decode(BINARY.slice(1), model, header))
  const json = (data: string) => `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":${data}}]}`
  decode(json('[1,2]'), model)
  refused(t, 'TENSOR_INVALID', ['expected 2 elements', 'got 1'], () => decode(json('[1]'), model))
  refused(t, 'TENSOR_INVALID', ['element 1'], () => decode(json('[1,"a"]'), model))
  refused(t, 'TENSOR_INVALID', ['must be an array'], () => decode(json('null'), model))
  refused(t, 'BODY_MALFORMED', ['not valid JSON'], () => decode(json('[1,,2]'), model))
})

test('null beside another source of data counts as no data, a value does not', (t) => {
  const model = modelOfX('FP32', [-1, 2])
  const request = (data: string) =>
    `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8},"data":${data}}]}`
  const ask = (data: string) =>
    decode(joined(request(data), floats(1, 2)), model, { jsonBytes: request(data).length })
  for (let i = 0; i < 2; i++) {
    t.deepEqual(ask('null').inputs[0]?.data, Float32Array.of(1, 2))
    refused(t, 'REQUEST_INVALID', ['exactly one of'], () => ask('[1,2]'))
  }
})

test('JSON in Latin-1 is rejected, even if the same text in UTF-8 is known', (t) => {
  const model = modelOfX('FP32', [-1, 2])
  const text = BINARY.replace('{', '{"é":1,')
  const valid = utf8(text)
  decode(joined(valid, floats(1, 2)), model, { jsonBytes: valid.length })
  const latin1 = new Uint8Array(Buffer.from(text, 'latin1'))
  refused(t, 'BODY_MALFORMED', ['UTF-8'], () =>
    decode(joined(latin1, floats(1, 2)), model, { jsonBytes: latin1.length }),
  )
})

test('a plan is used only with the limits and the features under which it was made', (t) => {
  const parameters = { shared_memory_region: 'r', shared_memory_byte_size: 8 }
  const text = JSON.stringify({ inputs: [{ ...X, parameters }] })
  const request: InferRequestBody = {
    ...{ body: utf8(text), jsonBytes: text.length, limits: LIMITS },
    model: modelOfX('FP32', [-1, 2]),
  }
  const readShared = () => floats(5, 6)
  for (let i = 0; i < 2; i++) {
    t.deepEqual(decodeInferRequest({ ...request, readShared }).inputs[0]?.data, Float32Array.of(5, 6))
    refused(t, 'REQUEST_INVALID', ['shared memory'], () => decodeInferRequest(request))
  }
  const few = { ...LIMITS, maxTensors: 0 }
  refused(t, 'REQUEST_INVALID', ['more than 0 inputs'], () =>
    decodeInferRequest({ ...request, readShared, limits: few }),
  )
})

test('the cache has the newest plans, none with an id, and no long texts', (t) => {
  const cache = new PlanCache()
  const conditions = { limits: LIMITS, isSharedMemoryEnabled: false }
  const plan: RequestPlan = { parameters: {}, inputs: [], outputs: [], binaryBytes: 0 }
  for (let i = 0; i < 1000; i++) cache.keep(`text ${i}`, plan, conditions)
  const found = Array.from({ length: 1000 }, (_, i) => cache.find(`text ${i}`, conditions) !== null)
  t.is(found.filter(Boolean).length, 16)
  t.true(found.slice(-16).every(Boolean))
  cache.keep('with an id', { ...plan, id: '1' }, conditions)
  t.is(cache.find('with an id', conditions), null)
  const long = 'x'.repeat(10_000)
  cache.keep(long, plan, conditions)
  t.is(cache.find(long, conditions), null)
})
