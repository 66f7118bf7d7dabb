/**
 * The circuit breaker of every model version: one that ends workers again and again is disabled, so that it costs
 * the other models a few workers and not all of them.
 *
 *   closed --3 failures in 5 minutes--> open --back-off--> half-open --nothing for a while--> closed
 *                                        ^                     |
 *                                        +--one more failure---+  (twice the back-off)
 *
 * Below the limit a model that crashed a worker waits until that worker is replaced: requests that come one after the
 * other would end every worker before the first is back.
 *
 * It decides and tells; it neither reaches workers nor measures time by itself.
 */
import { monotonicMs } from '../../src/metrics/series.js'
import { formatMs } from '../../src/units.js'

/** Failures that are this far apart are no series. */
export const WINDOW_MS = 5 * 60_000
export const LONGEST_BACKOFF_MS = 10 * 60_000
/** A model that is tried again must do well for this long, or for as long as it was disabled where that was longer. */
export const SHORTEST_TRIAL_MS = 60_000

/** What a model did to a worker. A crash is a fault of the process while its runtime loads or computes the model. */
export type FailureKind = 'crash' | 'stall'

export interface ModelVersion {
  readonly model: string
  readonly version: string
}

export interface ModelFault extends ModelVersion {
  readonly cause: FailureKind
  /** More about it: a signal, a duration. */
  readonly how?: string
}

export interface Disabled {
  readonly reason: string
  /** On the breaker's clock. */
  readonly untilMs: number
  /** Whether workers that start meanwhile load it: not where loading it may be what ends them. */
  readonly isLoaded: boolean
}

export interface BreakersOptions {
  /** So many failures within the window disable a model; 0 never. */
  readonly failureLimit: number
  /** How long a model is disabled first. */
  readonly firstBackoffMs: number
  readonly nowMs: () => number
  /** Does `work` once; the returned function makes it never. */
  readonly after: (delayMs: number, work: () => void) => () => void
  readonly onFailure: (model: ModelVersion, cause: FailureKind) => void
  /** Null: requests are let in again. */
  readonly onDisabled: (model: ModelVersion, disabled: Disabled | null) => void
  /** It was tried again and did well. */
  readonly onRecovered: (model: ModelVersion) => void
}

type State =
  | { readonly name: 'closed'; readonly failuresMs: readonly number[]; readonly held: Disabled | null }
  | { readonly name: 'open'; readonly backoffMs: number; readonly disabled: Disabled }
  | { readonly name: 'half-open'; readonly backoffMs: number }

interface Breaker {
  readonly model: ModelVersion
  state: State
  /** Workers that it crashed and that are not replaced yet. */
  unreplaced: number
  cancelTimer: () => void
}

const CLOSED: State = { name: 'closed', failuresMs: [], held: null }
/** About as long as a worker takes to start. */
const HELD_MS = 1000

/** The clock that every process of the machine reads, and timers that keep no process alive. */
export function timersOfProcess(): Pick<BreakersOptions, 'nowMs' | 'after'> {
  return {
    nowMs: monotonicMs,
    after: (delayMs, work) => {
      const timer = setTimeout(work, delayMs).unref()
      return () => clearTimeout(timer)
    },
  }
}

function keyOf({ model, version }: ModelVersion): string {
  return `${model}@${version}`
}

export class Breakers {
  readonly #options: BreakersOptions
  /** Those that had a failure which still counts. */
  readonly #breakers = new Map<string, Breaker>()

  constructor(options: BreakersOptions) {
    this.#options = options
  }

  /**
   * A model ended a worker (`crash`), or held one up for too long (`stall`). Returns whether a model that goes on like this
   * is disabled.
   */
  record({ model: name, version, cause, how }: ModelFault): boolean {
    const { failureLimit, firstBackoffMs, onFailure, nowMs } = this.#options
    const model = { model: name, version }
    const what = how === undefined ? cause : `${cause} (${how})`
    onFailure(model, cause)
    if (failureLimit === 0) return false
    const breaker = this.#breakerOf(model)
    const { state } = breaker
    if (cause === 'crash') breaker.unreplaced++
    // What was inside other workers when the model was disabled says nothing new.
    if (state.name === 'open') return true
    if (state.name === 'half-open') {
      this.#openAgain(breaker, state.backoffMs, `it was tried again and ended in a ${what}`)
      return true
    }
    const failuresMs = [...state.failuresMs.filter((atMs) => nowMs() - atMs < WINDOW_MS), nowMs()]
    if (failuresMs.length >= failureLimit) {
      const times = failuresMs.length === 1 ? 'once' : `${failuresMs.length} times`
      const why = `it crashed or stalled a worker ${times} within ${formatMs(WINDOW_MS)}, the last time in a ${what}`
      this.#open(breaker, { backoffMs: Math.min(firstBackoffMs, LONGEST_BACKOFF_MS), why })
      return true
    }
    const held = cause === 'crash' ? this.#hold(breaker, what) : state.held
    this.#move(breaker, { name: 'closed', failuresMs, held }, WINDOW_MS, () => this.reset(breaker.model))
    return true
  }

  #hold({ model }: Breaker, what: string): Disabled {
    const { nowMs, onDisabled } = this.#options
    const reason = `a worker that it ended in a ${what} is being replaced`
    const held = { reason, untilMs: nowMs() + HELD_MS, isLoaded: true }
    onDisabled(model, held)
    return held
  }

  /** A worker that the model crashed is replaced. */
  replaced(model: ModelVersion): void {
    const breaker = this.#breakers.get(keyOf(model))
    if (breaker === undefined) return
    breaker.unreplaced = Math.max(0, breaker.unreplaced - 1)
    const { state } = breaker
    if (breaker.unreplaced > 0 || state.name !== 'closed' || state.held === null) return
    breaker.state = { ...state, held: null }
    this.#options.onDisabled(breaker.model, null)
  }

  #breakerOf(model: ModelVersion): Breaker {
    const known = this.#breakers.get(keyOf(model))
    if (known !== undefined) return known
    const breaker: Breaker = { model, state: CLOSED, unreplaced: 0, cancelTimer: () => {} }
    this.#breakers.set(keyOf(model), breaker)
    return breaker
  }

  /** Each state has one way out that only time takes. */
  #move(breaker: Breaker, state: State, delayMs: number, onPassed: () => void): void {
    breaker.cancelTimer()
    breaker.state = state
    breaker.cancelTimer = this.#options.after(delayMs, onPassed)
  }

  #open(breaker: Breaker, { backoffMs, why }: { backoffMs: number; why: string }): void {
    const { nowMs, onDisabled } = this.#options
    const reason = `disabled for ${formatMs(backoffMs)}: ${why}`
    const disabled = { reason, untilMs: nowMs() + backoffMs, isLoaded: false }
    this.#move(breaker, { name: 'open', backoffMs, disabled }, backoffMs, () =>
      this.#tryAgain(breaker, backoffMs),
    )
    onDisabled(breaker.model, disabled)
  }

  #tryAgain(breaker: Breaker, backoffMs: number): void {
    const { onDisabled, onRecovered } = this.#options
    const trialMs = Math.max(SHORTEST_TRIAL_MS, backoffMs)
    this.#move(breaker, { name: 'half-open', backoffMs }, trialMs, () => {
      this.#forget(breaker)
      onRecovered(breaker.model)
    })
    onDisabled(breaker.model, null)
  }

  #openAgain(breaker: Breaker, backoffMs: number, why: string): void {
    this.#open(breaker, { backoffMs: Math.min(backoffMs * 2, LONGEST_BACKOFF_MS), why })
  }

  /** A model that was to be tried again could not be, for another reason than a failure of its own. */
  postpone(model: ModelVersion, why: string): void {
    const breaker = this.#breakers.get(keyOf(model))
    if (breaker?.state.name !== 'half-open') return
    this.#openAgain(
      breaker,
      breaker.state.backoffMs,
      `it was to be tried again and could not be loaded: ${why}`,
    )
  }

  #forget(breaker: Breaker): void {
    breaker.cancelTimer()
    this.#breakers.delete(keyOf(breaker.model))
  }

  /** Why the model is disabled; null where it is not. */
  disabled(model: ModelVersion): Disabled | null {
    const state = this.#breakers.get(keyOf(model))?.state
    if (state?.name === 'open') return state.disabled
    return state?.name === 'closed' ? state.held : null
  }

  /** The model was loaded anew, or is gone: what it did before counts no more. */
  reset(model: ModelVersion): void {
    const breaker = this.#breakers.get(keyOf(model))
    if (breaker === undefined) return
    const wasDisabled = this.disabled(model) !== null
    this.#forget(breaker)
    if (wasDisabled) this.#options.onDisabled(breaker.model, null)
  }

  close(): void {
    for (const breaker of [...this.#breakers.values()]) this.#forget(breaker)
  }
}
