import test from 'ava'
import { floatsOf, type Tensor } from '../src/tensor.js'
import { POOLINGS, pool, poolTokens } from '../src/token-pooling.js'

test('pooling is over the tokens of the text, not over what it was padded with', (t) => {
  const states = Float32Array.from([1, -2, 3, 4, 100, 100])
  const of = { length: 2, hidden: 2 }
  t.deepEqual([...pool('mean', states, of)], [2, 1])
  t.deepEqual([...pool('cls', states, of)], [1, -2])
  t.deepEqual([...pool('last', states, of)], [3, 4])
  t.deepEqual([...pool('max', states, of)], [3, 4])
})

/** Two rows of at most three tokens of two elements; 9 is padding. */
const VALUES = [1, -2, 3, 4, 9, 9, 0.5, 0.25, -1, 0, 2, -0.5]
const HALVES = [
  0x3c00, 0xc000, 0x4200, 0x4400, 0x4880, 0x4880, 0x3800, 0x3400, 0xbc00, 0x8000, 0x4000, 0xb800,
]

test('an output of FP16 is pooled as the same one of FP32', (t) => {
  const shape = [2, 3, 2]
  const single: Tensor = { name: 'h', datatype: 'FP32', shape, data: Float32Array.from(VALUES) }
  const half: Tensor = { name: 'h', datatype: 'FP16', shape, data: Uint16Array.from(HALVES) }
  for (const kind of POOLINGS) {
    const pooled = poolTokens(half, { kind, lengths: [2, 3] })
    t.deepEqual(pooled, poolTokens(single, { kind, lengths: [2, 3] }), kind)
    t.deepEqual(pooled.shape, [2, 2])
    t.is(pooled.datatype, 'FP32')
  }
})

test('halves are widened exactly: zeros, the smallest, infinities and NaN as well', (t) => {
  const bits = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0x7c00, 0xfc00, 0x3555]
  const floats = [...floatsOf({ datatype: 'FP16', data: Uint16Array.from(bits) })]
  const smallest = 2 ** -24
  t.deepEqual(floats, [
    ...[0, -0, smallest, -1023 * smallest, 2 ** -14, 65504, Infinity, -Infinity, 1365 / 4096],
  ])
  t.true(Number.isNaN(floatsOf({ datatype: 'FP16', data: Uint16Array.of(0x7e00) })[0]))
})

test('an output of another shape than was expected stays as it is', (t) => {
  const output: Tensor = { name: 'h', datatype: 'FP32', shape: [2, 2], data: new Float32Array(4) }
  t.is(poolTokens(output, { kind: 'mean', lengths: [1, 1] }), output)
})
