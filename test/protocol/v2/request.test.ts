import test from 'ava'
import { parseHeaderLength } from '../../../src/protocol/v2/request.js'
import { decode, joined, LIMITS, modelOf, modelOfX, refused, utf8 } from './helpers/requests.js'

const PAIR = {
  name: 'pair',
  version: '3',
  inputs: [
    { name: 'a', datatype: 'FP32', shape: [-1, 2] },
    { name: 'b', datatype: 'INT64', shape: null },
  ],
  outputs: [
    { name: 'y', datatype: 'FP32', shape: [-1] },
    { name: 'z', datatype: 'BYTES', shape: null },
  ],
} as const

const A = { name: 'a', shape: [1, 2], datatype: 'FP32', data: [1, 2] }
const B = { name: 'b', shape: [], datatype: 'INT64', data: [5] }

const withInputs = (...inputs: unknown[]) => JSON.stringify({ inputs })
const withOutputs = (outputs: unknown, parameters?: unknown) =>
  JSON.stringify({ inputs: [A, B], outputs, parameters })

/** JSON and then binary bytes, with the header's value. */
function framed(json: unknown, ...binary: Uint8Array[]) {
  const text = JSON.stringify(json)
  return [joined(text, ...binary), { jsonBytes: utf8(text).length }] as const
}

test('inputs come in the order of the model, unknown keys are ignored', (t) => {
  const body = {
    model_name: 'other',
    id: '7',
    parameters: { priority: 1, a: 'b', c: true },
    inputs: [B, A],
    z: [{}],
  }
  t.deepEqual(decode(JSON.stringify(body), PAIR), {
    id: '7',
    parameters: { priority: 1, a: 'b', c: true },
    inputs: [
      { name: 'a', datatype: 'FP32', shape: [1, 2], data: Float32Array.of(1, 2) },
      { name: 'b', datatype: 'INT64', shape: [], data: BigInt64Array.of(5n) },
    ],
    outputs: [
      { name: 'y', binary: false },
      { name: 'z', binary: false },
    ],
  })
  t.false('id' in decode(withInputs(A, B), PAIR))
  t.is(decode(JSON.stringify({ id: '', inputs: [A, B] }), PAIR).id, '')
})

test('the outputs asked for are answered in the order asked', (t) => {
  t.deepEqual(decode(withOutputs([{ name: 'z' }, { name: 'y' }]), PAIR).outputs, [
    { name: 'z', binary: false },
    { name: 'y', binary: false },
  ])
  t.deepEqual(decode(withOutputs([{ name: 'z' }]), PAIR).outputs, [{ name: 'z', binary: false }])
  t.is(decode(withOutputs([]), PAIR).outputs.length, 2)
})

test('binary_data decides for one output, binary_data_output for the others', (t) => {
  const outputs = [{ name: 'y', parameters: { binary_data: false } }, { name: 'z' }]
  t.deepEqual(decode(withOutputs(outputs, { binary_data_output: true }), PAIR).outputs, [
    { name: 'y', binary: false },
    { name: 'z', binary: true },
  ])
  const all = decode(withOutputs(undefined, { binary_data_output: true }), PAIR).outputs
  t.deepEqual(
    all.map(({ binary }) => binary),
    [true, true],
  )
  const one = decode(
    withOutputs([{ name: 'y', parameters: { binary_data: true } }, { name: 'z' }]),
    PAIR,
  ).outputs
  t.deepEqual(
    one.map(({ binary }) => binary),
    [true, false],
  )
})

test('outputs that cannot be answered are refused', (t) => {
  const cases: [unknown, string[]][] = [
    [[{ name: 'q' }], ['output "q"', '"y"']],
    [
      [{ name: 'y' }, { name: 'y' }],
      ['output "y"', 'more than once'],
    ],
    [[{ name: 'y', parameters: { classification: 0 } }], ['output "y"', 'classification', 'from 1', '0']],
    [[{ name: 'y', parameters: { classification: 1.5 } }], ['output "y"', 'classification', '1.5']],
    [[{ name: 'y', parameters: { classification: '3' } }], ['output "y"', 'classification', '"3"']],
    [[{ name: 'y', parameters: { shared_memory_region: 'r' } }], ['output "y"', 'shared memory']],
    [[{ name: 'y', parameters: { shared_memory_byte_size: 4 } }], ['output "y"', 'without']],
    [[{ name: 'y', parameters: { binary_data: 1 } }], ['output "y"', 'binary_data']],
    [[{ name: 'y', parameters: { triton_x: 1 } }], ['output "y"', 'triton_x']],
    [[{ parameters: {} }], ['outputs.0.name']],
    [{}, ['outputs']],
  ]
  for (const [outputs, words] of cases)
    refused(t, 'REQUEST_INVALID', words, () => decode(withOutputs(outputs), PAIR))
})

test('an FP16 output in JSON is refused before the model runs', (t) => {
  const model = { ...modelOfX('FP32', [1]), outputs: [{ name: 'h', datatype: 'FP16', shape: [1] }] } as const
  const input = { name: 'x', shape: [1], datatype: 'FP32', data: [1] }
  refused(t, 'REQUEST_INVALID', ['output "h"', 'FP16', 'binary'], () => decode(withInputs(input), model))
  const binary = JSON.stringify({ inputs: [input], parameters: { binary_data_output: true } })
  t.deepEqual(decode(binary, model).outputs, [{ name: 'h', binary: true }])
})

test('inputs that do not fit the model are refused by name', (t) => {
  const cases: [unknown[], string[]][] = [
    [
      [A, B, { ...A, name: 'c' }],
      ['input "c"', '"pair"', '"a", "b"'],
    ],
    [
      [A, B, A],
      ['input "a"', 'more than once'],
    ],
    [[A], ['input "b"', 'missing', 'INT64']],
    [[], ['input "a"', 'missing', '[-1, 2]']],
    [
      [{ ...A, datatype: 'FP64' }, B],
      ['input "a"', 'FP32', 'FP64'],
    ],
    [
      [{ ...A, shape: [2] }, B],
      ['input "a"', 'expected shape [-1, 2], got [2]'],
    ],
    [
      [{ ...A, shape: [1, 3] }, B],
      ['input "a"', 'expected shape [-1, 2], got [1, 3]'],
    ],
    [
      [{ ...A, shape: [1, 2, 1] }, B],
      ['input "a"', 'expected shape [-1, 2], got [1, 2, 1]'],
    ],
    [
      [{ ...A, shape: [-1, 2] }, B],
      ['input "a"', '-1'],
    ],
    [
      [{ ...A, shape: [1.5, 2] }, B],
      ['input "a"', '1.5'],
    ],
    [
      [{ ...A, shape: [2 ** 53, 2] }, B],
      ['input "a"', '9007199254740992'],
    ],
    [
      [{ ...A, shape: ['1', 2] }, B],
      ['input "a"', '"1"'],
    ],
    [
      [{ ...A, shape: null }, B],
      ['input "a"', 'null'],
    ],
    [
      [{ ...A, shape: undefined }, B],
      ['input "a"', 'undefined'],
    ],
    [
      [{ ...A, datatype: 'FLOAT' }, B],
      ['input "a"', '"FLOAT"'],
    ],
    [
      [{ ...A, datatype: 'toString' }, B],
      ['input "a"', '"toString"'],
    ],
    [
      [A, { ...B, shape: [2 ** 30, 2 ** 30] }],
      ['input "b"', 'too many elements'],
    ],
    [
      [A, { ...B, shape: [2 ** 40] }],
      ['input "b"', 'cannot hold'],
    ],
    [
      [{ ...A, data: [1, 2, 3] }, B],
      ['input "a"', 'expected 2', 'got 3'],
    ],
    [
      [{ ...A, data: null }, B],
      ['input "a"', 'null'],
    ],
  ]
  for (const [inputs, words] of cases)
    refused(t, 'TENSOR_INVALID', words, () => decode(withInputs(...inputs), PAIR))
})

test('a request of the wrong form is refused', (t) => {
  const cases: [string, string[]][] = [
    ['[]', ['the request']],
    ['1', ['the request']],
    ['null', ['the request']],
    ['{}', ['inputs']],
    ['{"inputs":{}}', ['inputs']],
    ['{"inputs":{"a":{"data":[1]}}}', ['inputs']],
    ['{"inputs":[5]}', ['inputs.0']],
    ['{"inputs":[[]]}', ['inputs.0']],
    ['{"inputs":[{"shape":[]}]}', ['inputs.0.name']],
    [JSON.stringify({ id: 5, inputs: [A, B] }), ['id']],
    [JSON.stringify({ parameters: [], inputs: [A, B] }), ['parameters']],
    [JSON.stringify({ parameters: { a: null }, inputs: [A, B] }), ['parameters.a']],
    [JSON.stringify({ parameters: { a: [1] }, inputs: [A, B] }), ['parameters.a']],
    [JSON.stringify({ parameters: { triton_x: 1 }, inputs: [A, B] }), ['triton_x']],
    [
      JSON.stringify({ parameters: { binary_data_output: 'yes' }, inputs: [A, B] }),
      ['binary_data_output', '"yes"'],
    ],
    [withInputs({ ...A, parameters: { triton_x: 1 } }, B), ['input "a"', 'triton_x']],
    [withInputs({ ...A, parameters: { a: {} } }, B), ['input "a"', 'parameters']],
  ]
  for (const [body, words] of cases) refused(t, 'REQUEST_INVALID', words, () => decode(body, PAIR))
})

test('optional members that are null are absent', (t) => {
  const nulls = { id: null, parameters: null, outputs: null }
  const request = decode(
    JSON.stringify({ ...nulls, inputs: [{ ...A, parameters: null }, B], other: null }),
    PAIR,
  )
  t.false('id' in request)
  t.deepEqual(request.parameters, {})
  t.deepEqual(request.outputs, decode(JSON.stringify({ inputs: [A, B] }), PAIR).outputs)
  const asked = { inputs: [A, B], outputs: [{ name: 'y', parameters: null }] }
  t.deepEqual(decode(JSON.stringify(asked), PAIR).outputs, [{ name: 'y', binary: false }])
  const elsewhere = { inputs: [A, { ...binary(B, 8), data: null }] }
  t.deepEqual(decode(...framedWith(elsewhere, longs)).inputs[1]?.data, BigInt64Array.of(2n ** 60n))
  for (const wrong of [
    { ...nulls, inputs: null },
    { inputs: [{ ...A, name: null }, B] },
    { inputs: [A, B], outputs: [null] },
    { inputs: [A, B], outputs: [{ name: null }] },
  ]) {
    refused(t, 'REQUEST_INVALID', ['null'], () => decode(JSON.stringify(wrong), PAIR))
  }
})

test('NaN and infinities stand nowhere but in data', (t) => {
  const a = JSON.stringify(A)
  const b = JSON.stringify(B)
  for (const text of [
    `{"id":NaN,"inputs":[${a},${b}]}`,
    `{"parameters":{"timeout":Infinity},"inputs":[${a},${b}]}`,
    `{"inputs":[${a.replace('"shape":[1,2]', '"shape":[1,NaN]')},${b}]}`,
  ])
    refused(t, 'BODY_MALFORMED', ['the request body', 'FP32 and FP64'], () => decode(text, PAIR))
})

test('the data of an input is in exactly one place', (t) => {
  const cases: [unknown, string[]][] = [
    [{ ...A, data: undefined }, ['input "a"', 'exactly one', 'none']],
    [{ ...A, parameters: { binary_data_size: 8 } }, ['input "a"', 'exactly one']],
    [{ ...A, parameters: { shared_memory_region: 'r' } }, ['input "a"', 'exactly one']],
    [{ ...A, data: undefined, parameters: { shared_memory_region: 'r' } }, ['input "a"', 'not enabled']],
  ]
  for (const [a, words] of cases) refused(t, 'REQUEST_INVALID', words, () => decode(withInputs(a, B), PAIR))
  for (const size of [-1, 1.5, 'a', true, 2 ** 53]) {
    const a = { ...A, data: undefined, parameters: { binary_data_size: size } }
    refused(t, 'REQUEST_INVALID', ['input "a"', 'binary_data_size'], () => decode(withInputs(a, B), PAIR))
  }
})

const binary = (input: object, size: number) => ({
  ...input,
  data: undefined,
  parameters: { binary_data_size: size },
})
const floats = new Uint8Array(Float32Array.of(1.5, -2).buffer)
const longs = new Uint8Array(BigInt64Array.of(2n ** 60n).buffer)

test('binary tensors follow in the order of the inputs that declare one, at any alignment', (t) => {
  for (let pad = 0; pad < 8; pad++) {
    const json = { inputs: [binary(B, 8), binary(A, 8)], pad: 'p'.repeat(pad) }
    const { inputs } = decode(...framedWith(json, longs, floats))
    t.deepEqual(inputs[0]?.data, Float32Array.of(1.5, -2))
    t.deepEqual(inputs[1]?.data, BigInt64Array.of(2n ** 60n))
  }
  const mixed = decode(...framedWith({ inputs: [A, binary(B, 8)] }, longs))
  t.deepEqual(mixed.inputs[0]?.data, Float32Array.of(1, 2))
  t.deepEqual(mixed.inputs[1]?.data, BigInt64Array.of(2n ** 60n))
})

function framedWith(json: unknown, ...parts: Uint8Array[]) {
  const [body, options] = framed(json, ...parts)
  return [body, PAIR, options] as const
}

test('the header length may be there although every input is JSON', (t) => {
  t.is(decode(...framedWith({ inputs: [A, B] })).inputs.length, 2)
})

test('lengths that do not add up are refused', (t) => {
  const json = { inputs: [binary(A, 8), B] }
  t.notThrows(() => decode(...framedWith(json, floats)))
  refused(t, 'BODY_MALFORMED', ['input "a"', '8', '7'], () => decode(...framedWith(json, floats.subarray(1))))
  refused(t, 'BODY_MALFORMED', ['input "a"', '8', '9'], () =>
    decode(...framedWith(json, floats, Uint8Array.of(0))),
  )
  refused(t, 'BODY_MALFORMED', ['0', '1'], () => decode(...framedWith({ inputs: [A, B] }, Uint8Array.of(32))))
  refused(t, 'BODY_MALFORMED', ['input "a"'], () => decode(JSON.stringify(json), PAIR))
  refused(t, 'TENSOR_INVALID', ['input "a"', '8 bytes', 'got 4'], () =>
    decode(...framedWith({ inputs: [binary(A, 4), B] }, floats.subarray(4))),
  )
  const text = withInputs(A, B)
  for (const jsonBytes of [text.length + 1, 2 ** 53 - 1]) {
    refused(t, 'BODY_MALFORMED', [`${jsonBytes}`, `${text.length}`], () => decode(text, PAIR, { jsonBytes }))
  }
  refused(t, 'BODY_MALFORMED', [], () => decode(text, PAIR, { jsonBytes: text.length - 1 }))
  refused(t, 'BODY_MALFORMED', [], () => decode(text, PAIR, { jsonBytes: 1 }))
})

test('sizes whose sum is beyond the exact integers are refused', (t) => {
  const json = { inputs: [binary(A, 2 ** 53 - 1), binary(B, 2 ** 53 - 1)] }
  refused(t, 'BODY_MALFORMED', ['input "a"'], () => decode(...framedWith(json, floats)))
})

test('the cap on tensors holds for inputs and outputs', (t) => {
  const model = modelOf({ name: 'a', datatype: 'FP32', shape: [-1, 2] })
  const many = Array.from({ length: 17 }, () => ({ name: 'y' }))
  refused(t, 'REQUEST_INVALID', ['16 inputs'], () => decode(JSON.stringify({ inputs: many }), model))
  refused(t, 'REQUEST_INVALID', ['16 outputs'], () =>
    decode(JSON.stringify({ inputs: [A], outputs: many }), model),
  )
  t.notThrows(() => decode(withInputs(A), model, { limits: { ...LIMITS, maxTensors: 1 } }))
})

test('endless shapes and parameters are refused before they are looked at', (t) => {
  const shape = new Array(1_000_000).fill(null)
  refused(t, 'REQUEST_INVALID', ['64 dimensions'], () => decode(withInputs({ ...A, shape }, B), PAIR))
  const parameters = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`p${i}`, null]))
  for (const body of [
    { parameters },
    { inputs: [{ ...A, parameters }] },
    { outputs: [{ name: 'y', parameters }] },
  ]) {
    refused(t, 'REQUEST_INVALID', ['256 parameters'], () =>
      decode(JSON.stringify({ inputs: [A, B], ...body }), PAIR),
    )
  }
})

test('a lone surrogate in a name or an id does no harm', (t) => {
  const body = '{"id":"\\ud800","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
  t.is(decode(body, modelOfX('FP32', [1])).id, '\ud800')
  const named = body.replace('"x"', '"\\udc00"')
  refused(t, 'TENSOR_INVALID', ['\\udc00'], () => decode(named, modelOfX('FP32', [1])))
})

test('a long name is cut in the message', (t) => {
  const error = t.throws(() => decode(withInputs({ ...A, name: 'n'.repeat(100_000) }), PAIR))
  t.true((error?.message.length ?? 0) < 300)
})

test('the header length is digits or absent', (t) => {
  t.is(parseHeaderLength(undefined), null)
  t.is(parseHeaderLength('0'), 0)
  t.is(parseHeaderLength('012'), 12)
  for (const text of ['', ' 1', '-1', '+1', '1.0', '1e3', '0x10', '1, 1', '٣', '99999999999999999999']) {
    refused(t, 'BODY_MALFORMED', ['Inference-Header-Content-Length'], () => parseHeaderLength(text))
  }
})

test('a request of a sequence is refused, one that says there is none is not', (t) => {
  const body = (parameters: object) => JSON.stringify({ ...JSON.parse(withInputs(A, B)), parameters })
  for (const none of [{ sequence_id: 0 }, { sequence_id: '', sequence_start: false, sequence_end: false }])
    t.notThrows(() => decode(body(none), PAIR))
  for (const some of [
    { sequence_id: 7 },
    { sequence_id: 'a' },
    { sequence_start: true },
    { sequence_end: true },
  ])
    refused(t, 'REQUEST_INVALID', ['sequence_id', 'state'], () => decode(body(some), PAIR))
})
