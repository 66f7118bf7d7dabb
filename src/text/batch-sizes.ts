/**
 * Learns from execution times how many sequences of a length a batch should have. Each class of lengths (powers of two)
 * has its own tuner. Short sequences are faster in batches, because one sequence has too few rows for an efficient
 * matrix product. A long sequence is efficient alone, and a batch of them exceeds the caches.
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

  /** Records one execution. @param length Tokens of its longest sequence. */
  record({ rows, length, computeNs }: { rows: number; length: number; computeNs: number }): void {
    this.#tunerOf(length).record(rows, computeNs)
  }

  /** Largest next batch whose longest sequence has this length. */
  maxRows(length: number): number {
    const byTokens = Math.floor(this.#bounds.maxTokens / length)
    return Math.max(1, Math.min(this.#tunerOf(length).limit, byTokens))
  }

  /** Whether a batch of `more` sequences costs clearly less for each than one of `fewer`, or is not measured yet. */
  isWorthWaiting({ length, fewer, more }: { length: number; fewer: number; more: number }): boolean {
    return this.#tunerOf(length).isWorthWaiting(fewer, more)
  }
}
