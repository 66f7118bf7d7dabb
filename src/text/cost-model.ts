/**
 * What an execution costs by its tokens, learnt as a line: a part for every execution and a part for every token. Padding
 * pays for itself as long as it costs less than an execution of its own would.
 */

/** Weight of what was seen before, at every execution: some fifty of them count. */
const MEMORY = 0.98
/** Until enough is known, and never more: half of a batch. */
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

  /** Tokens that take as long as what every execution takes besides; null where too little is known. */
  #overheadTokens(): number | null {
    const spread = this.#weight * this.#tokensSquared - this.#tokens * this.#tokens
    if (this.#count < KNOWN_EXECUTIONS || spread <= 0) return null
    const nsPerToken = (this.#weight * this.#product - this.#tokens * this.#ns) / spread
    const overheadNs = (this.#ns - nsPerToken * this.#tokens) / this.#weight
    if (!(nsPerToken > 0)) return null
    return Math.max(0, overheadNs / nsPerToken)
  }

  /** Padding that a batch of so many tokens may have. */
  maxPaddingTokens(batchTokens: number): number {
    const overhead = this.#overheadTokens()
    if (overhead === null) return Math.floor(batchTokens * FIRST_PADDING_SHARE)
    return Math.floor(Math.min(overhead, batchTokens * MAX_PADDING_SHARE))
  }
}
