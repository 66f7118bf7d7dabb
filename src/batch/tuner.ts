/**
 * Finds out how many rows are worth computing together. Time per row is remembered by size, in powers of
 * two; the limit is the smallest size that is almost as good as the best, because a larger batch makes
 * its first request wait for its last. A convolution that gains nothing ends at 1, a small MLP at the
 * maximum. From time to time a full batch is let through, so that the limit follows what changes.
 */

/** A size is as good as the best when its rows take at most this much longer. */
const GOOD_ENOUGH = 1.05
/** A wait costs up to a tenth of a batch: rows must get cheaper by more than that. */
const WORTH_WAITING = 0.8
/** Weight of the newest measurement. */
const NEWEST = 0.2
/** Executions between two that ignore the limit. */
const EXPLORE_EVERY = 256

export class BatchTuner {
  readonly #maxRows: number
  /** Nanoseconds per row, by the logarithm of the size; undefined where nothing was measured. */
  readonly #nsPerRow: (number | undefined)[] = []
  #executions = 0

  constructor(maxRows: number) {
    this.#maxRows = maxRows
  }

  /** Takes in one execution. */
  record(rows: number, computeNs: number): void {
    this.#executions++
    const bucket = Math.floor(Math.log2(rows))
    const nsPerRow = computeNs / rows
    const known = this.#nsPerRow[bucket]
    this.#nsPerRow[bucket] = known === undefined ? nsPerRow : known + NEWEST * (nsPerRow - known)
  }

  /** Whether a batch of `more` rows is known to spend clearly less time per row than one of `fewer`, or not known yet. */
  isWorthWaiting(fewer: number, more: number): boolean {
    const [from, to] = [Math.floor(Math.log2(fewer)), Math.floor(Math.log2(more))]
    if (from === to) return false
    const [now, then] = [this.#nsPerRow[from], this.#nsPerRow[to]]
    return now === undefined || then === undefined || then <= now * WORTH_WAITING
  }

  /** Rows to compute together next, at most. */
  get limit(): number {
    if (this.#executions % EXPLORE_EVERY === EXPLORE_EVERY - 1) return this.#maxRows
    let best = Number.POSITIVE_INFINITY
    for (const nsPerRow of this.#nsPerRow) if (nsPerRow !== undefined && nsPerRow < best) best = nsPerRow
    const largest = this.#nsPerRow.length - 1
    for (let bucket = 0; bucket < largest; bucket++) {
      const nsPerRow = this.#nsPerRow[bucket]
      if (nsPerRow !== undefined && nsPerRow <= best * GOOD_ENOUGH)
        return Math.min(2 ** (bucket + 1) - 1, this.#maxRows)
    }
    return this.#maxRows
  }
}
