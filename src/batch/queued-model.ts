/** A model in the batcher: its policy, its queue, and what is known of its executions. */
import { monotonicNs } from '../process/clock.js'
import { ModelQueue, type QueueLimits } from './admission.js'
import { BatchTuner } from './tuner.js'

export interface BatchingPolicy {
  /** Whether rows of different requests may be computed together. */
  readonly isBatchable: boolean
  /**
   * Optional inputs. A request that sends one is computed alone: only the default is known to be
   * safe.
   */
  readonly optionalInputs?: ReadonlySet<string>
  readonly maxBatchSize: number
  /** Preferred sizes, if enough rows wait; ascending. */
  readonly preferredBatchSizes: readonly number[]
  /** How long the oldest request may wait for others while the thread is idle; 0 is no wait. */
  readonly maxQueueDelayMs: number
  readonly queue: QueueLimits
}

export class QueuedModel {
  readonly modelKey: string
  readonly policy: BatchingPolicy
  readonly queue: ModelQueue
  readonly tuner: BatchTuner
  isBatchable: boolean
  /** Compute time of this model so far, in nanoseconds, on the clock of the fair queue. */
  virtualNs = 0
  lastComputeNs = 0

  constructor(modelKey: string, policy: BatchingPolicy) {
    this.modelKey = modelKey
    this.policy = policy
    this.queue = new ModelQueue(policy.queue)
    this.tuner = new BatchTuner(policy.maxBatchSize)
    this.isBatchable = policy.isBatchable && policy.maxBatchSize > 1
  }

  /**
   * How much longer the head waits for others, in milliseconds; 0 unless the model's config sets a
   * delay.
   */
  companyWaitMs(): number {
    const { policy, queue } = this
    const { head } = queue
    if (policy.maxQueueDelayMs === 0 || !this.isBatchable || head === undefined || head.rows === null)
      return 0
    const wanted = policy.preferredBatchSizes[0] ?? policy.maxBatchSize
    if (queue.compatibleRows() >= wanted) return 0
    const waitedMs = (monotonicNs() - head.enteredNs) / 1e6
    return Math.max(0, Math.ceil(policy.maxQueueDelayMs - waitedMs))
  }

  /** The most rows of the next batch. */
  batchRows(): number {
    const { preferredBatchSizes: preferred, maxBatchSize } = this.policy
    if (preferred.length === 0) return this.tuner.limit
    const waiting = this.queue.compatibleRows()
    return preferred.findLast((size) => size <= waiting) ?? maxBatchSize
  }
}
