/**
 * Finds the batch size that pays off. Time per row is recorded by size, in powers of two. The limit is the
 * smallest size that is almost as good as the best, because in a larger batch the first request waits for the
 * last. A convolution that gains nothing ends at 1, a small MLP at the maximum. Sizes are tried upwards, each
 * at most double a known one, so that a trial costs little. Now and then the next size up is tried again, so
 * that the limit follows changes in the load.
 */

/** A size is as good as the best if its rows take at most this much longer. */
const GOOD_ENOUGH = 1.05
/** A wait takes up to a tenth of a batch, so the saving per row must exceed that. */
const WORTH_WAITING = 0.8
/** Weight of the newest measurement. */
const NEWEST = 0.2
/** Executions between two trials of the next size up. */
const EXPLORE_EVERY = 256

export class BatchTuner {
  readonly #maxRows: number
  /** Nanoseconds per row, by the logarithm of the size; undefined if not measured. */
  readonly #nsPerRow: (number | undefined)[] = []
  #executions = 0

  constructor(maxRows: number) {
    this.#maxRows = maxRows
  }

  /** Records one execution. */
  record(rows: number, computeNs: number): void {
    this.#executions++
    const bucket = Math.floor(Math.log2(rows))
    const nsPerRow = computeNs / rows
    const known = this.#nsPerRow[bucket]
    this.#nsPerRow[bucket] = known === undefined ? nsPerRow : known + NEWEST * (nsPerRow - known)
  }

  /** Whether a batch of `more` rows takes clearly less time per row than one of `fewer`, or is not known. */
  isWorthWaiting(fewer: number, more: number): boolean {
    const [from, to] = [Math.floor(Math.log2(fewer)), Math.floor(Math.log2(more))]
    if (from === to) return false
    const [now, then] = [this.#nsPerRow[from], this.#nsPerRow[to]]
    return now === undefined || then === undefined || then <= now * WORTH_WAITING
  }

  /** Maximum number of rows for the next batch. */
  get limit(): number {
    const isExploring = this.#executions % EXPLORE_EVERY === EXPLORE_EVERY - 1
    const bucket = this.#bestBucket()
    const isFrontier = bucket === this.#nsPerRow.length - 1
    return Math.min(largestOf(isFrontier || isExploring ? bucket + 1 : bucket), this.#maxRows)
  }

  /** Logarithm of the smallest size that is as good as the best; -1 if nothing was measured. */
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
