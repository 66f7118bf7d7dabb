/**
 * The cost of an execution of a model, estimated from earlier executions. It is recorded by the size of the
 * inputs, in powers of two of their bytes, which reflects rows, sequence lengths and image sizes.
 */

/** Measurements of a size before its cost counts as known. */
const ENOUGH = 3
/** Weight of the newest measurement. */
const NEWEST = 0.2

interface Measured {
  count: number
  meanNs: number
}

export class ExecutionCost {
  readonly #bySize: (Measured | undefined)[] = []

  record(inputBytes: number, computeNs: number): void {
    const bucket = bucketOf(inputBytes)
    const measured = this.#bySize[bucket]
    if (measured === undefined) this.#bySize[bucket] = { count: 1, meanNs: computeNs }
    else {
      measured.count++
      // The first run of a size allocates memory and faults pages in, so its weight decays quickly.
      const weight = measured.count === 2 ? 1 : Math.max(NEWEST, 1 / (measured.count - 1))
      measured.meanNs += weight * (computeNs - measured.meanNs)
    }
  }

  /** The cost of the cheapest measured size, in nanoseconds; null if nothing was measured. */
  get lowestNs(): number | null {
    let lowest: number | null = null
    for (const measured of this.#bySize)
      if (measured !== undefined && (lowest === null || measured.meanNs < lowest)) lowest = measured.meanNs
    return lowest
  }

  /** In nanoseconds; null if too little is known. The cost of a larger known size is an upper bound. */
  estimateNs(inputBytes: number): number | null {
    for (let bucket = bucketOf(inputBytes); bucket < this.#bySize.length; bucket++) {
      const measured = this.#bySize[bucket]
      if (measured !== undefined && measured.count >= ENOUGH) return measured.meanNs
    }
    return null
  }
}

function bucketOf(bytes: number): number {
  return bytes <= 1 ? 0 : Math.ceil(Math.log2(bytes))
}
