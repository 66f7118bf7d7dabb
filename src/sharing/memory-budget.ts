/**
 * The memory budget: what serving takes of the control group's limit. Shared memory counts towards
 * the limit once it is written, so the kernel would kill a server that is too large during startup.
 * During a swap both generations count, in shared memory and in every worker, until the old one is
 * removed.
 */
import { COMPILE_FACTORS } from '../compile/compile-memory.js'
import { OnecopyError } from '../errors.js'
import type { SegmentHeader } from '../segment/layout.js'
import { formatBytes } from '../units.js'
import { leastPrivateBytes, mostPrivateBytes } from './memory-requirements.js'

/**
 * Measured memory of the processes without a model: about 60 MB for a primary, 50 to 63 MB for a
 * worker.
 */
const PRIMARY_BYTES = 60e6
const WORKER_BYTES = 60e6

/** A key that no folder name can equal. */
const BESIDE_MODELS = '/'

/** Memory of one model version. */
export interface ModelMemory {
  /** Once per host. */
  readonly segmentBytes: number
  /** Per worker: measured, or the lower bound. */
  readonly privateBytes: number
}

export interface ServingMemory {
  readonly segmentBytes: number
  /** Per worker, including the memory without models. */
  readonly workerBytes: number
  readonly primaryBytes: number
  readonly totalBytes: number
}

/** A model version to be served. */
export interface Candidate extends Pick<SegmentHeader, 'fileBytes' | 'sharing'> {
  /** Measured memory per worker; null if not measured. */
  readonly privateBytes: number | null
}

export function modelMemory({ fileBytes, privateBytes, sharing }: Candidate): ModelMemory {
  return { segmentBytes: fileBytes, privateBytes: privateBytes ?? leastPrivateBytes({ sharing }) }
}

/** Minimum memory for serving these models with `workers` workers. */
export function servingMemory(models: readonly ModelMemory[], workers: number): ServingMemory {
  const segmentBytes = models.reduce((sum, one) => sum + one.segmentBytes, 0)
  const workerBytes = models.reduce((sum, one) => sum + one.privateBytes, WORKER_BYTES)
  const totalBytes = PRIMARY_BYTES + segmentBytes + workers * workerBytes
  return { segmentBytes, workerBytes, primaryBytes: PRIMARY_BYTES, totalBytes }
}

export interface MemoryBudgetOptions {
  /** Null: no limit. */
  readonly limitBytes: number | null
  readonly workers: number
}

export class MemoryBudget {
  readonly #options: MemoryBudgetOptions
  readonly #reserved = new Map<string, ModelMemory>()

  constructor(options: MemoryBudgetOptions) {
    this.#options = options
  }

  #others(key: string): ModelMemory[] {
    return [...this.#reserved].filter(([other]) => other !== key).map(([, one]) => one)
  }

  /**
   * Whether memory suffices for a model version even if every worker takes the upper bound for it.
   */
  hasRoomFor(key: string, { fileBytes, sharing }: Pick<SegmentHeader, 'fileBytes' | 'sharing'>): boolean {
    const { limitBytes, workers } = this.#options
    if (limitBytes === null) return true
    const own = { segmentBytes: fileBytes, privateBytes: mostPrivateBytes({ sharing }) }
    return servingMemory([...this.#others(key), own], workers).totalBytes <= limitBytes
  }

  /**
   * Whether memory suffices for workers without models while `models` models are compiled, the
   * first of `modelBytes`. The size of others is not known yet.
   */
  hasRoomToCompile(modelBytes: number, models: number): boolean {
    const { limitBytes, workers } = this.#options
    if (limitBytes === null) return true
    const { totalBytes } = servingMemory([...this.#reserved.values()], workers)
    return models === 1 && totalBytes + COMPILE_FACTORS.most * modelBytes <= limitBytes
  }

  /**
   * Reserves the memory of a model version before its segment is written; the same key counts once.
   * @throws OnecopyError MEMORY_LIMIT with the numbers; nothing is reserved then.
   */
  reserve(key: string, model: Candidate): void {
    const { limitBytes, workers } = this.#options
    const own = modelMemory(model)
    const others = this.#others(key)
    const { segmentBytes, workerBytes, primaryBytes, totalBytes } = servingMemory([...others, own], workers)
    if (limitBytes !== null && totalBytes > limitBytes) {
      const othersBytes = segmentBytes - own.segmentBytes
      const how = model.privateBytes === null ? 'at least' : 'measured'
      const before = othersBytes === 0 ? '' : `, in addition to ${formatBytes(othersBytes)} of other segments`
      throw new OnecopyError(
        'MEMORY_LIMIT',
        `serving takes at least ${formatBytes(totalBytes)} (segments ${formatBytes(segmentBytes)}, ` +
          `${workers} workers of ${formatBytes(workerBytes)}, the primary ${formatBytes(primaryBytes)}; this model ` +
          `${formatBytes(own.segmentBytes)} and ${formatBytes(own.privateBytes)} in each worker, ${how}${before}), ` +
          `but the control group allows only ${formatBytes(limitBytes)}: raise its memory limit or lower --workers`,
      )
    }
    this.#reserved.set(key, own)
  }

  /**
   * Reserves memory that every worker holds besides models. It is checked when the next model is
   * reserved.
   */
  reserveInWorkers(privateBytes: number): void {
    this.#reserved.set(BESIDE_MODELS, { segmentBytes: 0, privateBytes })
  }

  /** Releases a reservation, in shared memory and in the workers. */
  release(key: string): void {
    this.#reserved.delete(key)
  }
}
