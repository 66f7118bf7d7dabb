/** One inference on its way to the engine. */
import type { ExecutionTimes } from '../metrics/recorder.js'
import type { Placement } from '../metrics/series.js'
import type { OutputLimit, Tensor } from '../tensor.js'
import type { TokenPooling } from '../token-pooling.js'

export interface Job {
  readonly modelKey: string
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  /** If absent, outputs may have any size. */
  readonly outputLimit?: OutputLimit | undefined
  /** What is kept of its outputs; such a job is not joined with others. */
  readonly pooling?: TokenPooling | undefined
  /** Whether the CPU time of its execution is wanted beside the wall time. */
  readonly measuresCpu?: boolean
  /** 1 is the highest; 0 means the default. */
  readonly priority?: number
  /** Time limit from now to the result, including the wait in the queue; null is no limit. */
  readonly timeoutMs?: number | null
  /** Whether the client has disconnected. */
  readonly isCancelled?: () => boolean
}

export interface JobResult {
  readonly outputs: readonly Tensor[]
  readonly queueNs: number
  /** Times of its execution, alone or in a batch. */
  readonly times: ExecutionTimes
}

/** One execution, as passed to the engine. */
export interface Execution {
  readonly modelKey: string
  readonly inputs: readonly Tensor[]
  /** Memory of the inputs. */
  readonly inputBytes: number
  readonly outputNames: readonly string[]
  readonly outputLimit: OutputLimit | null
  readonly pooling: TokenPooling | null
  readonly measuresCpu: boolean
  /** Whether the request is the only one in the server, and no other client is active. */
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

/** The combined output limit of a batch; none if one of its requests has no limit. */
export function jointLimit(jobs: readonly Job[]): OutputLimit | null {
  const limits = jobs.flatMap(({ outputLimit }) => outputLimit ?? [])
  const [first] = limits
  if (first === undefined || limits.length < jobs.length) return null
  return {
    bytes: limits.reduce((sum, { bytes }) => sum + bytes, 0),
    leastElementBytes: first.leastElementBytes.map((_, i) =>
      Math.min(...limits.map(({ leastElementBytes }) => leastElementBytes[i] ?? 0)),
    ),
  }
}
