/**
 * How many sequences of a length pay together, learnt from what executions take: a tuner for each class of lengths, as
 * models of tensors have one. Short sequences gain from company, because a kernel works on few places at a time; long
 * ones fill it alone, and together outgrow the caches.
 */
import { BatchTuner } from '../batch/tuner.js'

export interface BatchBounds {
  readonly maxRows: number
  /** Padding included. */
  readonly maxTokens: number
}

export class BatchSizes {
  readonly #bounds: BatchBounds
  /** By the logarithm of the length. */
  readonly #tuners: (BatchTuner | undefined)[] = []

  constructor(bounds: BatchBounds) {
    this.#bounds = bounds
  }

  #tunerOf(length: number): BatchTuner {
    const place = Math.floor(Math.log2(length))
    const known = this.#tuners[place]
    if (known !== undefined) return known
    const tuner = new BatchTuner(this.#bounds.maxRows)
    this.#tuners[place] = tuner
    return tuner
  }

  /** Takes in one execution. @param length Of its longest sequence. */
  record({ rows, length, computeNs }: { rows: number; length: number; computeNs: number }): void {
    this.#tunerOf(length).record(rows, computeNs)
  }

  /** Sequences to compute together next, at most, where the longest has this length. */
  maxRows(length: number): number {
    const byTokens = Math.floor(this.#bounds.maxTokens / length)
    return Math.max(1, Math.min(this.#tunerOf(length).limit, byTokens))
  }

  /** Whether so many more of a length are known to cost clearly less each, or not known yet. */
  isWorthWaiting({ length, fewer, more }: { length: number; fewer: number; more: number }): boolean {
    return this.#tunerOf(length).isWorthWaiting(fewer, more)
  }
}
