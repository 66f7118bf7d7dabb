import { isDeepStrictEqual } from 'node:util'
import test from 'ava'
import fc from 'fast-check'
import type { OnecopyError } from '../../../src/errors.js'
import type { ExpectedData } from '../../../src/protocol/v2/datatypes.js'
import { decodeJsonData } from '../../../src/protocol/v2/json-decode.js'
import { decodeJsonDataInSteps } from '../../../src/protocol/v2/json-decode-steps.js'
import { decodeInferRequest, decodeInferRequestInSlices } from '../../../src/protocol/v2/request.js'
import { elementCount, type TensorData } from '../../../src/tensor.js'
import { turnsDuring } from '../../helpers/event-loop.js'

const LABEL = 'input "x"'

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(text))
}

function expected(datatype: ExpectedData['datatype'], shape: readonly number[]): ExpectedData {
  return { label: LABEL, datatype, shape, count: elementCount(shape) }
}

/** The result and the number of steps. */
function inSteps(bytes: Uint8Array<ArrayBuffer>, data: ExpectedData): { data: TensorData; steps: number } {
  const steps = decodeJsonDataInSteps(bytes, data)
  for (let count = 1; ; count++) {
    const step = steps.next()
    if (step.done === true) return { data: step.value, steps: count }
  }
}

/** Elements in row-major order, nested for a shape. */
function nested(elements: readonly unknown[], shape: readonly number[]): unknown {
  const [size = 0, ...inner] = shape
  if (inner.length === 0) return elements
  const each = elementCount(inner)
  return Array.from({ length: size }, (_, i) => nested(elements.slice(i * each, (i + 1) * each), inner))
}

const ELEMENTS: Readonly<Partial<Record<ExpectedData['datatype'], (i: number) => unknown>>> = {
  FP32: (i) => Math.fround(Math.sin(i) * 10 ** (i % 30)),
  FP64: (i) => Math.cos(i) / 3,
  INT32: (i) => (i * 7919) % 100_000,
  UINT8: (i) => i % 256,
  BOOL: (i) => i % 3 === 0,
  INT64: (i) => i * 1_000_003,
}
const SHAPES = [
  [60_000],
  [1, 60_000],
  [60_000, 1],
  [3, 20_000],
  [20_000, 3],
  [2, 3, 100, 100],
  [1, 1, 60_000],
]

for (const [datatype, elementOf] of Object.entries(ELEMENTS)) {
  for (const shape of SHAPES) {
    test(`${datatype} of shape ${shape.join('x')}, flat and nested, is the same in steps`, (t) => {
      const data = expected(datatype as ExpectedData['datatype'], shape)
      const elements = Array.from({ length: data.count }, (_, i) => elementOf(i))
      for (const space of [0, 1]) {
        for (const value of [elements, nested(elements, shape)]) {
          const bytes = bytesOf(`\n ${JSON.stringify(value, null, space)}\t`)
          const sliced = inSteps(bytes, data)
          // In native code: 60,000 elements take ava's comparison a second.
          t.true(isDeepStrictEqual(sliced.data, decodeJsonData(bytes, data)))
          if (bytes.length > 200_000) t.true(sliced.steps > 1, `${sliced.steps} steps`)
        }
      }
    })
  }
}

test('integers beyond 2^53 keep their digits', (t) => {
  const digits = Array.from({ length: 20_000 }, (_, i) => `${9_007_199_254_740_993n + BigInt(i)}`)
  const { data } = inSteps(bytesOf(`[${digits.join(',')}]`), expected('INT64', [20_000]))
  t.is((data as BigInt64Array)[0], 9_007_199_254_740_993n)
  t.is((data as BigInt64Array)[19_999], 9_007_199_254_760_992n)
})

test('NaN and infinities, bare and as strings, are the same in steps', (t) => {
  const words = ['NaN', 'Infinity', '-Infinity', '"NaN"', '"-Infinity"', '1.5']
  for (const used of [words, words.filter((word) => !word.startsWith('"'))]) {
    const text = Array.from({ length: 60_000 }, (_, i) => used[i % used.length])
    const bytes = bytesOf(`[${text.join(',')}]`)
    t.deepEqual(
      inSteps(bytes, expected('FP32', [60_000])).data,
      decodeJsonData(bytes, expected('FP32', [60_000])),
    )
  }
})

test('what is wrong is reported as for the whole text', (t) => {
  const row = `[${Array.from({ length: 300 }, (_, i) => i).join(',')}]`
  const rows = Array.from({ length: 300 }, () => row)
  const flat = Array.from({ length: 90_000 }, (_, i) => `${i % 1000}`)
  const wrong: Record<string, string> = {
    'a comma at the end': `[${flat.join(',')},]`,
    'two commas': `[${flat.join(',').replace('500,', '500,,')}]`,
    'an element too many': `[${flat.join(',')},1]`,
    'an element too few': `[${flat.slice(1).join(',')}]`,
    'an array among numbers': `[${flat.join(',').replace('500,', '[500],')}]`,
    'a text among numbers': `[${flat.join(',').replace('500,', '"a",')}]`,
    'no closing bracket': `[${flat.join(',')}`,
    'a fraction': `[${flat.join(',').replace('500,', '500.5,')}]`,
    'out of range': `[${flat.join(',').replace('500,', '5000000000,')}]`,
    'a row too many': `[${rows.join(',')},${row}]`,
    'a row too few': `[${rows.slice(1).join(',')}]`,
    'a row that is too long': `[${rows.slice(1).join(',')},${row.replace(']', ',1]')}]`,
    'two rows of another length': `[${rows.slice(2).join(',')},${row.replace(']', ',1]')},${row.replace(',299', '')}]`,
    'no comma between rows': `[${rows.join(' ')}]`,
    'rows that are nested once more': `[${rows.map((one) => `[${one}]`).join(',')}]`,
    'a bracket in a text': `[${rows.slice(1).join(',')},["]"]]`,
  }
  for (const [what, text] of Object.entries(wrong)) {
    const bytes = bytesOf(text)
    const data = expected('INT32', [300, 300])
    const whole = t.throws(() => decodeJsonData(bytes, data), undefined, what) as OnecopyError
    const sliced = t.throws(() => inSteps(bytes, data), undefined, what) as OnecopyError
    t.is(sliced.message, whole.message, what)
    t.is(sliced.code, whole.code, what)
  }
})

test('property: any byte changed in large data gives the same result or the same error', (t) => {
  const elements = Array.from({ length: 30_000 }, (_, i) => i % 977)
  const texts = [JSON.stringify(elements), JSON.stringify(nested(elements, [100, 300]))].map((text) =>
    text.padEnd(140_000, ' '),
  )
  const data = expected('INT32', [100, 300])
  const outcome = (decode: () => TensorData) => {
    try {
      return decode()
    } catch (thrown) {
      return (thrown as Error).message
    }
  }
  fc.assert(
    fc.property(
      fc.constantFrom(...texts),
      fc.nat(130_000),
      fc.constantFrom(...'0-[]{},".e \\'),
      (text, at, character) => {
        const bytes = bytesOf(text.slice(0, at) + character + text.slice(at + 1))
        const whole = outcome(() => decodeJsonData(bytes, data))
        const sliced = outcome(() => inSteps(bytes, data).data)
        t.deepEqual(sliced, whole)
      },
    ),
    { numRuns: 150 },
  )
})

test('the event loop turns while a large request is decoded', async (t) => {
  const shape = [1000, 1000]
  const values = Array.from({ length: 1_000_000 }, (_, i) => Math.fround(Math.sin(i)))
  const body = bytesOf(
    JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape, data: nested(values, shape) }] }),
  )
  const spec = [{ name: 'x', datatype: 'FP32', shape: [-1, 1000] }] as const
  const request = {
    ...{ body, jsonBytes: null, limits: { jsonDepth: 64, maxTensors: 16 } },
    model: { name: 'm', version: '1', inputs: spec, outputs: [{ ...spec[0], name: 'y' }] },
  }
  const { result: sliced, turns } = await turnsDuring(() => decodeInferRequestInSlices(request))
  t.true(turns > 10, `${turns} turns of the event loop`)
  t.deepEqual(sliced, decodeInferRequest(request))
})
