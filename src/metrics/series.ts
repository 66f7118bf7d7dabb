/**
 * What a serving process counts, and the position of each number among the cells of its slot in a stats
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

/**
 * Where an execution runs: on the event loop if it is known to be short, otherwise in the inference thread.
 */
export type Placement = 'event-loop' | 'thread'

export interface HistogramSeries {
  readonly name: string
  /** Labels that distinguish series with the same name. */
  readonly labels?: Readonly<Record<string, string>>
  readonly help: string
  /** Upper bounds, ascending; one more bucket counts larger values. */
  readonly bounds: readonly number[]
  /** Index of its first cell: the buckets, not cumulative, then the sum. */
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
    help: 'Time from the start of handling a request to the end of encoding its response.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  queueDuration: {
    name: 'onecopy_queue_duration_seconds',
    help: 'Time that a request waited in the queue.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  computeInThread: {
    name: 'onecopy_compute_duration_seconds',
    labels: { placement: 'thread' },
    help: 'Time inside the runtime, per execution, by placement: the inference thread or the event loop.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  computeOnLoop: {
    name: 'onecopy_compute_duration_seconds',
    labels: { placement: 'event-loop' },
    help: 'Time inside the runtime, per execution, by placement: the inference thread or the event loop.',
    bounds: DURATION_BOUNDS_SECONDS,
  },
  batchSize: {
    name: 'onecopy_batch_size',
    help: 'Rows per execution.',
    bounds: BATCH_BOUNDS,
  },
})
export type HistogramName = keyof typeof HISTOGRAMS

const HISTOGRAM_END = Object.values(HISTOGRAMS).reduce(
  (cells, { at, bounds }) => Math.max(cells, at + bounds.length + 2),
  0,
)

/** Additional numbers for the statistics extension of the protocol; durations in nanoseconds. */
export const STATISTICS = {
  successNs: HISTOGRAM_END,
  failNs: HISTOGRAM_END + 1,
  /** Computed requests, and the time of their executions. */
  computed: HISTOGRAM_END + 2,
  inputNs: HISTOGRAM_END + 3,
  inferNs: HISTOGRAM_END + 4,
  outputNs: HISTOGRAM_END + 5,
  /** Start of the latest execution, in milliseconds since 1970; slots are combined by maximum, not by sum. */
  lastInferenceMs: HISTOGRAM_END + 6,
} as const
const STATISTICS_END = HISTOGRAM_END + Object.keys(STATISTICS).length

/** Executions are counted by exact size up to this size, the default of `max_batch_size`. */
const EXACT_SIZES = 64
/** Above it, sizes are rounded up to a power of two; the last one counts all larger sizes. */
const LARGEST_SIZE = 65_536

/** The sizes by which executions are counted, ascending. */
export const BATCH_SIZES: readonly number[] = [
  ...Array.from({ length: EXACT_SIZES }, (_, i) => i + 1),
  ...Array.from({ length: Math.log2(LARGEST_SIZE / EXACT_SIZES) }, (_, i) => EXACT_SIZES * 2 ** (i + 1)),
]

/**
 * Cells of one size: executions, and the time they spent before, in and after the runtime, in nanoseconds.
 */
export const BATCH_CELLS = { executions: 0, inputNs: 1, inferNs: 2, outputNs: 3 } as const
const CELLS_PER_SIZE = Object.keys(BATCH_CELLS).length

/** First cell of the size with this index in BATCH_SIZES. */
export function batchCellAt(place: number): number {
  return STATISTICS_END + place * CELLS_PER_SIZE
}

/** The index in BATCH_SIZES for executions with this number of rows. */
export function batchPlaceOf(rows: number): number {
  if (rows <= EXACT_SIZES) return Math.max(rows, 1) - 1
  const above = Math.ceil(Math.log2(rows / EXACT_SIZES))
  return Math.min(EXACT_SIZES - 1 + above, BATCH_SIZES.length - 1)
}

/** Number of cells of a model version in a slot. */
export const MODEL_CELLS = batchCellAt(BATCH_SIZES.length)

/** Cells of the process state, which are only meaningful while the process lives. */
export const PROCESS_CELLS = {
  /** Time of the last turn of its event loop, in milliseconds of the system's monotonic clock. */
  loopBeatMs: 0,
  /**
   * Number of the model version that the inference thread computes now, negative while it loads it; 0 for
   * none.
   */
  runningInThread: 1,
  /** Queued requests. */
  queueDepth: 2,
  /** 99th percentile of the event loop lag in the last seconds. */
  loopLagSeconds: 3,
  /** Number of the model version that the event loop computes now, negative while it loads it; 0 for none. */
  runningOnLoop: 4,
} as const
export const PROCESS_CELL_COUNT = Object.keys(PROCESS_CELLS).length
