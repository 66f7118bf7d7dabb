/**
 * Statistics of a model version since the server started, as defined by the protocol's statistics extension,
 * summed over all slots of its stats page and thus over all current and earlier workers. Any process that
 * maps the page can read them without messages.
 *
 * Source: Triton's statistics extension.
 */
import type { StatsPage } from './page.js'
import {
  BATCH_CELLS,
  BATCH_SIZES,
  batchCellAt,
  HISTOGRAMS,
  type HistogramName,
  OUTCOMES,
  REQUESTS,
  STATISTICS,
} from './series.js'

export interface Duration {
  readonly count: number
  readonly ns: number
}

export interface ModelStatistics {
  /** Milliseconds since 1970; 0 before the first. */
  readonly last_inference: number
  /** Rows computed. */
  readonly inference_count: number
  readonly execution_count: number
  /** Per request: each request of a batch counts the whole time of the execution. */
  readonly inference_stats: {
    readonly success: Duration
    /** Every request for the model that was not answered with 200. */
    readonly fail: Duration
    readonly queue: Duration
    readonly compute_input: Duration
    readonly compute_infer: Duration
    readonly compute_output: Duration
    readonly cache_hit: Duration
    readonly cache_miss: Duration
  }
  /** Per response of models with several responses per request; there are none. */
  readonly response_stats: Record<string, never>
  /** Per execution, by size; only sizes that occurred. */
  readonly batch_stats: readonly {
    readonly batch_size: number
    readonly compute_input: Duration
    readonly compute_infer: Duration
    readonly compute_output: Duration
  }[]
}

type Totals = Pick<StatsPage, 'total' | 'latest'>

const NONE: Duration = { count: 0, ns: 0 }

/** Count and sum of a histogram over all slots. */
export function countAndSum(page: Pick<Totals, 'total'>, name: HistogramName) {
  const { at, bounds } = HISTOGRAMS[name]
  let count = 0
  for (let bucket = 0; bucket <= bounds.length; bucket++) count += page.total(at + bucket)
  return { count, sum: page.total(at + bounds.length + 1) }
}

/** Reads a model version's page; all numbers are integers. */
export function readStatistics(page: Totals): ModelStatistics {
  const total = (cell: number) => Math.round(page.total(cell))
  const requests = (counts: (outcome: (typeof OUTCOMES)[number]) => boolean) =>
    OUTCOMES.reduce((sum, outcome, i) => (counts(outcome) ? sum + total(REQUESTS.at + i) : sum), 0)
  const queue = countAndSum(page, 'queueDuration')
  const executions = countAndSum(page, 'batchSize')
  const computed = total(STATISTICS.computed)
  return {
    last_inference: page.latest(STATISTICS.lastInferenceMs),
    inference_count: executions.sum,
    execution_count: executions.count,
    inference_stats: {
      success: { count: requests((outcome) => outcome === 'success'), ns: total(STATISTICS.successNs) },
      fail: { count: requests((outcome) => outcome !== 'success'), ns: total(STATISTICS.failNs) },
      queue: { count: queue.count, ns: Math.round(queue.sum * 1e9) },
      compute_input: { count: computed, ns: total(STATISTICS.inputNs) },
      compute_infer: { count: computed, ns: total(STATISTICS.inferNs) },
      compute_output: { count: computed, ns: total(STATISTICS.outputNs) },
      cache_hit: NONE,
      cache_miss: NONE,
    },
    response_stats: {},
    batch_stats: BATCH_SIZES.flatMap((size, place) => {
      const at = batchCellAt(place)
      const count = total(at + BATCH_CELLS.executions)
      if (count === 0) return []
      const duration = (cell: keyof typeof BATCH_CELLS) => ({ count, ns: total(at + BATCH_CELLS[cell]) })
      return [
        {
          batch_size: size,
          compute_input: duration('inputNs'),
          compute_infer: duration('inferNs'),
          compute_output: duration('outputNs'),
        },
      ]
    }),
  }
}
