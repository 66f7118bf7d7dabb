/** After a hundred failures in a row nothing is tried for a while: then one request finds out whether it works again. */
import { OnecopyError } from '../errors.js'

/** As ersilia-pack has them. */
const FAILURES = 100
const RESET_MS = 60_000

export interface BreakerState {
  readonly state: 'closed' | 'open' | 'half-open'
  readonly failures: number
  /** Seconds since 1970; null if there was none. */
  readonly lastFailure: number | null
  readonly resetTimeoutSeconds: number
  readonly nextReset: number | null
}

export class Breaker {
  readonly #resetMs: number
  readonly #nowMs: () => number
  #failures = 0
  #lastFailureMs: number | null = null
  #isTrying = false

  constructor({ resetMs = RESET_MS, nowMs = Date.now }: { resetMs?: number; nowMs?: () => number } = {}) {
    this.#resetMs = resetMs
    this.#nowMs = nowMs
  }

  get #resetAtMs(): number | null {
    return this.#failures < FAILURES ? null : (this.#lastFailureMs ?? 0) + this.#resetMs
  }

  get state(): BreakerState {
    const resetAtMs = this.#resetAtMs
    return {
      state: resetAtMs === null ? 'closed' : this.#nowMs() < resetAtMs ? 'open' : 'half-open',
      failures: this.#failures,
      lastFailure: this.#lastFailureMs === null ? null : this.#lastFailureMs / 1000,
      resetTimeoutSeconds: this.#resetMs / 1000,
      nextReset: resetAtMs === null ? null : resetAtMs / 1000,
    }
  }

  /**
   * Runs `work` unless the breaker is open. Only failures of the model count, not client errors or a full
   * queue.
   * @throws OnecopyError BREAKER_OPEN, and errors of `work`.
   */
  async through<T>(work: () => Promise<T>): Promise<T> {
    const { state, nextReset } = this.state
    if (state === 'open' || (state === 'half-open' && this.#isTrying)) {
      const waitMs = Math.max(1000, (nextReset ?? 0) * 1000 - this.#nowMs())
      throw new OnecopyError('BREAKER_OPEN', `the last ${this.#failures} runs failed`, {
        retryAfterSeconds: Math.ceil(waitMs / 1000),
      })
    }
    this.#isTrying = state === 'half-open'
    try {
      const result = await work()
      this.#failures = 0
      return result
    } catch (thrown) {
      if (isFailure(thrown)) {
        this.#failures++
        this.#lastFailureMs = this.#nowMs()
      }
      throw thrown
    } finally {
      this.#isTrying = false
    }
  }
}

function isFailure(thrown: unknown): boolean {
  if (!(thrown instanceof OnecopyError)) return true
  return thrown.status >= 500 && thrown.status !== 503
}
