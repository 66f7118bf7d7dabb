import test from 'ava'
import { readSkeleton } from '../../../src/protocol/v2/json.js'
import { decode, joined, LIMITS, modelOf, modelOfX, refused, utf8 } from './helpers/requests.js'

const X4 = modelOfX('FP32', [-1])
const request = (data: string) => `{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":${data}}]}`

function valuesIn(text: string, jsonDepth = 64): string[] {
  return readSkeleton(utf8(text), { ...LIMITS, jsonDepth }).values.map((value) =>
    Buffer.from(value).toString(),
  )
}

test('the data of every input is taken out, and only there', (t) => {
  const text = `{"data":[0],"parameters":{"data":[1]},"inputs":[
    {"data":[[2],[3]],"x":{"data":[4]}}, {"parameters":{"data":5},"data" : "a]\\"}" },{ "data":6}
  ],"outputs":[{"data":[7]}]}`
  t.deepEqual(valuesIn(text), ['[[2],[3]]', '"a]\\"}"', '6'])
  const { root } = readSkeleton(utf8(text), LIMITS)
  t.deepEqual((root as { inputs: unknown }).inputs, [
    { data: 0, x: { data: [4] } },
    { parameters: { data: 5 }, data: 1 },
    { data: 2 },
  ])
})

test('a string value that reads "inputs" or "data" is not a key', (t) => {
  t.deepEqual(
    valuesIn('{"id":"inputs","a":[{"data":[1]}],"inputs":[{"name":"data","b":["data"],"data":[2]}]}'),
    ['[2]'],
  )
})

test('keys written with escapes are the same keys', (t) => {
  const key = [...'inputs'].map((c) => `\\u00${c.charCodeAt(0).toString(16)}`).join('')
  t.deepEqual(valuesIn(`{"${key}":[{"d\\u0061t\\u0061":[1]}]}`), ['[1]'])
  const body = `{"${key}":[{"n\\u0061me":"x","shape":[1],"datatype":"FP32","d\\u0061ta":[7]}]}`
  t.deepEqual(decode(body, X4).inputs[0]?.data, Float32Array.of(7))
})

test('of duplicate keys the last one counts, as in JSON.parse', (t) => {
  const first = '{"name":"z","shape":[9],"datatype":"BOOL","data":[true]}'
  const second = '{"name":"x","shape":[2],"datatype":"FP32","data":[1,2],"data":[3,4]}'
  t.deepEqual(decode(`{"inputs":[${first}],"inputs":[${second}]}`, X4).inputs[0]?.data, Float32Array.of(3, 4))
})

test('data that a later duplicate hides must still be JSON', (t) => {
  refused(t, 'BODY_MALFORMED', ['request body'], () => decode(request('[1,,2],"data":[1,2]'), X4))
})

test('an empty body is refused', (t) => {
  for (const text of ['', '  \n']) refused(t, 'BODY_MALFORMED', ['empty'], () => decode(text, X4))
})

test('a value next to its data cannot be read as part of it', (t) => {
  for (const data of [
    '[1,2]3',
    '[1,2] 3',
    '[1,2]"a"',
    '[1,2][3]',
    '1 2',
    '"a""b"',
    '',
    '[1,2',
    '[1,2}',
    '[1,2]]',
    '{"a":1',
  ]) {
    refused(t, 'BODY_MALFORMED', [], () => decode(request(data), X4))
  }
})

test('digits after the data do not join the index that stands for it', (t) => {
  const data = `${'[0],"data":'.repeat(3)}[1,2]`
  t.notThrows(() => decode(request(data), X4))
  for (const rest of ['0', '5', '.5', 'e1']) {
    refused(t, 'BODY_MALFORMED', [], () => decode(request(data + rest), X4))
  }
})

test('text that is not JSON is refused, wherever it breaks', (t) => {
  const whole = request('[1.5,2]')
  t.notThrows(() => decode(whole, X4))
  for (let end = 0; end < whole.length; end++) {
    refused(t, 'BODY_MALFORMED', [], () => decode(whole.slice(0, end), X4))
  }
  for (const text of [
    `${whole},`,
    `${whole}{}`,
    `\uFEFF${whole}`,
    `[${whole}`,
    '{"inputs":[}',
    '{]',
    ']',
    '"',
    '"\\',
  ]) {
    refused(t, 'BODY_MALFORMED', [], () => decode(text, X4))
  }
})

test('bytes that are not UTF-8 are refused in keys, in names and in text elements', (t) => {
  const bad = Uint8Array.of(0xc3, 0x28)
  refused(t, 'BODY_MALFORMED', ['UTF-8'], () => decode(joined('{"', bad, '":1}'), X4))
  const body = joined('{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["', bad, '"]}]}')
  refused(t, 'BODY_MALFORMED', ['input "x"', 'UTF-8'], () => decode(body, modelOfX('BYTES', [1])))
  const floats = joined('{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":["', bad, '"]}]}')
  refused(t, 'TENSOR_INVALID', ['input "x"', 'element 0'], () => decode(floats, X4))
})

test('nesting is capped, inside the data and outside', (t) => {
  t.deepEqual(valuesIn('{"inputs":[{"data":[[1]]}]}', 5), ['[[1]]'])
  refused(t, 'BODY_MALFORMED', ['nested too deeply'], () => valuesIn('{"inputs":[{"data":[[1]]}]}', 4))
  t.deepEqual(valuesIn('{"a":[[{}]]}', 4), [])
  refused(t, 'BODY_MALFORMED', ['nested too deeply'], () => valuesIn('{"a":[[{}]]}', 3))
})

test('a million levels are refused like any others', (t) => {
  const million = 1_000_000
  for (const text of [
    '['.repeat(million),
    '{"a":'.repeat(million),
    request('['.repeat(million)),
    request(`${'['.repeat(million)}1${']'.repeat(million)}`),
    `{"parameters":{"a":${'['.repeat(million)}${']'.repeat(million)}}}`,
  ]) {
    refused(t, 'BODY_MALFORMED', ['nested too deeply'], () => decode(text, X4))
  }
  // Deep within a string is not deep.
  const long = `{"id":"${'['.repeat(million)}","inputs":[{"name":"x","shape":[0],"datatype":"FP32","data":[]}]}`
  t.is(decode(long, X4).id?.length, million)
})

test('more data values than the cap on tensors are refused', (t) => {
  const text = `{"inputs":[${'{"data":1},'.repeat(17)}{}]}`
  refused(t, 'REQUEST_INVALID', ['16'], () => decode(text, X4))
  t.notThrows(() => decode(request(`${'[0],"data":'.repeat(15)}[1,2]`), X4))
  refused(t, 'REQUEST_INVALID', ['16'], () => decode(request(`${'[0],"data":'.repeat(16)}[1,2]`), X4))
})

test('__proto__ keys change nothing', (t) => {
  const body = `{"__proto__":{"id":"p","inputs":[{"data":[9]}]},"parameters":{"__proto__":{"priority":1},"a":1},
    "inputs":[{"__proto__":{"data":[8]},"name":"x","shape":[1],"datatype":"FP32","data":[7]}]}`
  const decoded = decode(body, X4)
  t.is(decoded.id, undefined)
  t.deepEqual(decoded.parameters, { a: 1 })
  t.is(decoded.parameters.priority, undefined)
  t.deepEqual(decoded.inputs[0]?.data, Float32Array.of(7))
  t.is(({} as Record<string, unknown>).priority, undefined)
  const named = modelOf({ name: '__proto__', datatype: 'FP32', shape: [1] })
  const input = '{"name":"__proto__","shape":[1],"datatype":"FP32","data":[7]}'
  t.is(decode(`{"inputs":[${input}]}`, named).inputs[0]?.name, '__proto__')
  refused(t, 'TENSOR_INVALID', ['"__proto__"'], () => decode(`{"inputs":[${input}]}`, X4))
})
