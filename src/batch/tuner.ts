/**
 * Finds the batch size that pays off. Time per row is recorded by size, in powers of two. The limit is the
 * smallest size that is almost as good as the best, because in a larger batch the first request waits for the
 * last. A convolution that gains nothing ends at 1, a small MLP at the maximum. Sizes are tried upwards, each
 * at most double a known one, so that a trial costs little. Now and then the next size up or down is tried
 * again, so that the limit follows changes in the load.
 */

/** A size is as good as the best if its rows take at most this much longer. */
const GOOD_ENOUGH = 1.05
/** A wait takes up to a tenth of a batch, so the saving per row must exceed that. */
const WORTH_WAITING = 0.8
/** Weight of the newest measurement. */
const NEWEST = 0.2
/** Executions between two that try another size: the next up and the next down, in turns. */
const EXPLORE_EVERY = 256

export class BatchTuner {
  readonly #maxRows: number
  /** Nanoseconds per row, by the logarithm of the size; undefined if not measured. */
  readonly #nsPerRow: (number | undefined)[] = []
  /** Sizes measured once. A first run allocates memory, so the second measurement replaces it. */
  readonly #new = new Set<number>()
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
    if (known === undefined) this.#new.add(bucket)
    const isSecond = known !== undefined && this.#new.delete(bucket)
    this.#nsPerRow[bucket] = known === undefined || isSecond ? nsPerRow : known + NEWEST * (nsPerRow - known)
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
    const bucket = this.#bestBucket()
    return Math.min(largestOf(bucket + this.#step(bucket)), this.#maxRows)
  }

  /** Offset of the next execution from the best size; not 0 if another size is tried. */
  #step(bucket: number): -1 | 0 | 1 {
    if (bucket === this.#nsPerRow.length - 1) return this.#new.has(bucket) ? 0 : 1
    if (this.#executions % EXPLORE_EVERY !== EXPLORE_EVERY - 1) return 0
    const isUp = bucket === 0 || Math.floor(this.#executions / EXPLORE_EVERY) % 2 === 0
    return isUp ? 1 : -1
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
