/**
 * How workers come to hold what is served, those that start and those that serve already: one version that does not
 * load keeps no worker from serving the others.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { type ErrorCode, OnecopyError, type OutOfService, outOfServiceBecauseOf } from '../../src/errors.js'
import type { StartMessage } from '../messages.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import { type Generation, generationKey, messageOfGeneration } from './generation.js'
import { LateLoads } from './late-loads.js'
import { leaseEach } from './live-segment.js'
import { loadWhereMissing } from './load-missing.js'
import type { ServiceStates, VersionName } from './service-states.js'

/** What a worker says when the content of a segment is not what was published. */
const DOUBTS: ReadonlySet<ErrorCode> = new Set(['SELF_CHECK_FAILED', 'SEGMENT_INVALID'])

/** One can end for a reason of its own while it loads a model; two in a row end because of the model. */
const MAX_ENDED_BY_A_LOAD = 2
const LOOK_FOR_WORKER_MS = 50

/** What says nothing about a model in this worker: the worker is gone, or about to be. */
const OF_WORKERS: ReadonlySet<ErrorCode> = new Set(['WORKER_GONE', 'MODEL_CRASHED', 'TIMEOUT'])

function isWorkerGone(thrown: unknown): boolean {
  return thrown instanceof OnecopyError && thrown.code === 'WORKER_GONE'
}

export interface WorkerBootsOptions {
  readonly service: ServiceStates
  readonly loadable: () => readonly Generation[]
  /** Workers that are alive and not on their way out, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** Changes of what is served are made one at a time. */
  readonly inTurn: <T>(work: () => Promise<T>) => Promise<T>
  /** The content of a generation's segment is in doubt. */
  readonly onDoubt: (generation: Generation, state: OutOfService) => void
  readonly prepareTimeoutMs: number
}

export class WorkerBoots {
  readonly #options: WorkerBootsOptions
  #isClosed = false
  /** Why there was no lease of a generation when one was last asked for, by its key. */
  readonly #unleased = new Map<string, OutOfService>()
  readonly #lateLoads = new LateLoads<WorkerHandle>({
    load: (worker, key) => this.#loadLate(worker, key),
    onFailed: (worker, key, state) => {
      const generation = this.#loadable(key)
      if (generation !== undefined) this.#options.service.takeOutOf(worker, generation.facts, state)
    },
  })

  constructor(options: WorkerBootsOptions) {
    this.#options = options
  }

  get #ready(): WorkerHandle[] {
    return this.#options.workers().filter(({ isReady }) => isReady)
  }

  #loadable(key: string): Generation | undefined {
    return this.#options.loadable().find((one) => generationKey(one) === key)
  }

  /**
   * Says what a worker that starts now is to serve, when all of it is whole; it stays so until the returned function is
   * called. A version whose segment cannot be made whole is out of service in that worker.
   * @throws OnecopyError SEGMENT_SPACE where other workers serve what there is no room for: better they alone.
   */
  async lease(take: (start: Pick<StartMessage, 'segments' | 'outOfService'>) => void): Promise<() => void> {
    const { service, loadable } = this.#options
    for (;;) {
      const generations = loadable()
      const { failures, release } = await leaseEach(generations.map(({ segment }) => segment))
      // What is not served any more cannot be, and need not be, made whole.
      if (!isDeepStrictEqual(generations.map(generationKey), loadable().map(generationKey))) {
        release()
        continue
      }
      const outOfService = service.messages
      for (const [i, { facts }] of generations.entries()) {
        const failure = failures[i] ?? null
        this.#unleased.delete(facts.key)
        if (failure === null) continue
        if (failure.code === 'SEGMENT_SPACE' && this.#ready.some(({ serves }) => serves.has(facts.key))) {
          release()
          throw failure
        }
        const { name, version, stats } = facts
        const state = outOfServiceBecauseOf(failure)
        this.#unleased.set(facts.key, state)
        outOfService.push({ name, version, stats, state })
      }
      const segments = generations.filter((_, i) => failures[i] === null).map(messageOfGeneration)
      take({ segments, outOfService })
      return release
    }
  }

  /**
   * A worker serves. What it was to load and could not is out of service: everywhere, where the content is in doubt,
   * because all workers have the same memory mapped; in that worker otherwise, until it has loaded it after all.
   */
  ready(worker: WorkerHandle): void {
    const { service, loadable, onDoubt } = this.#options
    for (const generation of loadable()) {
      const { facts } = generation
      if (worker.holds.has(facts.key)) continue
      const failure = worker.failed.get(facts.key)
      if (failure !== undefined && DOUBTS.has(failure.code)) onDoubt(generation, failure)
      else {
        const state = failure ?? this.#unleased.get(facts.key)
        if (state !== undefined) service.takeOutOf(worker, facts, state)
        this.#lateLoads.begin(worker, facts.key)
      }
    }
  }

  /** Has a worker load what it lacks, if there is any use in it still. */
  #loadLate(worker: WorkerHandle, key: string): Promise<void> {
    const { service, inTurn, prepareTimeoutMs } = this.#options
    return inTurn(async () => {
      const generation = this.#loadable(key)
      if (generation === undefined || !this.#ready.includes(worker) || worker.serves.has(key)) return
      const release = await generation.segment.lease()
      try {
        await worker.prepare(messageOfGeneration(generation), prepareTimeoutMs)
        await worker.change({ activate: [key], retire: [] }, prepareTimeoutMs)
      } finally {
        release()
      }
      service.putBackInto(worker, generation.facts)
    })
  }

  /**
   * Has every ready worker load a generation, one of them first: a model that ends whoever loads it does not end all.
   * @throws OnecopyError why it cannot be loaded, MODEL_CRASHED and WORKER_GONE where workers end over it.
   */
  async prepareAll(next: Generation): Promise<void> {
    const { prepareTimeoutMs } = this.#options
    const message = messageOfGeneration(next)
    const first = this.#ready.length === 0 ? null : await this.#prepareFirst(next)
    const others = this.#ready.filter((worker) => worker !== first)
    const outcomes = await Promise.allSettled(
      others.map((worker) => worker.prepare(message, prepareTimeoutMs)),
    )
    // A worker that ends meanwhile is no reason not to go on: another one has it.
    for (const outcome of outcomes)
      if (outcome.status === 'rejected' && !isWorkerGone(outcome.reason)) throw outcome.reason
  }

  async #prepareFirst(next: Generation): Promise<WorkerHandle> {
    const { prepareTimeoutMs } = this.#options
    for (let ended = 0; ; ) {
      const worker = await this.#anyReady()
      try {
        await worker.prepare(messageOfGeneration(next), prepareTimeoutMs)
        return worker
      } catch (thrown) {
        if (!isWorkerGone(thrown) || ++ended === MAX_ENDED_BY_A_LOAD) throw thrown
      }
    }
  }

  /** @throws OnecopyError WORKER_GONE where no worker becomes ready. */
  async #anyReady(): Promise<WorkerHandle> {
    const deadlineMs = performance.now() + this.#options.prepareTimeoutMs
    while (performance.now() < deadlineMs && !this.#isClosed) {
      const [worker] = this.#ready
      if (worker !== undefined) return worker
      await delay(LOOK_FOR_WORKER_MS)
    }
    throw new OnecopyError('WORKER_GONE', 'no worker is ready to load the model')
  }

  /**
   * Has a worker load what began to be served while it booted; where it cannot, it serves what it has.
   * @throws OnecopyError WORKER_GONE, MODEL_CRASHED, TIMEOUT.
   */
  async catchUp(worker: WorkerHandle, generation: Generation): Promise<void> {
    const { facts } = generation
    try {
      await worker.prepare(messageOfGeneration(generation), this.#options.prepareTimeoutMs)
      this.#options.service.putBackInto(worker, facts)
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError) || OF_WORKERS.has(thrown.code)) throw thrown
      this.#options.service.takeOutOf(worker, facts, outOfServiceBecauseOf(thrown))
      this.#lateLoads.begin(worker, facts.key)
    }
  }

  /**
   * Puts a version back that is out of service because of `code`. Where workers did not load it meanwhile, those that
   * started without it load it first.
   * @throws OnecopyError why a worker cannot load it: it stays out of service.
   */
  async bringBack(model: VersionName, code: ErrorCode, serving: () => Generation | null): Promise<void> {
    const { service, workers, inTurn, prepareTimeoutMs } = this.#options
    if (service.stateOf(model)?.isLoaded === true) {
      service.putBack(model, code)
      return
    }
    await inTurn(async () => {
      const generation = serving()
      const out = service.stateOf(model)
      if (generation === null || out?.state.code !== code) return
      // Where it ended a worker it was taken out anew.
      const isWanted = () => service.stateOf(model) === out
      if (await loadWhereMissing({ generation, workers, isWanted, prepareTimeoutMs }))
        service.putBack(model, code)
    })
  }

  close(): void {
    this.#isClosed = true
    this.#lateLoads.close()
  }
}
