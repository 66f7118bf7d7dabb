/**
 * Finds out how many rows are worth computing together. Time per row is remembered by size, in powers of
 * two; the limit is the smallest size that is almost as good as the best, because a larger batch makes
 * its first request wait for its last. A convolution that gains nothing ends at 1, a small MLP at the
 * maximum. Sizes are tried upwards, each at most the double of one that is known, so that trying costs
 * little; from time to time the next size up is tried again, so that the limit follows what changes.
 */

/** A size is as good as the best when its rows take at most this much longer. */
const GOOD_ENOUGH = 1.05
/** A wait costs up to a tenth of a batch: rows must get cheaper by more than that. */
const WORTH_WAITING = 0.8
/** Weight of the newest measurement. */
const NEWEST = 0.2
/** Executions between two that try the next size up. */
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
    const isExploring = this.#executions % EXPLORE_EVERY === EXPLORE_EVERY - 1
    const bucket = this.#bestBucket()
    const isFrontier = bucket === this.#nsPerRow.length - 1
    return Math.min(largestOf(isFrontier || isExploring ? bucket + 1 : bucket), this.#maxRows)
  }

  /** The smallest size that is as good as the best, by its logarithm; -1 where nothing was measured. */
  #bestBucket(): number {
    let best = Number.POSITIVE_INFINITY
    for (const nsPerRow of this.#nsPerRow) if (nsPerRow !== undefined && nsPerRow < best) best = nsPerRow
    return this.#nsPerRow.findIndex((nsPerRow) => nsPerRow !== undefined && nsPerRow <= best * GOOD_ENOUGH)
  }
}

/** The most rows that have this logarithm, rounded down. */
function largestOf(bucket: number): number {
  return 2 ** (bucket + 1) - 1
}
