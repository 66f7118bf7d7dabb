import test from 'ava'
import { BatchTuner } from '../../src/batch/tuner.js'

function trained(nsPerRow: (rows: number) => number): BatchTuner {
  const tuner = new BatchTuner(64)
  for (const rows of [1, 2, 4, 8, 16, 32, 64]) tuner.record(rows, rows * nsPerRow(rows))
  return tuner
}

test('a model whose rows cost the same in every batch runs single rows', (t) => {
  t.is(trained(() => 10e6).limit, 1)
})

test('a model whose rows get cheaper up to the maximum runs full batches', (t) => {
  t.is(trained((rows) => 1e6 / rows + 1e3).limit, 64)
})

test('a model that gains up to some size runs at that size', (t) => {
  const limit = trained((rows) => 1e6 / Math.min(rows, 8)).limit
  t.true(limit >= 8 && limit < 16, String(limit))
})

test('sizes are tried upwards, each twice and at most the double of the last', (t) => {
  const tuner = new BatchTuner(64)
  const limits: number[] = []
  for (let i = 0; i < 15; i++) {
    limits.push(tuner.limit)
    tuner.record(tuner.limit, 1e6)
  }
  const expected = [1, 1, 3, 3, 7, 7, 15, 15, 31, 31, 63, 63, 64, 63, 63]
  t.deepEqual(limits, expected, 'the last two are as good as each other')
})

test('a slow first run of a size does not count for long', (t) => {
  const tuner = new BatchTuner(64)
  tuner.record(1, 100e6)
  t.is(tuner.limit, 1)
  tuner.record(1, 10e6)
  for (const _ of [1, 2]) tuner.record(3, 3 * 10e6)
  t.is(tuner.limit, 1)
})

test('a size that looked bad once is tried again, as the next one up is', (t) => {
  const tuner = trained((rows) => (rows === 1 ? 90e6 : 10e6))
  const limits = new Set<number>()
  for (let i = 0; i < 600; i++) {
    const rows = tuner.limit
    limits.add(rows)
    tuner.record(rows, rows * 10e6)
  }
  t.true(limits.has(1) && limits.has(3) && limits.has(7), [...limits].join(' '))
})

test('the next larger size, and only that, is tried again from time to time', (t) => {
  const tuner = trained(() => 10e6)
  const limits = new Set<number>()
  for (let i = 0; i < 300; i++) {
    limits.add(tuner.limit)
    tuner.record(1, 10e6)
  }
  t.deepEqual(limits, new Set([1, 3]))
})

test('waiting for a fuller batch pays off only if rows get clearly cheaper', (t) => {
  t.true(trained((rows) => 1e6 / rows + 1e5).isWorthWaiting(8, 16))
  t.false(trained(() => 10e6).isWorthWaiting(2, 4))
  t.false(trained((rows) => 10e6 - rows).isWorthWaiting(8, 16))
  t.false(new BatchTuner(64).isWorthWaiting(9, 15), 'sizes that are measured as one')
  t.true(new BatchTuner(64).isWorthWaiting(4, 16), 'not known yet')
})
