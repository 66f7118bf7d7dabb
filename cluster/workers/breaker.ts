/**
 * A circuit breaker for each model version. A version that repeatedly ends workers is disabled, so that other
 * models lose only a few workers.
 *
 *   closed --3 failures in 5 minutes--> open --back-off--> half-open --no failure--> closed
 *                                        ^                     |
 *                                        +-------failure-------+  (back-off doubles)
 *
 * Below the limit, a model that crashed a worker is suspended until the worker is replaced. Otherwise,
 * successive requests would end every worker before the first replacement is ready.
 *
 * The breaker only decides and notifies; the caller provides the clock, the timers and access to workers.
 */
import { monotonicMs } from '../../src/process/clock.js'
import { formatMs } from '../../src/units.js'

/** Failures further apart do not add up. */
export const WINDOW_MS = 5 * 60_000
export const LONGEST_BACKOFF_MS = 10 * 60_000
/** Duration of the half-open state: this long, or as long as the back-off if that was longer. */
export const SHORTEST_TRIAL_MS = 60_000

/** How a model failed. A crash is a fault of the process while its runtime loads or computes the model. */
export type FailureKind = 'crash' | 'stall'

export interface ModelVersion {
  readonly model: string
  readonly version: string
}

export interface ModelFault extends ModelVersion {
  readonly cause: FailureKind
  /** Detail: a signal or a duration. */
  readonly how?: string
}

export interface Disabled {
  readonly reason: string
  /** On the clock of the breaker. */
  readonly untilMs: number
  /** Whether new workers load the model. False where loading may be what crashes them. */
  readonly isLoaded: boolean
}

export interface BreakersOptions {
  /** This many failures within the window disable a model; 0 turns the breaker off. */
  readonly failureLimit: number
  /** The first back-off. */
  readonly firstBackoffMs: number
  readonly nowMs: () => number
  /** Runs `work` once after the delay; the returned function cancels it. */
  readonly after: (delayMs: number, work: () => void) => () => void
  readonly onFailure: (model: ModelVersion, cause: FailureKind) => void
  /** Null: the model accepts requests again. */
  readonly onDisabled: (model: ModelVersion, disabled: Disabled | null) => void
  /** The half-open state ended without a failure. */
  readonly onRecovered: (model: ModelVersion) => void
}

type State =
  | { readonly name: 'closed'; readonly failuresMs: readonly number[]; readonly suspended: Disabled | null }
  | { readonly name: 'open'; readonly backoffMs: number; readonly disabled: Disabled }
  | { readonly name: 'half-open'; readonly backoffMs: number }

interface Breaker {
  readonly model: ModelVersion
  state: State
  /** Workers that it crashed and that are not replaced yet. */
  unreplaced: number
  cancelTimer: () => void
}

const CLOSED: State = { name: 'closed', failuresMs: [], suspended: null }
/** About the boot time of a worker. */
const SUSPENSION_MS = 1000

/** The monotonic clock of the host, and timers that do not keep the process alive. */
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
  /** Models with a failure within the window, or not closed. */
  readonly #breakers = new Map<string, Breaker>()

  constructor(options: BreakersOptions) {
    this.#options = options
  }

  /** Records a failure. Returns whether repeated failures disable the model. */
  record({ model: name, version, cause, how }: ModelFault): boolean {
    const { failureLimit, firstBackoffMs, onFailure, nowMs } = this.#options
    const model = { model: name, version }
    const what = how === undefined ? cause : `${cause} (${how})`
    onFailure(model, cause)
    if (failureLimit === 0) return false
    const breaker = this.#breakerOf(model)
    const { state } = breaker
    if (cause === 'crash') breaker.unreplaced++
    // These requests were already in flight in other workers when the model was disabled.
    if (state.name === 'open') return true
    if (state.name === 'half-open') {
      this.#reopen(breaker, state.backoffMs, `the retry ended in a ${what}`)
      return true
    }
    const failuresMs = [...state.failuresMs.filter((atMs) => nowMs() - atMs < WINDOW_MS), nowMs()]
    if (failuresMs.length >= failureLimit) {
      const times = failuresMs.length === 1 ? 'once' : `${failuresMs.length} times`
      const why = `it crashed or stalled a worker ${times} within ${formatMs(WINDOW_MS)}, the last time in a ${what}`
      this.#open(breaker, { backoffMs: Math.min(firstBackoffMs, LONGEST_BACKOFF_MS), why })
      return true
    }
    const suspended = cause === 'crash' ? this.#suspend(breaker, what) : state.suspended
    this.#move(breaker, { name: 'closed', failuresMs, suspended }, WINDOW_MS, () => this.reset(breaker.model))
    return true
  }

  #suspend({ model }: Breaker, what: string): Disabled {
    const { nowMs, onDisabled } = this.#options
    const reason = `a worker is being replaced after a ${what}`
    const suspended = { reason, untilMs: nowMs() + SUSPENSION_MS, isLoaded: true }
    onDisabled(model, suspended)
    return suspended
  }

  /** A worker that the model crashed is replaced. */
  replaced(model: ModelVersion): void {
    const breaker = this.#breakers.get(keyOf(model))
    if (breaker === undefined) return
    breaker.unreplaced = Math.max(0, breaker.unreplaced - 1)
    const { state } = breaker
    if (breaker.unreplaced > 0 || state.name !== 'closed' || state.suspended === null) return
    breaker.state = { ...state, suspended: null }
    this.#options.onDisabled(breaker.model, null)
  }

  #breakerOf(model: ModelVersion): Breaker {
    const known = this.#breakers.get(keyOf(model))
    if (known !== undefined) return known
    const breaker: Breaker = { model, state: CLOSED, unreplaced: 0, cancelTimer: () => {} }
    this.#breakers.set(keyOf(model), breaker)
    return breaker
  }

  /** Every state has exactly one transition by timeout. */
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
      this.#halfOpen(breaker, backoffMs),
    )
    onDisabled(breaker.model, disabled)
  }

  #halfOpen(breaker: Breaker, backoffMs: number): void {
    const { onDisabled, onRecovered } = this.#options
    const trialMs = Math.max(SHORTEST_TRIAL_MS, backoffMs)
    this.#move(breaker, { name: 'half-open', backoffMs }, trialMs, () => {
      this.#forget(breaker)
      onRecovered(breaker.model)
    })
    onDisabled(breaker.model, null)
  }

  #reopen(breaker: Breaker, backoffMs: number, why: string): void {
    this.#open(breaker, { backoffMs: Math.min(backoffMs * 2, LONGEST_BACKOFF_MS), why })
  }

  /** The retry of a model failed for a reason other than a crash or a stall. */
  postpone(model: ModelVersion, why: string): void {
    const breaker = this.#breakers.get(keyOf(model))
    if (breaker?.state.name !== 'half-open') return
    this.#reopen(breaker, breaker.state.backoffMs, `the retry could not load it: ${why}`)
  }

  #forget(breaker: Breaker): void {
    breaker.cancelTimer()
    this.#breakers.delete(keyOf(breaker.model))
  }

  /** Why the model is disabled; null if it is not. */
  disabled(model: ModelVersion): Disabled | null {
    const state = this.#breakers.get(keyOf(model))?.state
    if (state?.name === 'open') return state.disabled
    return state?.name === 'closed' ? state.suspended : null
  }

  /** The model was reloaded or removed: its earlier failures no longer count. */
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
