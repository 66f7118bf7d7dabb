/** The writing side of a stats page, used by a serving process. */
import { monotonicMs } from '../process/clock.js'
import { LoopLag } from './loop-lag.js'
import {
  BATCH_CELLS,
  batchCellAt,
  batchPlaceOf,
  HISTOGRAMS,
  type HistogramName,
  MODEL_CELLS,
  OUTCOMES,
  type Outcome,
  type Placement,
  PROCESS_CELL_COUNT,
  PROCESS_CELLS,
  REQUESTS,
  STATISTICS,
} from './series.js'

/**
 * Duration of an execution, in nanoseconds: until the runtime had its inputs, inside it, and until its
 * outputs arrived.
 */
export interface ExecutionTimes {
  readonly inputNs: number
  readonly inferNs: number
  /** CPU time of the process during `inferNs`, where it was measured; not counted. */
  readonly cpuNs?: number | undefined
  readonly outputNs: number
  readonly placement: Placement
}

/** Counts of one model version in one slot; in private memory without a slot. */
export class ModelRecorder {
  readonly #cells: Float64Array

  constructor(cells: Float64Array = new Float64Array(MODEL_CELLS)) {
    this.#cells = cells
  }

  #add(cell: number, value: number): void {
    this.#cells[cell] = (this.#cells[cell] as number) + value
  }

  /**
   * Call it before the response is sent: no client may see more responses than were counted.
   * `durationMs` is the time since handling began.
   */
  countRequest(outcome: Outcome, durationMs: number): void {
    this.#add(REQUESTS.at + OUTCOMES.indexOf(outcome), 1)
    this.#add(outcome === 'success' ? STATISTICS.successNs : STATISTICS.failNs, durationMs * 1e6)
  }

  /** A request was computed, alone or in a batch, in an execution with these times. */
  countComputed({ inputNs, inferNs, outputNs }: ExecutionTimes): void {
    this.#add(STATISTICS.computed, 1)
    this.#add(STATISTICS.inputNs, inputNs)
    this.#add(STATISTICS.inferNs, inferNs)
    this.#add(STATISTICS.outputNs, outputNs)
  }

  /** The runtime computed this number of rows in one execution. */
  countExecution(rows: number, { inputNs, inferNs, outputNs, placement }: ExecutionTimes): void {
    this.observe(placement === 'thread' ? 'computeInThread' : 'computeOnLoop', inferNs / 1e9)
    this.observe('batchSize', rows)
    const at = batchCellAt(batchPlaceOf(rows))
    this.#add(at + BATCH_CELLS.executions, 1)
    this.#add(at + BATCH_CELLS.inputNs, inputNs)
    this.#add(at + BATCH_CELLS.inferNs, inferNs)
    this.#add(at + BATCH_CELLS.outputNs, outputNs)
    this.#cells[STATISTICS.lastInferenceMs] = Date.now()
  }

  /** `value` in the histogram's unit: seconds, or rows. */
  observe(name: HistogramName, value: number): void {
    const { at, bounds } = HISTOGRAMS[name]
    let bucket = 0
    while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket++
    this.#add(at + bucket, 1)
    this.#add(at + bounds.length + 1, value)
  }
}

/** Where a thread that calls the runtime records the model that it is running. */
export type RunningModelCell = 'runningInThread' | 'runningOnLoop'

/**
 * The model that the runtime is running. The thread that calls the runtime records it: an event loop is
 * notified too late of the end of a call in another thread, and would attribute a crash to the previous
 * model.
 */
export class RunningModel {
  readonly #cells: Float64Array
  readonly #cell: number

  constructor(cells: Float64Array, cell: RunningModelCell) {
    this.#cells = cells
    this.#cell = PROCESS_CELLS[cell]
  }

  /** Records the number of the model version during `work`; 0 is none. */
  during<T>(
    { number, isLoading }: { readonly number: number; readonly isLoading: boolean },
    work: () => T,
  ): T {
    this.#cells[this.#cell] = isLoading ? -number : number
    try {
      return work()
    } finally {
      this.#cells[this.#cell] = 0
    }
  }
}

/** Reports the state of a process. */
export class ProcessRecorder {
  readonly #cells: Float64Array
  readonly #lag = new LoopLag()

  constructor(cells: Float64Array = new Float64Array(PROCESS_CELL_COUNT)) {
    this.#cells = cells
  }

  /** Call it regularly, from the event loop. */
  beat(queueDepth: number): void {
    this.#cells[PROCESS_CELLS.loopBeatMs] = monotonicMs()
    this.#cells[PROCESS_CELLS.queueDepth] = queueDepth
    this.#cells[PROCESS_CELLS.loopLagSeconds] = this.#lag.measure() / 1000
  }

  close(): void {
    this.#lag.close()
  }
}
