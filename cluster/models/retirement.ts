/**
 * Retired generations, which get no new requests. Each stays in memory until its last request is answered and
 * every worker has unloaded it. Then its segment is removed, unless another generation uses it. No worker is
 * ended to speed this up.
 */
import { messageOf, OnecopyError } from '../../src/errors.js'
import { withDeadline } from '../../src/lifecycle.js'
import type { Log } from '../../src/log.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import { type Generation, generationKey as keyOf } from './generation.js'

export interface RetirementOptions {
  /** All live workers. Retiring ones still answer their requests in flight. */
  readonly allWorkers: () => readonly WorkerHandle[]
  /** The generations that serve. */
  readonly serving: () => readonly Generation[]
  /** How long a change waits for the retired generation to be unloaded. */
  readonly retireTimeoutMs: number
  /** A generation was unloaded after `retire` had stopped waiting for it. */
  readonly onLateUnload: (old: Generation) => void
  readonly log: Log
}

export class Retirement {
  readonly #options: RetirementOptions
  readonly #retiring = new Set<Generation>()
  #isClosed = false

  constructor(options: RetirementOptions) {
    this.#options = options
  }

  /** Number of retired generations of a model version in memory. */
  countOf({ name, version }: { readonly name: string; readonly version: string }): number {
    return [...this.#retiring].filter(({ source }) => source.name === name && source.version === version)
      .length
  }

  /**
   * Resolves with true when the generation is unloaded. After the timeout, logs it, resolves with false and
   * continues in the background. Workers have already switched to the next generation.
   */
  async retire(old: Generation): Promise<boolean> {
    const { log, retireTimeoutMs, onLateUnload } = this.#options
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
      'an earlier generation is kept: it still has requests in flight',
    )
    gone.then(
      () => {
        log.info(facts, 'the earlier generation is unloaded')
        onLateUnload(old)
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
    // A generation with another config may use the same segment.
    const isUsed = [...this.#options.serving(), ...this.#retiring].some(
      ({ segment }) => segment === old.segment,
    )
    if (!isUsed && !this.#isClosed) await old.segment.remove()
  }

  /** Does not remove the segments. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([...this.#retiring].map(({ segment }) => segment.close()))
  }
}
