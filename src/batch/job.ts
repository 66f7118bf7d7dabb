/** One inference on its way to the engine. */
import type { ExecutionTimes } from '../metrics/recorder.js'
import type { Placement } from '../metrics/series.js'
import type { Tensor } from '../tensor.js'
import type { TokenPooling } from '../token-pooling.js'

/** How much the outputs may take on the wire. */
export interface OutputLimit {
  readonly bytes: number
  /** By output: the least that one of its elements takes; 0 where it does not go into the answer. */
  readonly leastElementBytes: number[]
}

export interface Job {
  readonly modelKey: string
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  /** Without, outputs may be of any size. */
  readonly outputLimit?: OutputLimit
  /** What is kept of its outputs; such a job is not joined with others. */
  readonly pooling?: TokenPooling
  /** 1 is the highest; 0 means the default. */
  readonly priority?: number
  /** Longest time from now to the result, waiting included; null is no limit. */
  readonly timeoutMs?: number | null
  /** Whether nobody waits for the result any more. */
  readonly isCancelled?: () => boolean
}

export interface JobResult {
  readonly outputs: readonly Tensor[]
  readonly queueNs: number
  /** Of the execution it was computed in, alone or with others. */
  readonly times: ExecutionTimes
}

/** What the engine is asked to do at a time. */
export interface Execution {
  readonly modelKey: string
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  readonly outputLimit: OutputLimit | null
  readonly pooling: TokenPooling | null
  /** Whether the request is the only one that the server has, and no other client is connected. */
  readonly isAlone: boolean
}

/** The engine's `run`, passed in: this module does not import the engine. */
export type Run = (execution: Execution) => Promise<{
  readonly outputs: readonly Tensor[]
  /** When the runtime began, on the clock of process.hrtime. */
  readonly startedNs: number
  readonly computeNs: number
  readonly cpuNs?: number | undefined
  readonly placement: Placement
}>
