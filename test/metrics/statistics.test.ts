import { join } from 'node:path'
import test from 'ava'
import { StatsPage } from '../../src/metrics/page.js'
import { ModelRecorder } from '../../src/metrics/recorder.js'
import { BATCH_SIZES, batchPlaceOf, MODEL_CELLS } from '../../src/metrics/series.js'
import { readStatistics } from '../../src/metrics/statistics.js'
import { temporaryFolder } from '../helpers/server.js'

const NONE = { count: 0, ns: 0 }

test('statistics are summed over slots, in nanoseconds, with zeros for absent events', async (t) => {
  const reference = { path: join(temporaryFolder(t), 'p'), slots: 3, cellsPerSlot: MODEL_CELLS }
  const page = await StatsPage.create(reference)
  t.deepEqual(readStatistics(page), {
    last_inference: 0,
    inference_count: 0,
    execution_count: 0,
    inference_stats: {
      success: NONE,
      fail: NONE,
      queue: NONE,
      compute_input: NONE,
      compute_infer: NONE,
      compute_output: NONE,
      cache_hit: NONE,
      cache_miss: NONE,
    },
    response_stats: {},
    batch_stats: [],
  })

  const [first, second] = [new ModelRecorder(page.slot(0)), new ModelRecorder(page.slot(2))]
  const before = Date.now()
  const times = { inputNs: 10, inferNs: 100, outputNs: 1, placement: 'thread' } as const
  // A batch of two requests with two rows each, and in another slot a request of two rows that fails later.
  first.countExecution(4, times)
  second.countExecution(2, times)
  for (const recorder of [first, first, second]) {
    recorder.observe('queueDuration', 0.25)
    recorder.countComputed(times)
  }
  first.countRequest('success', 2)
  first.countRequest('success', 3)
  second.countRequest('cancelled', 4)
  second.countRequest('rejected', 0.5)

  // Read through another mapping, as in another process.
  const { last_inference, ...counted } = readStatistics(await StatsPage.open(reference))
  t.true(last_inference >= before && last_inference <= Date.now())
  t.deepEqual(counted, {
    inference_count: 6,
    execution_count: 2,
    inference_stats: {
      success: { count: 2, ns: 5_000_000 },
      fail: { count: 2, ns: 4_500_000 },
      queue: { count: 3, ns: 750_000_000 },
      compute_input: { count: 3, ns: 30 },
      compute_infer: { count: 3, ns: 300 },
      compute_output: { count: 3, ns: 3 },
      cache_hit: NONE,
      cache_miss: NONE,
    },
    response_stats: {},
    batch_stats: [
      {
        batch_size: 2,
        compute_input: { count: 1, ns: 10 },
        compute_infer: { count: 1, ns: 100 },
        compute_output: { count: 1, ns: 1 },
      },
      {
        batch_size: 4,
        compute_input: { count: 1, ns: 10 },
        compute_infer: { count: 1, ns: 100 },
        compute_output: { count: 1, ns: 1 },
      },
    ],
  })
})

test('sizes are exact up to 64, then rounded up to a power of two, and the last includes all larger ones', (t) => {
  const sizeOf = (rows: number) => BATCH_SIZES[batchPlaceOf(rows)]
  for (let rows = 1; rows <= 64; rows++) t.is(sizeOf(rows), rows)
  t.deepEqual(
    [65, 128, 129, 4096, 4097, 65_536, 65_537, 1e9].map(sizeOf),
    [128, 128, 256, 4096, 8192, 65_536, 65_536, 65_536],
  )
  t.deepEqual(BATCH_SIZES.map(batchPlaceOf), [...BATCH_SIZES.keys()])
})
