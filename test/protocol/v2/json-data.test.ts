import test from 'ava'
import fc from 'fast-check'
import { decodeJsonData } from '../../../src/protocol/v2/json-decode.js'
import { encodeJsonData } from '../../../src/protocol/v2/json-encode.js'
import type { Datatype, TensorData } from '../../../src/tensor.js'
import { arbitraryData, expectedX, JSON_DATATYPES, refused, sameElements, utf8 } from './helpers/requests.js'

function decodeX(text: string, datatype: Datatype, shape: readonly number[]): TensorData {
  return decodeJsonData(utf8(text), expectedX(datatype, shape))
}

function encodeX(datatype: Datatype, data: TensorData): string {
  return [...encodeJsonData({ name: 'x', datatype, shape: [data.length], data })].join('')
}

for (const datatype of JSON_DATATYPES) {
  test(`${datatype} comes back from JSON as it went`, (t) => {
    fc.assert(
      fc.property(arbitraryData(datatype), (data) => {
        const text = encodeX(datatype, data)
        JSON.parse(text)
        return sameElements(decodeX(text, datatype, [data.length]), data)
      }),
    )
    t.pass()
  })

  test(`${datatype} nested as its shape says is the same as flat`, (t) => {
    fc.assert(
      fc.property(arbitraryData(datatype), (data) => {
        const half = data.length >> 1
        const rows = [data.slice(0, half), data.slice(half, 2 * half)] as TensorData[]
        const text = rows.map((row) => `[${encodeX(datatype, row)}]`).join(' , ')
        const flat = data.slice(0, 2 * half) as TensorData
        return sameElements(decodeX(`[\n${text}\t]`, datatype, [2, 1, half]), flat)
      }),
    )
    t.pass()
  })
}

test('many elements are encoded without a seam', (t) => {
  const data = Float32Array.from({ length: 10_000 }, (_, i) =>
    i % 997 === 0 ? Number.NaN : i % 991 === 0 ? -0 : i / 3,
  )
  const text = encodeX('FP32', data)
  t.is(JSON.parse(text).length, 10_000)
  t.true(sameElements(decodeX(text, 'FP32', [10_000]), data))
})

test('floats without a JSON form are strings, and -0 keeps its sign', (t) => {
  const specials = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -0, 0, 1.5]
  for (const [datatype, data] of [
    ['FP32', Float32Array.from(specials)],
    ['FP64', Float64Array.from(specials)],
  ] as const) {
    t.is(encodeX(datatype, data), '["NaN","Infinity","-Infinity",-0.0,0,1.5]')
    for (const zero of ['-0', '-0.0', '-0e5'])
      t.true(sameElements(decodeX(`["NaN","Infinity","-Infinity",${zero},0,1.5]`, datatype, [6]), data))
  }
})

test('bare NaN and infinities are floats wherever an element stands, beside strings too', (t) => {
  const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: below } = Number
  const cases: [string, number[], number[]][] = [
    ['[NaN,1,Infinity,-Infinity]', [4], [nan, 1, inf, below]],
    ['[ NaN , -Infinity ]', [2], [nan, below]],
    ['[[NaN,"NaN"],["-Infinity",-Infinity]]', [2, 2], [nan, nan, below, below]],
    ['[[[Infinity]],[[-0]]]', [2, 1, 1], [inf, -0]],
    ['NaN', [], [nan]],
    ['-Infinity', [], [below]],
    ['[1e-40,NaN,0.1]', [3], [1e-40, nan, 0.1]],
  ]
  for (const [text, shape, values] of cases) {
    t.true(sameElements(decodeX(text, 'FP32', shape), Float32Array.from(values)), text)
    t.true(sameElements(decodeX(text, 'FP64', shape), Float64Array.from(values)), text)
  }
})

test('floats written bare, in any nesting, are the same as those written as strings', (t) => {
  const double = fc.oneof(fc.double(), fc.constantFrom(Number.NaN, -0, Number.NEGATIVE_INFINITY))
  const written = (value: number) => (Object.is(value, -0) ? '-0.0' : String(value))
  fc.assert(
    fc.property(fc.array(fc.tuple(double, fc.boolean()), { minLength: 1 }), (elements) => {
      const texts = elements.map(([value, isQuoted]) =>
        isQuoted && !Number.isFinite(value) ? `"${value}"` : written(value),
      )
      const data = Float64Array.from(elements, ([value]) => value)
      const { length } = texts
      t.true(sameElements(decodeX(`[${texts}]`, 'FP64', [length]), data))
      t.true(sameElements(decodeX(`[[${texts.join('],[')}]]`, 'FP64', [length, 1]), data))
    }),
  )
})

test('other words, and NaN beside something else, are malformed, and the message says what to write', (t) => {
  const words = ['input "x"', 'NaN, Infinity or -Infinity']
  for (const element of ['nan', 'inf', '-NaN', '+Infinity', 'NaN.5', 'NaN NaN']) {
    refused(t, 'BODY_MALFORMED', words, () => decodeX(`[1,${element}]`, 'FP32', [2]))
    refused(t, 'BODY_MALFORMED', words, () => decodeX(`[1,${element}]`, 'FP64', [1000]))
  }
  for (const text of [
    '[1NaN,1]',
    '[1,NaN1]',
    '[1,--Infinity]',
    '[NaNNaN,1]',
    '[1Infinity,2]',
    '[éNaN,1]',
    '[$NaN,1]',
    '["NaN]',
    '["a\\"NaN]',
  ])
    refused(t, 'BODY_MALFORMED', ['input "x"'], () => decodeX(text, 'FP64', [2]))
  refused(t, 'TENSOR_INVALID', ['element 1', 'a NaN'], () => decodeX('[NaN,"a NaN"]', 'FP32', [2]))
  refused(t, 'TENSOR_INVALID', ['element 1'], () => decodeX('[NaN,"\\\\"]', 'FP64', [2]))
  refused(t, 'TENSOR_INVALID', ['element 0'], () => decodeX('[{"a":NaN}]', 'FP64', [1]))
  refused(t, 'TENSOR_INVALID', ['expected 3'], () => decodeX('[NaN,NaN]', 'FP32', [3]))
})

test('NaN and infinities stand in no other datatype', (t) => {
  for (const datatype of ['INT32', 'UINT8', 'INT64', 'UINT64', 'BOOL', 'BYTES'] as const) {
    for (const element of ['NaN', '-Infinity', '"NaN",Infinity']) {
      const words = datatype === 'BYTES' ? ['input "x"'] : ['input "x"', 'FP32 and FP64']
      refused(t, 'BODY_MALFORMED', words, () => decodeX(`[${element}]`, datatype, [1]))
    }
  }
})

test('a finite number too large for the datatype is refused, the largest is not', (t) => {
  const largest = 3.4028234663852886e38
  t.deepEqual(decodeX(`[${largest},-3.40282356e38]`, 'FP32', [2]), Float32Array.of(largest, -largest))
  t.deepEqual(decodeX('[1e308,1e-400]', 'FP64', [2]), Float64Array.of(1e308, 0))
  for (const [text, datatype] of [
    ['[1,3.4028236e38]', 'FP32'],
    ['[1,-1e39]', 'FP32'],
    ['[1,1e400]', 'FP64'],
    ['[1,-1e400]', 'FP64'],
    ['[1,1e400]', 'FP32'],
  ] as const) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1', datatype], () => decodeX(text, datatype, [2]))
  }
})

test('elements of another type are refused by position', (t) => {
  const cases: [Datatype, string[]][] = [
    ['FP32', ['true', 'null', '"1"', '"nan"', '{}', '[1]', '"toString"']],
    ['INT32', ['true', 'null', '"1"', '{}', '[1]', '1.5', '"NaN"']],
    ['INT64', ['true', 'null', '"1"', '{}', '[1]', '1.5', '1e400']],
    ['BOOL', ['2', '-1', 'null', '"true"', '0.5', '[true]']],
    ['BYTES', ['1', 'true', 'null', '{}', '["a"]']],
  ]
  const good: Record<string, string> = { BOOL: 'true', BYTES: '"a"' }
  for (const [datatype, elements] of cases) {
    for (const element of elements) {
      const text = `[${good[datatype] ?? 1},${element}]`
      refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1'], () => decodeX(text, datatype, [2]))
    }
  }
})

test('integers are range-checked for their datatype', (t) => {
  const ranges: [Datatype, bigint, bigint][] = [
    ['UINT8', 0n, 255n],
    ['INT8', -128n, 127n],
    ['UINT16', 0n, 65535n],
    ['INT16', -32768n, 32767n],
    ['UINT32', 0n, 2n ** 32n - 1n],
    ['INT32', -(2n ** 31n), 2n ** 31n - 1n],
    ['UINT64', 0n, 2n ** 64n - 1n],
    ['INT64', -(2n ** 63n), 2n ** 63n - 1n],
  ]
  for (const [datatype, min, max] of ranges) {
    const data = decodeX(`[${min},${max},-0]`, datatype, [3])
    t.deepEqual(Array.from<bigint | number | string>(data).map(BigInt), [min, max, 0n])
    for (const beyond of [min - 1n, max + 1n]) {
      const words = ['input "x"', 'element 1', datatype]
      refused(t, 'TENSOR_INVALID', words, () => decodeX(`[0,${beyond}]`, datatype, [2]))
    }
  }
})

test('a fraction or an exponent is not an integer, even when its value is whole', (t) => {
  for (const datatype of ['INT8', 'UINT32', 'INT64', 'UINT64'] as const) {
    for (const element of ['1.0', '1e0', '1E2', '10e-1', '-0.0']) {
      const words = ['input "x"', datatype]
      refused(t, 'TENSOR_INVALID', words, () => decodeX(`[0,${element}]`, datatype, [2]))
    }
  }
  refused(t, 'TENSOR_INVALID', ['got 120e0'], () => decodeX('[1,120e0,3]', 'INT32', [3]))
})

test('leading zeros and plus signs are malformed', (t) => {
  for (const datatype of ['INT8', 'INT64', 'UINT64', 'FP32'] as const) {
    for (const element of ['01', '+1', '-', '0x1', '1_0', '-01', '9007199254740993n']) {
      refused(t, 'BODY_MALFORMED', ['input "x"'], () => decodeX(`[0,${element}]`, datatype, [2]))
    }
  }
})

test('INT64 and UINT64 keep every digit beyond 2^53', (t) => {
  const signed = [
    '9007199254740993',
    '-9007199254740993',
    '9223372036854775807',
    '-9223372036854775808',
    '1',
    '-1',
  ]
  const unsigned = ['9007199254740993', '18446744073709551615', '999999999999999', '1000000000000000', '0']
  for (const [datatype, digits] of [
    ['INT64', signed],
    ['UINT64', unsigned],
  ] as const) {
    const data = decodeX(`[ ${digits.join(' ,\n')} ]`, datatype, [digits.length])
    t.deepEqual(Array.from<unknown>(data).map(String), digits)
    t.is(encodeX(datatype, data), `[${digits.join(',')}]`)
  }
  t.deepEqual(decodeX('[[9007199254740993],[-4]]', 'INT64', [2, 1]), BigInt64Array.of(9007199254740993n, -4n))
})

test('a number of a million digits is out of range, and quickly', (t) => {
  const digits = '9'.repeat(1_000_000)
  for (const datatype of ['INT64', 'UINT64', 'INT32', 'FP64'] as const) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1'], () => decodeX(`[1,${digits}]`, datatype, [2]))
  }
  refused(t, 'TENSOR_INVALID', ['element 0'], () => decodeX(`[${'9'.repeat(300)}]`, 'INT64', [1]))
})

test('BOOL takes true, false, 1 and 0', (t) => {
  t.deepEqual(decodeX('[true,false,1,0]', 'BOOL', [4]), Uint8Array.of(1, 0, 1, 0))
  t.is(encodeX('BOOL', Uint8Array.of(1, 0)), '[true,false]')
})

test('a lone surrogate is not text', (t) => {
  t.deepEqual(decodeX('["\\ud83d\\ude00","😀",""]', 'BYTES', [3]), ['😀', '😀', ''])
  for (const element of ['"\\ud83d"', '"a\\ude00"', '"\\ude00\\ud83d"']) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1'], () => decodeX(`["a",${element}]`, 'BYTES', [2]))
  }
})

test('a string with a NUL is refused, by position and with the limit', (t) => {
  for (const [element, at] of [
    ['"ab\\u0000cd"', 2],
    ['"\\u0000"', 0],
    ['"😀\\u0000"', 2],
  ] as const) {
    const words = ['input "x"', 'element 1', 'NUL', `character ${at}`]
    refused(t, 'TENSOR_INVALID', words, () => decodeX(`["a",${element}]`, 'BYTES', [2]))
    refused(t, 'TENSOR_INVALID', words, () => decodeX(`[["a"],[${element}]]`, 'BYTES', [2, 1]))
  }
  // As JSON has it: a backslash and digits.
  t.deepEqual(decodeX('["\\\\u0000"]', 'BYTES', [1]), ['\\u0000'])
})

test('FP16 and BF16 have no JSON form, either way', (t) => {
  for (const datatype of ['FP16', 'BF16'] as const) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'binary'], () => decodeX('[1]', datatype, [1]))
    refused(t, 'REQUEST_INVALID', ['output "x"', 'binary'], () => encodeX(datatype, Uint16Array.of(1)))
  }
})

test('a scalar is bare or alone in an array', (t) => {
  t.deepEqual(decodeX('7', 'FP32', []), Float32Array.of(7))
  t.deepEqual(decodeX('[7]', 'INT64', []), BigInt64Array.of(7n))
  t.deepEqual(decodeX('9007199254740993', 'INT64', []), BigInt64Array.of(9007199254740993n))
  t.deepEqual(decodeX('"a"', 'BYTES', []), ['a'])
  for (const text of ['[]', '[1,2]', '[[1]]', 'null']) {
    refused(t, 'TENSOR_INVALID', ['input "x"'], () => decodeX(text, 'FP32', []))
  }
  refused(t, 'TENSOR_INVALID', ['input "x"', 'array'], () => decodeX('1', 'FP32', [1]))
})

test('shapes of size zero take nothing, flat or nested', (t) => {
  t.deepEqual(decodeX('[]', 'FP32', [0]), new Float32Array())
  t.deepEqual(decodeX('[]', 'FP32', [2, 0]), new Float32Array())
  t.deepEqual(decodeX('[[],[]]', 'FP32', [2, 0]), new Float32Array())
  t.deepEqual(decodeX('[]', 'BYTES', [0, 3]), [])
  t.deepEqual(decodeX('[[],[]]', 'FP32', [2, 0, 9007199254740991]), new Float32Array())
  for (const [text, shape] of [
    ['[[]]', [0, 3]],
    ['[[]]', [2, 0]],
    ['[1]', [0]],
    ['[[],[1]]', [2, 0]],
    ['[[[]],[[]]]', [2, 0]],
  ] as const) {
    refused(t, 'TENSOR_INVALID', ['input "x"'], () => decodeX(text, 'FP32', shape))
  }
})

test('the element count must be the shape, and nesting must be its nesting', (t) => {
  t.deepEqual(decodeX('[[1,2],[3,4]]', 'FP32', [2, 2]), Float32Array.of(1, 2, 3, 4))
  t.deepEqual(decodeX('[1,2,3,4]', 'FP32', [2, 2]), Float32Array.of(1, 2, 3, 4))
  refused(t, 'TENSOR_INVALID', ['input "x"', 'expected 4', 'got 3'], () => decodeX('[10,20,30]', 'FP32', [4]))
  refused(t, 'TENSOR_INVALID', ['input "x"', 'expected 4', 'got 5'], () =>
    decodeX('[1,2,3,4,5]', 'FP32', [2, 2]),
  )
  for (const text of [
    '[[1,2],[3]]',
    '[[1,2],[3,4,5]]',
    '[[1,2]]',
    '[[1,2],[3,4],[5,6]]',
    '[[1,2,3,4]]',
    '[[1],[2],[3],[4]]',
    '[[1,2],3,4]',
    '[1,2,[3,4]]',
    '[[[1,2],[3,4]]]',
    '[[[1],[2]],[[3],[4]]]',
    '[[1,2],[3,[4]]]',
    '[[1,2],{}]',
  ]) {
    for (const datatype of ['FP32', 'INT32', 'INT64'] as const) {
      refused(t, 'TENSOR_INVALID', ['input "x"'], () => decodeX(text, datatype, [2, 2]))
    }
  }
})

test('a shape that the bytes cannot fill is refused before anything is allocated', (t) => {
  const shape = [2 ** 40]
  for (const datatype of JSON_DATATYPES) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'cannot hold'], () => decodeX('[1]', datatype, shape))
  }
})
