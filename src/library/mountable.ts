/** An attached model as front ends of this package see it. */
import type { JobResult } from '../batch/job.js'
import type { ExecutionTimes } from '../metrics/recorder.js'
import type { SegmentHeader } from '../segment/layout.js'
import type { OutputLimit, Tensor, TensorSpec } from '../tensor.js'
import type { Offer } from './messages.js'

export interface TensorRun {
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  readonly outputLimit?: OutputLimit
  readonly priority?: number
  readonly timeoutMs?: number | null
  readonly isCancelled?: () => boolean
}

/** The generation that answers now. */
export interface Description {
  readonly offer: Offer
  readonly header: SegmentHeader
  readonly threads: number
  readonly maxQueue: number
}

export interface Mountable {
  readonly isClosed: boolean
  /** The model's name at its owner. */
  readonly servedName: string
  readonly version: string
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Memory that all processes share for it. */
  readonly sharedBytes: number
  describe(): Description
  /** Runs checked tensors, which are taken over. */
  runTensors(run: TensorRun): Promise<JobResult>
  /** @throws OnecopyError QUEUE_FULL, REQUEST_TOO_LARGE, SHUTTING_DOWN. */
  checkCapacity(inputBytes: number): void
  onExecution(listener: (rows: number, times: ExecutionTimes) => void): void
}
