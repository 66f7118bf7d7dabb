/**
 * What a serving process counts, and where each number stands among the cells of its slot in a stats
 * page. Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
 */

/** How a request ended. */
export const OUTCOMES = [
  'success',
  'client_error',
  'rejected',
  'timeout',
  'server_error',
  'cancelled',
] as const
export type Outcome = (typeof OUTCOMES)[number]

/** From a fraction of a millisecond (a small model) to half a minute (a large batch), in seconds. */
const DURATION_BOUNDS_SECONDS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
]
const BATCH_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]

export interface HistogramSeries {
  readonly name: string
  readonly help: string
  /** Upper bounds, ascending; one more bucket takes what is above the last. */
  readonly bounds: readonly number[]
  /** First of its cells: the buckets, not added up, then the sum. */
  readonly at: number
}

export const REQUESTS = {
  name: 'onecopy_requests_total',
  help: 'Inference requests by model, version and outcome.',
  at: 0,
} as const

function histograms<Name extends string>(
  definitions: Record<Name, Omit<HistogramSeries, 'at'>>,
): Record<Name, HistogramSeries> {
  let at: number = OUTCOMES.length
  const placed = {} as Record<Name, HistogramSeries>
  for (const name of Object.keys(definitions) as Name[]) {
    placed[name] = { ...definitions[name], at }
    at += definitions[name].bounds.length + 2
  }
  return placed
}

/** Histograms of a model version, each with one series per slot. */
export const HISTOGRAMS = histograms({
  requestDuration: {
    name: 'onecopy_request_duration_seconds',
    help: 'Time from the first byte of a request handled to the last byte of its answer made.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  queueDuration: {
    name: 'onecopy_queue_duration_seconds',
    help: 'Time a request waited for the inference thread.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  computeDuration: {
    name: 'onecopy_compute_duration_seconds',
    help: 'Time inside the runtime, per execution.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  batchSize: {
    name: 'onecopy_batch_size',
    help: 'Rows that were computed together in one execution.',
    bounds: BATCH_BOUNDS,
  },
})
export type HistogramName = keyof typeof HISTOGRAMS

/** Cells that a model version takes of a slot. */
export const MODEL_CELLS = Object.values(HISTOGRAMS).reduce(
  (cells, { at, bounds }) => Math.max(cells, at + bounds.length + 2),
  0,
)

/** Cells of what a process says about itself: true while it lives, meaningless afterwards. */
export const PROCESS_CELLS = {
  /** When its event loop last turned, in milliseconds of the system's monotonic clock. */
  loopBeatMs: 0,
  /** When its inference thread last answered, on the same clock. */
  threadBeatMs: 1,
  /** Number of the model version that the runtime loads or computes at this moment; 0 for none. */
  runningModel: 2,
  /** Requests that wait. */
  queueDepth: 3,
  /** 99th percentile of the event loop's lateness in the last seconds. */
  loopLagSeconds: 4,
} as const
export const PROCESS_CELL_COUNT = Object.keys(PROCESS_CELLS).length

/** Milliseconds of CLOCK_MONOTONIC: the same clock in every process of the machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}
