/**
 * Learns the cost of an execution as a line over its tokens: a fixed part and a part for each token. Padding is worth
 * its cost as long as it costs less than a separate execution.
 */

/** Weight of earlier executions, applied at every new one: about the last fifty count. */
const MEMORY = 0.98
/** Share of a batch until enough executions are known. */
const FIRST_PADDING_SHARE = 0.2
const MAX_PADDING_SHARE = 0.5
const KNOWN_EXECUTIONS = 8

export class CostModel {
  #count = 0
  #weight = 0
  #tokens = 0
  #ns = 0
  #tokensSquared = 0
  #product = 0

  record(tokens: number, computeNs: number): void {
    this.#count++
    this.#weight = this.#weight * MEMORY + 1
    this.#tokens = this.#tokens * MEMORY + tokens
    this.#ns = this.#ns * MEMORY + computeNs
    this.#tokensSquared = this.#tokensSquared * MEMORY + tokens * tokens
    this.#product = this.#product * MEMORY + tokens * computeNs
  }

  /** Tokens that cost as much as the fixed part of an execution; null if too few executions are known. */
  #overheadTokens(): number | null {
    const spread = this.#weight * this.#tokensSquared - this.#tokens * this.#tokens
    if (this.#count < KNOWN_EXECUTIONS || spread <= 0) return null
    const nsPerToken = (this.#weight * this.#product - this.#tokens * this.#ns) / spread
    const overheadNs = (this.#ns - nsPerToken * this.#tokens) / this.#weight
    if (!(nsPerToken > 0)) return null
    return Math.max(0, overheadNs / nsPerToken)
  }

  /** Largest padding of a batch of this many tokens. */
  maxPaddingTokens(batchTokens: number): number {
    const overhead = this.#overheadTokens()
    if (overhead === null) return Math.floor(batchTokens * FIRST_PADDING_SHARE)
    return Math.floor(Math.min(overhead, batchTokens * MAX_PADDING_SHARE))
  }
}
