/**
 * Which model versions are out of service, as the primary says it to every worker: those that serve now, and those
 * that start later. Whoever takes a version out gives the reason as a code, and only the same code puts it back: a
 * version whose self-check failed does not come back because it has stopped crashing.
 */
import type { ErrorCode, OutOfService } from '../src/errors.js'
import type { Log } from '../src/log.js'
import type { StatsPageReference } from '../src/metrics/page.js'
import type { OutOfServiceMessage } from './messages.js'
import type { WorkerHandle } from './worker-handle.js'

export interface ServedVersion {
  readonly name: string
  readonly version: string
  /** Where its requests are counted. */
  readonly stats: StatsPageReference
}

export interface TakenOut {
  readonly name: string
  readonly version: string
  readonly state: OutOfService
  /** Whether workers load it all the same, so that it can be put back in one step. */
  readonly isLoaded: boolean
}

export interface ServiceStatesOptions {
  /** Workers that are alive and not on their way out, ready or booting. */
  readonly workers: () => readonly Pick<WorkerHandle, 'takeOut' | 'putBack'>[]
  readonly log: Log
}

function keyOf({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name}@${version}`
}

export class ServiceStates {
  readonly #options: ServiceStatesOptions
  readonly #out = new Map<string, OutOfServiceMessage & Pick<TakenOut, 'isLoaded'>>()

  constructor(options: ServiceStatesOptions) {
    this.#options = options
  }

  /** Returns false where it is out of service for another reason, which stays. */
  takeOut(
    { name, version, stats }: ServedVersion,
    state: OutOfService,
    { isLoaded }: Pick<TakenOut, 'isLoaded'>,
  ): boolean {
    const key = keyOf({ name, version })
    const known = this.#out.get(key)
    if (known !== undefined && known.state.code !== state.code) return false
    const message = { name, version, stats, state }
    this.#out.set(key, { ...message, isLoaded })
    for (const worker of this.#options.workers()) worker.takeOut(message)
    const { code, reason } = state
    this.#options.log.error({ model: name, version, code, reason }, 'the model is out of service')
    return true
  }

  /** Returns false where it is in service, or out of it for another reason than `code`. */
  putBack(model: { readonly name: string; readonly version: string }, code: ErrorCode): boolean {
    const key = keyOf(model)
    if (this.#out.get(key)?.state.code !== code) return false
    const { name, version } = model
    this.#out.delete(key)
    for (const worker of this.#options.workers()) worker.putBack({ name, version })
    this.#options.log.info({ model: name, version }, 'the model is in service again')
    return true
  }

  /** It is not served any more, under whatever state. */
  forget(model: { readonly name: string; readonly version: string }): void {
    const { name, version } = model
    if (!this.#out.delete(keyOf(model))) return
    for (const worker of this.#options.workers()) worker.putBack({ name, version })
  }

  stateOf(model: { readonly name: string; readonly version: string }): TakenOut | null {
    return this.#out.get(keyOf(model)) ?? null
  }

  get all(): readonly TakenOut[] {
    return [...this.#out.values()]
  }

  /** What a worker that starts now is told. */
  get messages(): OutOfServiceMessage[] {
    return [...this.#out.values()].map(({ name, version, stats, state }) => ({ name, version, stats, state }))
  }
}
