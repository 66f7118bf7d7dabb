import test from 'ava'
import fc from 'fast-check'
import * as z from 'zod'
import { travelsInJson } from '../../../src/protocol/v2/datatypes.js'
import {
  type EncodedResponse,
  encodeInferResponse,
  encodeInferResponseInSlices,
  isLongToEncode,
} from '../../../src/protocol/v2/response.js'
import { inferRequestSchema, inferResponseSchema } from '../../../src/protocol/v2/schema.js'
import type { Tensor } from '../../../src/tensor.js'
import { turnsDuring } from '../../helpers/event-loop.js'
import { ALL_DATATYPES, arbitraryData, decode, joined, refused, sameElements } from './helpers/requests.js'

const MODEL = { name: 'm', version: '2' }
const Y: Tensor = { name: 'y', datatype: 'FP32', shape: [1, 2], data: Float32Array.of(1.5, -2) }
const S: Tensor = { name: 's', datatype: 'BYTES', shape: [2], data: ['a', '😀'] }

const bodyOf = ({ chunks }: EncodedResponse) => joined(...chunks)
const textOf = (response: EncodedResponse) => Buffer.from(bodyOf(response)).toString()

test('a JSON answer', (t) => {
  const response = encodeInferResponse({ model: MODEL, id: 'é', outputs: [Y, S], binary: [false, false] })
  t.deepEqual(response.headers, { 'Content-Type': 'application/json' })
  t.is(response.bytes, bodyOf(response).length)
  t.deepEqual(JSON.parse(textOf(response)), {
    model_name: 'm',
    model_version: '2',
    id: 'é',
    outputs: [
      { name: 'y', shape: [1, 2], datatype: 'FP32', data: [1.5, -2] },
      { name: 's', shape: [2], datatype: 'BYTES', data: ['a', '😀'] },
    ],
  })
})

test('the id is there only when the request had one', (t) => {
  const idOf = (id?: string) => {
    const text = textOf(encodeInferResponse({ model: MODEL, id, outputs: [Y], binary: [false] }))
    return inferResponseSchema.parse(JSON.parse(text)).id
  }
  t.is(idOf(), undefined)
  t.is(idOf(''), '')
  t.is(idOf('\ud800'), '\ud800')
})

test('binary outputs follow the JSON in the order of the outputs', (t) => {
  const response = encodeInferResponse({
    model: MODEL,
    outputs: [S, Y, { ...Y, name: 'w' }],
    binary: [true, true, false],
  })
  const body = bodyOf(response)
  const jsonBytes = Number(response.headers['Inference-Header-Content-Length'])
  t.is(response.headers['Content-Type'], 'application/octet-stream')
  t.is(response.bytes, body.length)
  t.deepEqual(JSON.parse(Buffer.from(body.subarray(0, jsonBytes)).toString()).outputs, [
    { name: 's', shape: [2], datatype: 'BYTES', parameters: { binary_data_size: 13 } },
    { name: 'y', shape: [1, 2], datatype: 'FP32', parameters: { binary_data_size: 8 } },
    { name: 'w', shape: [1, 2], datatype: 'FP32', data: [1.5, -2] },
  ])
  const texts = joined(Uint8Array.of(1, 0, 0, 0), 'a', Uint8Array.of(4, 0, 0, 0), '😀')
  t.deepEqual([...body.subarray(jsonBytes)], [...texts, ...new Uint8Array((Y.data as Float32Array).buffer)])
})

test('binary output is a view of the tensor', (t) => {
  const { chunks } = encodeInferResponse({ model: MODEL, outputs: [Y], binary: [true] })
  t.is((chunks.at(-1) as Uint8Array).buffer, (Y.data as Float32Array).buffer)
})

test('without binary bytes there is no header length', (t) => {
  const empty: Tensor = { name: 'y', datatype: 'FP32', shape: [0], data: new Float32Array() }
  const response = encodeInferResponse({ model: MODEL, outputs: [empty], binary: [true] })
  t.deepEqual(response.headers, { 'Content-Type': 'application/json' })
  t.deepEqual(JSON.parse(textOf(response)).outputs[0].parameters, { binary_data_size: 0 })
})

test('no outputs, no FP16 in JSON', (t) => {
  t.deepEqual(JSON.parse(textOf(encodeInferResponse({ model: MODEL, outputs: [], binary: [] }))).outputs, [])
  const half: Tensor = { name: 'h', datatype: 'FP16', shape: [1], data: Uint16Array.of(1) }
  refused(t, 'REQUEST_INVALID', ['output "h"'], () =>
    encodeInferResponse({ model: MODEL, outputs: [half], binary: [false] }),
  )
})

test('what is answered can be asked again, tensor by tensor', (t) => {
  const tensor = fc.constantFrom(...ALL_DATATYPES).chain((datatype) =>
    fc.tuple(fc.constant(datatype), arbitraryData(datatype), fc.boolean()).map(([, data, flag]) => ({
      datatype,
      data,
      binary: flag || !travelsInJson(datatype),
    })),
  )
  fc.assert(
    fc.property(fc.array(tensor, { maxLength: 4 }), fc.string({ unit: 'binary' }), (list, prefix) => {
      const outputs = list.map(({ datatype, data }, i) => ({
        name: `${prefix}${i}`,
        datatype,
        shape: [data.length],
        data,
      }))
      const response = encodeInferResponse({
        model: MODEL,
        outputs,
        binary: list.map(({ binary }) => binary),
      })
      const header = response.headers['Inference-Header-Content-Length']
      const body = bodyOf(response)
      const jsonEnd = header === undefined ? body.length : Number(header)
      const json = Buffer.from(body.subarray(0, jsonEnd)).toString()
      const answer = inferResponseSchema.parse(JSON.parse(json))
      const text = json.replace('"outputs"', '"inputs"')
      if (inferRequestSchema.safeParse(JSON.parse(text)).error) return false
      const request = decode(
        joined(text, body.subarray(jsonEnd)),
        { ...MODEL, inputs: outputs.map((output) => ({ ...output, shape: [-1] })), outputs: [] },
        { jsonBytes: header === undefined ? null : jsonEnd - 1 },
      )
      return (
        response.bytes === body.length &&
        answer.outputs.length === outputs.length &&
        outputs.every(({ name, data }, i) => {
          const input = request.inputs[i]
          return input !== undefined && input.name === name && sameElements(input.data, data)
        })
      )
    }),
  )
  t.pass()
})

test('request and response have a JSON Schema, for the API description', (t) => {
  for (const schema of [inferRequestSchema, inferResponseSchema]) {
    t.notThrows(() => JSON.stringify(z.toJSONSchema(schema)))
  }
  const input = { name: 'x', shape: [2, 1], datatype: 'FP32', data: [[1], ['NaN']] }
  t.true(inferRequestSchema.safeParse({ inputs: [input] }).success)
  t.false(inferRequestSchema.safeParse({ inputs: [{ ...input, data: {} }] }).success)
})

test('in slices the response is the same, and the event loop turns meanwhile', async (t) => {
  const large: Tensor = {
    ...{ name: 'large', datatype: 'FP32', shape: [1_000_000] },
    data: Float32Array.from({ length: 1_000_000 }, (_, i) => Math.sin(i)),
  }
  const response = { model: MODEL, id: 'a', outputs: [large, Y], binary: [false, true] }
  t.true(isLongToEncode(response))
  const { result: sliced, turns } = await turnsDuring(() => encodeInferResponseInSlices(response))
  t.true(turns > 10, `${turns} turns of the event loop`)
  const whole = encodeInferResponse(response)
  t.deepEqual(sliced.headers, whole.headers)
  t.is(sliced.bytes, whole.bytes)
  const bytesOf = ({ chunks }: EncodedResponse) => Buffer.concat(chunks.map((chunk) => Buffer.from(chunk)))
  t.true(bytesOf(sliced).equals(bytesOf(whole)))
})

test('what is binary, in shared memory or small is not long to encode', (t) => {
  const data = new Float32Array(1_000_000)
  const large: Tensor = { name: 'large', datatype: 'FP32', shape: [1_000_000], data }
  t.false(isLongToEncode({ model: MODEL, outputs: [large], binary: [true] }))
  t.false(isLongToEncode({ model: MODEL, outputs: [Y], binary: [false] }))
})

test('a response that is too large is refused in slices too', async (t) => {
  const data = new Float32Array(100_000).fill(1.25)
  const large: Tensor = { name: 'large', datatype: 'FP32', shape: [100_000], data }
  const response = { model: MODEL, outputs: [large], binary: [false], maxBytes: 300_000 }
  await t.throwsAsync(encodeInferResponseInSlices(response), { code: 'RESPONSE_TOO_LARGE' })
})
