/**
 * Loads the served generations in new and running workers. A version that fails to load does not keep a
 * worker from serving the others.
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

/** Failures that mean that the content of the segment is not what was published. */
const CONTENT_MISMATCH_CODES: ReadonlySet<ErrorCode> = new Set(['SELF_CHECK_FAILED', 'SEGMENT_INVALID'])

/** A worker may end by coincidence during a load; two in a row indicate the model. */
const MAX_ENDED_WORKERS = 2
const READY_POLL_MS = 50

/** Failures that indicate a dying worker instead of the model. */
const WORKER_FAILURE_CODES: ReadonlySet<ErrorCode> = new Set(['WORKER_GONE', 'MODEL_CRASHED', 'TIMEOUT'])

function isWorkerGone(thrown: unknown): boolean {
  return thrown instanceof OnecopyError && thrown.code === 'WORKER_GONE'
}

export interface WorkerBootsOptions {
  readonly service: ServiceStates
  readonly loadable: () => readonly Generation[]
  /** Live workers that are not retiring, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** Runs changes of the served models one at a time. */
  readonly runExclusive: <T>(work: () => Promise<T>) => Promise<T>
  /** The content of a generation's segment is wrong. */
  readonly onContentMismatch: (generation: Generation, state: OutOfService) => void
  readonly prepareTimeoutMs: number
}

export class WorkerBoots {
  readonly #options: WorkerBootsOptions
  #isClosed = false
  /** Why a generation could not be leased at the last attempt, by its key. */
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
   * Provides the segments of a new worker once all are complete; they stay complete until the returned
   * function is called. A version whose segment cannot be completed is out of service in that worker.
   * @throws OnecopyError SEGMENT_SPACE if other workers serve a version that lacks memory: they continue
   * without the new worker.
   */
  async lease(take: (start: Pick<StartMessage, 'segments' | 'outOfService'>) => void): Promise<() => void> {
    const { service, loadable } = this.#options
    for (;;) {
      const generations = loadable()
      const { failures, release } = await leaseEach(generations.map(({ segment }) => segment))
      // The set of served generations changed meanwhile: start again.
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
   * A worker is ready. A version that it failed to load is out of service. Wrong content affects all workers,
   * because they map the same memory; any other failure affects only this worker, until a retry succeeds.
   */
  ready(worker: WorkerHandle): void {
    const { service, loadable, onContentMismatch } = this.#options
    for (const generation of loadable()) {
      const { facts } = generation
      if (worker.holds.has(facts.key)) continue
      const failure = worker.failed.get(facts.key)
      if (failure !== undefined && CONTENT_MISMATCH_CODES.has(failure.code))
        onContentMismatch(generation, failure)
      else {
        const state = failure ?? this.#unleased.get(facts.key)
        if (state !== undefined) service.takeOutOf(worker, facts, state)
        this.#lateLoads.start(worker, facts.key)
      }
    }
  }

  /** Loads a missing generation in a worker if it is still needed. */
  #loadLate(worker: WorkerHandle, key: string): Promise<void> {
    const { service, runExclusive, prepareTimeoutMs } = this.#options
    return runExclusive(async () => {
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
   * Loads a generation in every ready worker, first in a single one: a crashing model then ends only that
   * one.
   * @throws OnecopyError if it cannot be loaded; MODEL_CRASHED or WORKER_GONE if workers end during the load.
   */
  async prepareAll(next: Generation): Promise<void> {
    const { prepareTimeoutMs } = this.#options
    const message = messageOfGeneration(next)
    const first = this.#ready.length === 0 ? null : await this.#prepareFirst(next)
    const others = this.#ready.filter((worker) => worker !== first)
    const outcomes = await Promise.allSettled(
      others.map((worker) => worker.prepare(message, prepareTimeoutMs)),
    )
    // A worker that ended meanwhile does not count: others have loaded the generation.
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
        if (!isWorkerGone(thrown) || ++ended === MAX_ENDED_WORKERS) throw thrown
      }
    }
  }

  /** @throws OnecopyError WORKER_GONE if no worker becomes ready. */
  async #anyReady(): Promise<WorkerHandle> {
    const deadlineMs = performance.now() + this.#options.prepareTimeoutMs
    while (performance.now() < deadlineMs && !this.#isClosed) {
      const [worker] = this.#ready
      if (worker !== undefined) return worker
      await delay(READY_POLL_MS)
    }
    throw new OnecopyError('WORKER_GONE', 'no worker is ready to load the model')
  }

  /**
   * Loads a generation that was activated while the worker booted. If the load fails, the worker serves
   * without it.
   * @throws OnecopyError WORKER_GONE, MODEL_CRASHED, TIMEOUT.
   */
  async catchUp(worker: WorkerHandle, generation: Generation): Promise<void> {
    const { facts } = generation
    try {
      await worker.prepare(messageOfGeneration(generation), this.#options.prepareTimeoutMs)
      this.#options.service.putBackInto(worker, facts)
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError) || WORKER_FAILURE_CODES.has(thrown.code)) throw thrown
      this.#options.service.takeOutOf(worker, facts, outOfServiceBecauseOf(thrown))
      this.#lateLoads.start(worker, facts.key)
    }
  }

  /**
   * Puts a version back that is out of service because of `code`. Workers that started without it load it
   * first.
   * @throws OnecopyError if a worker fails to load it: it stays out of service.
   */
  async bringBack(model: VersionName, code: ErrorCode, serving: () => Generation | null): Promise<void> {
    const { service, workers, runExclusive, prepareTimeoutMs } = this.#options
    if (service.stateOf(model)?.isLoaded === true) {
      service.putBack(model, code)
      return
    }
    await runExclusive(async () => {
      const generation = serving()
      const out = service.stateOf(model)
      if (generation === null || out?.state.code !== code) return
      // If it ends a worker it is taken out of service again.
      const isStillNeeded = () => service.stateOf(model) === out
      if (await loadWhereMissing({ generation, workers, isStillNeeded, prepareTimeoutMs }))
        service.putBack(model, code)
    })
  }

  close(): void {
    this.#isClosed = true
    this.#lateLoads.close()
  }
}
