/** Has workers load a generation that is served and that they started without. */
import { OnecopyError } from '../../src/errors.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import { type Generation, generationKey, messageOfGeneration } from './generation.js'

export interface LoadMissingOptions {
  readonly generation: Generation
  /** Workers that are alive and not on their way out, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** Whether there is any use in going on. */
  readonly isWanted: () => boolean
  readonly prepareTimeoutMs: number
}

/** Whether a worker ended while it was asked for something. */
function isEnded(thrown: unknown): boolean {
  return thrown instanceof OnecopyError && (thrown.code === 'WORKER_GONE' || thrown.code === 'MODEL_CRASHED')
}

/**
 * One worker after the other, so that a model that ends workers ends one. Resolves with true when every worker has it,
 * those that boot meanwhile too, with false when it is not wanted any more.
 * @throws OnecopyError why a worker cannot load it, or does not in time.
 */
export async function loadWhereMissing(options: LoadMissingOptions): Promise<boolean> {
  const { generation, workers, isWanted, prepareTimeoutMs } = options
  const key = generationKey(generation)
  const release = await generation.segment.lease()
  try {
    for (;;) {
      // Not the only one that answers: those that boot are waited for, and what becomes of them is handled elsewhere.
      await Promise.allSettled(workers().map(({ ready }) => ready))
      const worker = workers().find(({ holds }) => !holds.has(key))
      if (!isWanted()) return false
      if (worker === undefined) return true
      try {
        await worker.prepare(messageOfGeneration(generation), prepareTimeoutMs)
        await worker.change({ activate: [key], retire: [] }, prepareTimeoutMs)
      } catch (thrown) {
        // One that has ended is not among the workers any more.
        if (worker.isReady && !isEnded(thrown)) throw thrown
      }
    }
  } finally {
    release()
  }
}
