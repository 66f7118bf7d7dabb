/** Loads a served generation in workers that started without it. */
import { OnecopyError } from '../../src/errors.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import { type Generation, generationKey, messageOfGeneration } from './generation.js'

export interface LoadMissingOptions {
  readonly generation: Generation
  /** Live workers that are not retiring, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** Whether the load is still needed. */
  readonly isStillNeeded: () => boolean
  readonly prepareTimeoutMs: number
}

/** Whether the worker ended during the load. */
function isEnded(thrown: unknown): boolean {
  return thrown instanceof OnecopyError && (thrown.code === 'WORKER_GONE' || thrown.code === 'MODEL_CRASHED')
}

/**
 * Loads in one worker at a time, so that a crashing model ends at most one. Resolves with true when every
 * worker has loaded it, including those that boot meanwhile, and with false when it is no longer needed.
 * @throws OnecopyError if a worker fails to load it.
 */
export async function loadWhereMissing(options: LoadMissingOptions): Promise<boolean> {
  const { generation, workers, isStillNeeded, prepareTimeoutMs } = options
  const key = generationKey(generation)
  const release = await generation.segment.lease()
  try {
    for (;;) {
      // Waits for booting workers, so that the loading worker is not the only ready one. Boot failures are
      // handled elsewhere.
      await Promise.allSettled(workers().map(({ ready }) => ready))
      const worker = workers().find(({ holds }) => !holds.has(key))
      if (!isStillNeeded()) return false
      if (worker === undefined) return true
      try {
        await worker.prepare(messageOfGeneration(generation), prepareTimeoutMs)
        await worker.change({ activate: [key], retire: [] }, prepareTimeoutMs)
      } catch (thrown) {
        // A dead worker drops out of `workers()`.
        if (worker.isReady && !isEnded(thrown)) throw thrown
      }
    }
  } finally {
    release()
  }
}
