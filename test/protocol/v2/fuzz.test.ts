import assert from 'node:assert/strict'
import test from 'ava'
import fc from 'fast-check'
import { OnecopyError } from '../../../src/errors.js'
import { readSkeleton } from '../../../src/protocol/v2/json.js'
import type { InferRequest, ModelSpec } from '../../../src/protocol/v2/request.js'
import { type Datatype, elementCount } from '../../../src/tensor.js'
import { ALL_DATATYPES, decode, joined, LIMITS, modelOf, modelOfX } from './helpers/requests.js'

/**
 * Checks that decoding gives a request whose tensors fit or throws an OnecopyError, and that it does
 * the same when the request is known. Null if it throws.
 */
function decodeOrRefuse(
  body: Uint8Array<ArrayBuffer>,
  model: ModelSpec,
  jsonBytes: number | null,
): InferRequest | null {
  const first = outcomeOf(body, { ...model }, jsonBytes)
  outcomeOf(body, model, jsonBytes)
  assert.deepStrictEqual(outcomeOf(body, model, jsonBytes), first)
  if (typeof first === 'string') return null
  for (const { name, shape, data } of first.inputs) {
    if (data.length !== elementCount(shape))
      throw new Error(`${name}: ${data.length} elements for [${shape}]`)
  }
  if (first.inputs.length !== model.inputs.length) throw new Error('inputs are missing')
  return first
}

/** The request, or the code and the words of the error. */
function outcomeOf(
  body: Uint8Array<ArrayBuffer>,
  model: ModelSpec,
  jsonBytes: number | null,
): InferRequest | string {
  try {
    return decode(body, model, { jsonBytes })
  } catch (thrown) {
    if (thrown instanceof OnecopyError && thrown.status === 400 && thrown.message !== '')
      return `${thrown.code}: ${thrown.message}`
    throw thrown
  }
}

const models = [
  ...ALL_DATATYPES.flatMap((datatype) => [modelOfX(datatype, [-1, -1]), modelOfX(datatype, null)]),
  modelOf({ name: 'x', datatype: 'FP32', shape: [-1, 2] }, { name: 'b', datatype: 'BYTES', shape: [-1] }),
]
const anyModel = fc.constantFrom(...models)

test('random bytes are refused, never worse', (t) => {
  const header = fc.oneof(fc.constant(null), fc.constant(0), fc.nat(80))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), header, anyModel, (bytes, jsonBytes, model) => {
      decodeOrRefuse(Uint8Array.from(bytes), model, jsonBytes)
    }),
    { numRuns: 5000 },
  )
  t.pass()
})

const token = fc.constantFrom(
  ...'{}[],:"\\'.split(''),
  ...[
    '"inputs":[',
    '{"name":"x",',
    '"data":',
    '"shape":[1,1]',
    '"datatype":"FP32"',
    '"data":[1,2]',
    '}]}',
    ' ',
  ],
  ...[
    '1',
    '-1',
    '0.5',
    '1e400',
    'true',
    'null',
    '"NaN"',
    'NaN',
    '99999999999999999999',
    '"\\ud800"',
    '\u00e9',
  ],
  ...['"parameters":{"binary_data_size":4}', '"outputs":[]', '"__proto__":{}', '[[1],[2]]', '{"inputs":['],
)

test('random JSON-like text is refused, never worse', (t) => {
  fc.assert(
    fc.property(fc.array(token, { maxLength: 30 }), anyModel, (tokens, model) => {
      decodeOrRefuse(joined(tokens.join('')), model, null)
    }),
    { numRuns: 5000 },
  )
  t.pass()
})

test('random JSON in every place of a request is refused or decoded, never worse', (t) => {
  const anything = fc.jsonValue({ maxDepth: 3 })
  const or = <T>(usual: fc.Arbitrary<T>) =>
    fc.oneof({ weight: 15, arbitrary: usual }, { weight: 1, arbitrary: anything })
  const parameters = fc.dictionary(fc.constantFrom('binary_data', 'a', '__proto__'), or(fc.boolean()))
  const elements = fc.oneof(
    ...[fc.nat(200), fc.boolean(), fc.string()].map((element) => fc.array(or<unknown>(element))),
  )
  const requestFor = (datatype: Datatype, data: fc.Arbitrary<unknown>) => {
    const input = data.chain((list) =>
      fc.record({
        name: or(fc.constant('x')),
        shape: or(fc.constant([1, (list as unknown[]).length])),
        datatype: or(fc.constant(datatype)),
        parameters: or(parameters),
        data: or(fc.constant(list)),
      }),
    )
    const outputs = fc.array(fc.record({ name: fc.constant('y'), parameters: or(parameters) }), {
      maxLength: 1,
    })
    return fc.record(
      { id: or(fc.string()), parameters: or(parameters), inputs: fc.tuple(or(input)), outputs: or(outputs) },
      { requiredKeys: ['inputs'] },
    )
  }
  const cases = fc
    .constantFrom(...ALL_DATATYPES)
    .chain((datatype) =>
      fc.tuple(
        requestFor(datatype, elements),
        fc.constantFrom(modelOfX(datatype, [-1, -1]), modelOfX(datatype, null)),
      ),
    )
  let decoded = 0
  fc.assert(
    fc.property(cases, fc.oneof(fc.constant(''), fc.string()), ([json, model], rest) => {
      const text = joined(JSON.stringify(json))
      if (decodeOrRefuse(joined(text, rest), model, text.length) !== null) decoded++
    }),
    { numRuns: 5000 },
  )
  t.true(decoded > 100, `${decoded} requests were valid`)
})

test('a valid request with a few bytes changed is refused or decoded, never worse', (t) => {
  const json =
    '{"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4e2]]},' +
    '{"name":"b","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":13}}],"outputs":[{"name":"y"}]}'
  const whole = joined(json, Uint8Array.of(1, 0, 0, 0), 'a', Uint8Array.of(4, 0, 0, 0), '😀')
  const model = models.at(-1) as ModelSpec
  t.truthy(decodeOrRefuse(whole, model, json.length))
  let decoded = 0
  const edit = fc.tuple(
    fc.nat(whole.length - 1),
    fc.oneof(fc.nat(255), fc.constantFrom(...Buffer.from('{}[],:"\\0-.e'))),
  )
  fc.assert(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), fc.nat(3), (edits, shift) => {
      const bytes = whole.slice()
      for (const [at, byte] of edits) bytes[at] = byte
      if (decodeOrRefuse(bytes, model, json.length - (shift === 3 ? 1 : 0)) !== null) decoded++
    }),
    { numRuns: 5000 },
  )
  t.true(decoded > 10, `${decoded} requests were valid`)
})

test('what the data pass takes for JSON is what JSON.parse takes for JSON', (t) => {
  const model = modelOfX('FP64', null)
  fc.assert(
    fc.property(fc.array(token, { maxLength: 8 }), (tokens) => {
      const text = `{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":${tokens.join('')}}]}`
      const request = decodeOrRefuse(joined(text), model, null)
      // NaN in the data of floats is the one exception.
      if (request !== null) JSON.parse(text.replace(/(?<!")NaN(?!")/g, '0'))
    }),
    { numRuns: 5000 },
  )
  t.pass()
})

test('a skeleton with its data put back is the JSON it came from', (t) => {
  /** Text of an object whose keys may be duplicated, with blanks here and there. */
  const objectOf = (keys: string[], value: fc.Arbitrary<string>) =>
    fc
      .array(fc.tuple(fc.constantFrom(...keys), value, fc.constantFrom('', ' ', '\n\t')), { maxLength: 4 })
      .map((entries) => `{${entries.map(([key, text, blank]) => `${blank}${key}${blank}:${blank}${text}`)}}`)
  const anything = fc.json({ maxDepth: 3 })
  const input = objectOf(['"data"', '"d\\u0061ta"', '"name"', '"inputs"', '"\\"data"'], anything)
  const inputs = fc
    .array(fc.oneof({ weight: 6, arbitrary: input }, anything), { maxLength: 3 })
    .map((list) => `[${list}]`)
  const request = objectOf(
    ['"inputs"', '"data"', '"id"', '"\\u0069nputs"', '"\\\\"'],
    fc.oneof({ weight: 6, arbitrary: inputs }, input, anything),
  )
  const usual = { weight: 8, arbitrary: request }
  let found = 0
  fc.assert(
    fc.property(fc.oneof(usual, inputs, anything), (text) => {
      const { root, values } = readSkeleton(joined(text), LIMITS)
      const whole = JSON.parse(text)
      const holders = (value: unknown) => {
        const list = (value as { inputs?: unknown } | null)?.inputs
        return Array.isArray(list) ? (list as ({ data?: unknown } | null)[]) : []
      }
      for (const holder of holders(root)) {
        if (typeof holder !== 'object' || holder === null || !Object.hasOwn(holder, 'data')) continue
        if (Array.isArray(holder)) continue
        holder.data = JSON.parse(Buffer.from(values[holder.data as number] ?? []).toString())
        found++
      }
      t.deepEqual(root, whole)
    }),
    { numRuns: 5000 },
  )
  t.true(found > 500, `${found} data values were found`)
})
