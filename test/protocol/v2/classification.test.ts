import test from 'ava'
import fc from 'fast-check'
import { classesAskedFor, classify } from '../../../src/protocol/v2/classification.js'
import type { Datatype, Tensor, TensorData } from '../../../src/tensor.js'
import { refused } from './helpers/requests.js'

function output(datatype: Datatype, shape: readonly number[], data: TensorData): Tensor {
  return { name: 'y', datatype, shape, data }
}

const SCORES = output('FP32', [2, 3], Float32Array.of(0.5, -1, 2.25, 3, 3, 1))

test('each row of a batch is classified by itself, the highest value first, the first of equal ones first', (t) => {
  const classified = classify(SCORES, { classes: 2, isBatched: true, labels: ['cat', 'dog'] })
  t.deepEqual(
    classified,
    output('BYTES', [2, 2], ['2.250000:2', '0.500000:0:cat', '3.000000:0:cat', '3.000000:1:dog']),
  )
})

test('without a batch all elements are one row', (t) => {
  const classified = classify(SCORES, { classes: 4, isBatched: false, labels: [] })
  t.deepEqual(classified, output('BYTES', [4], ['3.000000:3', '3.000000:4', '2.250000:2', '1.000000:5']))
})

test('more classes than there are give all of them', (t) => {
  t.deepEqual(classify(SCORES, { classes: 99, isBatched: true, labels: [] }).shape, [2, 3])
  t.deepEqual(classify(SCORES, { classes: 99, isBatched: false, labels: [] }).shape, [6])
  const empty = output('FP32', [0, 3], new Float32Array())
  t.deepEqual(classify(empty, { classes: 2, isBatched: true, labels: [] }), output('BYTES', [0, 2], []))
})

test('values are written as C writes them: six decimals, or an integer with all its digits', (t) => {
  const texts = (datatype: Datatype, data: TensorData) =>
    classify(output(datatype, [data.length], data), { classes: 9, isBatched: false, labels: [] }).data
  t.deepEqual(texts('FP64', Float64Array.of(Number.NaN, -1 / 0, 1e22, 1 / 0, 1 / 3)), [
    'inf:3',
    '10000000000000000000000.000000:2',
    '0.333333:4',
    '-inf:1',
    'nan:0',
  ])
  t.deepEqual(texts('FP32', Float32Array.of(-0, -1)), ['-0.000000:0', '-1.000000:1'])
  t.deepEqual(texts('INT8', Int8Array.of(-3, 4)), ['4:1', '-3:0'])
  t.deepEqual(texts('INT64', BigInt64Array.of(-1n, 2n ** 62n + 1n, 2n ** 62n)), [
    '4611686018427387905:1',
    '4611686018427387904:2',
    '-1:0',
  ])
})

test('the n highest are those that sorting everything gives', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 1, max: 70 }),
      (values, classes) => {
        const sorted = values
          .map((value, index) => ({ value, index }))
          .sort((a, b) => b.value - a.value || a.index - b.index)
          .map(({ value, index }) => `${value}:${index}`)
        const tensor = output('INT32', [values.length], Int32Array.from(values))
        const { data } = classify(tensor, { classes, isBatched: false, labels: [] })
        t.deepEqual(data, sorted.slice(0, classes))
      },
    ),
  )
})

test('what has no order, or would be too many strings, is refused', (t) => {
  for (const datatype of ['BOOL', 'BYTES', 'FP16', 'BF16'] as const) {
    refused(t, 'REQUEST_INVALID', ['output "y"', datatype], () =>
      classesAskedFor({ classification: 1 }, { name: 'y', datatype, shape: [3] }),
    )
  }
  const large = output('INT8', [1000, 1000], new Int8Array(1_000_000))
  refused(t, 'REQUEST_INVALID', ['output "y"', '1000000', '100000'], () =>
    classify(large, { classes: 1000, isBatched: true, labels: [] }),
  )
  t.is(classify(large, { classes: 100, isBatched: true, labels: [] }).data.length, 100_000)
})
