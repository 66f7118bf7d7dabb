/**
 * Generations that answer nothing new. Each is kept until the last worker has unloaded it, which is when the last request
 * that began with it is answered; then its segment is removed, if no other generation is on it. How long that takes is up
 * to requests and clients: no worker is ever ended for it.
 */
import { messageOf, OnecopyError } from '../../src/errors.js'
import { withDeadline } from '../../src/lifecycle.js'
import type { Log } from '../../src/log.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import { type Generation, generationKey as keyOf } from './generation.js'

export interface RetirementOptions {
  /** Every worker that is alive, those on their way out too: they answer what they began. */
  readonly allWorkers: () => readonly WorkerHandle[]
  /** The generations that answer. */
  readonly serving: () => readonly Generation[]
  /** How long a change waits for what it retired. */
  readonly retireTimeoutMs: number
  /** One that nobody waited for any more is gone. */
  readonly onGoneLate: (old: Generation) => void
  readonly log: Log
}

export class Retirement {
  readonly #options: RetirementOptions
  readonly #retiring = new Set<Generation>()
  #isClosed = false

  constructor(options: RetirementOptions) {
    this.#options = options
  }

  /** How many generations of a model version are kept. */
  countOf({ name, version }: { readonly name: string; readonly version: string }): number {
    return [...this.#retiring].filter(({ source }) => source.name === name && source.version === version)
      .length
  }

  /**
   * Resolves with true when it is gone; one that takes longer is said, and goes without a wait. Workers were told before.
   */
  async retire(old: Generation): Promise<boolean> {
    const { log, retireTimeoutMs, onGoneLate } = this.#options
    const facts = { model: old.source.name, version: old.source.version, generation: keyOf(old) }
    this.#retiring.add(old)
    const gone = this.#remove(old)
    const isGone = await withDeadline(gone, retireTimeoutMs, `workers to unload ${keyOf(old)}`).then(
      () => true,
      (thrown) => {
        if (thrown instanceof OnecopyError && thrown.code === 'TIMEOUT') return false
        throw thrown
      },
    )
    if (isGone) return true
    log.warn(
      { ...facts, workers: this.#holdersOf(old).map(({ id }) => id) },
      'an earlier generation is kept: requests that began with it are not answered yet',
    )
    gone.then(
      () => {
        log.info(facts, 'the earlier generation is unloaded')
        onGoneLate(old)
      },
      (thrown) =>
        log.error({ ...facts, err: thrown }, `the earlier generation is kept: ${messageOf(thrown)}`),
    )
    return false
  }

  #holdersOf(old: Generation): WorkerHandle[] {
    return this.#options.allWorkers().filter(({ holds }) => holds.has(keyOf(old)))
  }

  async #remove(old: Generation): Promise<void> {
    await Promise.all(this.#holdersOf(old).map((worker) => worker.unloaded(keyOf(old))))
    this.#retiring.delete(old)
    // Under another config the same segment may serve on.
    const isUsed = [...this.#options.serving(), ...this.#retiring].some(
      ({ segment }) => segment === old.segment,
    )
    if (!isUsed && !this.#isClosed) await old.segment.remove()
  }

  /** Leaves the segments as they are. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([...this.#retiring].map(({ segment }) => segment.close()))
  }
}
