/**
 * Model versions that are out of service: in all current and future workers, or in single workers that failed
 * to load them.
 *
 * A version is taken out of service with a reason code, and only the same code puts it back. A version with a
 * failed self-check, for example, does not return when it stops crashing.
 */
import type { ModelState } from '../../src/api/schemas.js'
import { type ErrorCode, OnecopyError, type OutOfService } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import type { StatsPageReference } from '../../src/metrics/page.js'
import type { OutOfServiceMessage } from '../messages.js'
import type { WorkerHandle } from '../workers/worker-handle.js'

export interface VersionName {
  readonly name: string
  readonly version: string
}

export interface ServedVersion extends VersionName {
  /** Counts its requests. */
  readonly stats: StatsPageReference
}

export interface TakenOut extends VersionName {
  readonly state: OutOfService
  /** Whether workers still load it, so that it can return immediately. */
  readonly isLoaded: boolean
}

type ServingWorker = Pick<WorkerHandle, 'id' | 'isReady' | 'takeOut' | 'putBack'>

export interface ServiceStatesOptions<W extends ServingWorker> {
  /** Live workers that are not retiring, ready or booting. */
  readonly workers: () => readonly W[]
  readonly log: Log
}

function keyOf({ name, version }: VersionName): string {
  return `${name}@${version}`
}

export class ServiceStates<W extends ServingWorker = WorkerHandle> {
  readonly #options: ServiceStatesOptions<W>
  readonly #everywhere = new Map<string, OutOfServiceMessage & Pick<TakenOut, 'isLoaded'>>()
  readonly #inWorker = new WeakMap<W, Map<string, OutOfServiceMessage>>()

  constructor(options: ServiceStatesOptions<W>) {
    this.#options = options
  }

  /** Returns false if it is already out of service for another reason, which stays. */
  takeOut(
    { name, version, stats }: ServedVersion,
    state: OutOfService,
    { isLoaded }: Pick<TakenOut, 'isLoaded'>,
  ): boolean {
    const known = this.#everywhere.get(keyOf({ name, version }))
    if (known !== undefined && known.state.code !== state.code) return false
    this.#everywhere.set(keyOf({ name, version }), { name, version, stats, state, isLoaded })
    for (const worker of this.#options.workers()) this.#notify(worker, { name, version })
    const { code, reason } = state
    this.#options.log.error({ model: name, version, code, reason }, 'the model is out of service')
    return true
  }

  /** Returns false if it is in service, or out of service for a reason other than `code`. */
  putBack({ name, version }: VersionName, code: ErrorCode): boolean {
    const key = keyOf({ name, version })
    if (this.#everywhere.get(key)?.state.code !== code) return false
    this.#everywhere.delete(key)
    for (const worker of this.#options.workers()) this.#notify(worker, { name, version })
    this.#options.log.info({ model: name, version }, 'the model is in service again')
    return true
  }

  /** A single worker failed to load it. */
  takeOutOf(worker: W, { name, version, stats }: ServedVersion, state: OutOfService): void {
    const states = this.#inWorker.get(worker) ?? new Map<string, OutOfServiceMessage>()
    this.#inWorker.set(worker, states.set(keyOf({ name, version }), { name, version, stats, state }))
    this.#notify(worker, { name, version })
    const { code, reason } = state
    const facts = { worker: worker.id, model: name, version, code, reason }
    this.#options.log.error(facts, 'the model is out of service in a worker')
  }

  /** The worker has loaded it after all. */
  putBackInto(worker: W, { name, version }: VersionName): void {
    if (this.#inWorker.get(worker)?.delete(keyOf({ name, version })) !== true) return
    this.#notify(worker, { name, version })
    this.#options.log.info({ worker: worker.id, model: name, version }, 'the worker serves the model again')
  }

  /** The version is not served any more. */
  forget({ name, version }: VersionName): void {
    const key = keyOf({ name, version })
    const wasOut = this.#everywhere.delete(key)
    for (const worker of this.#options.workers()) {
      const wasOutOfIt = this.#inWorker.get(worker)?.delete(key) === true
      if (wasOut || wasOutOfIt) this.#notify(worker, { name, version })
    }
  }

  #notify(worker: W, { name, version }: VersionName): void {
    const key = keyOf({ name, version })
    const known = this.#everywhere.get(key) ?? this.#inWorker.get(worker)?.get(key)
    if (known === undefined) worker.putBack({ name, version })
    else worker.takeOut({ name, version, stats: known.stats, state: known.state })
  }

  /** Null unless it is out of service in all workers. */
  stateOf(model: VersionName): TakenOut | null {
    return this.#everywhere.get(keyOf(model)) ?? null
  }

  /** Number of ready workers in which it is out of service, and the reason in the first of them. */
  refusing(model: VersionName): { readonly workers: number; readonly state: OutOfService | null } {
    const ready = this.#options.workers().filter(({ isReady }) => isReady)
    const everywhere = this.stateOf(model)
    if (everywhere !== null) return { workers: ready.length, state: everywhere.state }
    const states = ready.flatMap((worker) => this.#inWorker.get(worker)?.get(keyOf(model))?.state ?? [])
    return { workers: states.length, state: states[0] ?? null }
  }

  /** Its state in the repository index; null if no worker refuses it. */
  describe(model: VersionName): { readonly state: ModelState; readonly reason: string } | null {
    const { workers, state } = this.refusing(model)
    if (state === null) return null
    const ready = this.#options.workers().filter(({ isReady }) => isReady).length
    const isEverywhere = workers >= ready
    const where = isEverywhere ? '' : ` in ${workers} of ${ready} workers`
    return {
      state: isEverywhere ? 'UNAVAILABLE' : 'READY',
      reason: `out of service${where} (${state.code}): ${state.reason}`,
    }
  }

  /** Versions that a new worker starts with out of service. */
  get messages(): OutOfServiceMessage[] {
    return [...this.#everywhere.values()].map(({ name, version, stats, state }) => ({
      ...{ name, version, stats, state },
    }))
  }
}

/**
 * Fails a start under fixed model control if any version is out of service. Workers that start later serve
 * without it.
 * @throws OnecopyError the reason why a version is not served.
 */
export function requireAllInService(
  outOfService: readonly (VersionName & { readonly state: OutOfService })[],
): void {
  const [first] = outOfService
  if (first === undefined) return
  const { name, version, state } = first
  throw new OnecopyError(state.code, `model ${name} version ${version}: ${state.reason}`)
}
