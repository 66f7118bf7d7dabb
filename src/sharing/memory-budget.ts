/**
 * What serving takes of the memory that the control group allows. Shared memory counts towards its limit as soon as
 * it is written, so a server that is too large would be killed by the kernel in the middle of its start. In a swap
 * both generations count, in shared memory and in every worker, until the old one is gone.
 */
import { OnecopyError } from '../errors.js'
import type { SegmentHeader } from '../segment/layout.js'
import { formatBytes } from '../units.js'
import { leastPrivateBytes } from './memory-requirements.js'

/** What the processes take without any model, measured: a primary about 60 MB, a worker 50 to 63 MB. */
const PRIMARY_BYTES = 60e6
const WORKER_BYTES = 60e6

/** No name of a folder. */
const BESIDE_MODELS = '/'

/** What a model version takes, whoever holds it. */
export interface ModelMemory {
  /** Once a host. */
  readonly segmentBytes: number
  /** In every worker: as measured, or at least. */
  readonly privateBytes: number
}

export interface ServingMemory {
  readonly segmentBytes: number
  /** Of one worker, with what every worker takes. */
  readonly workerBytes: number
  readonly primaryBytes: number
  readonly totalBytes: number
}

export function modelMemory({
  fileBytes,
  memoryRequirements,
  sharing,
}: Pick<SegmentHeader, 'fileBytes' | 'memoryRequirements' | 'sharing'>): ModelMemory {
  return {
    segmentBytes: fileBytes,
    privateBytes: memoryRequirements.privateBytes ?? leastPrivateBytes({ sharing }),
  }
}

/** What serving these takes at least, in so many workers. */
export function servingMemory(models: readonly ModelMemory[], workers: number): ServingMemory {
  const segmentBytes = models.reduce((sum, one) => sum + one.segmentBytes, 0)
  const workerBytes = models.reduce((sum, one) => sum + one.privateBytes, WORKER_BYTES)
  const totalBytes = PRIMARY_BYTES + segmentBytes + workers * workerBytes
  return { segmentBytes, workerBytes, primaryBytes: PRIMARY_BYTES, totalBytes }
}

export interface MemoryBudgetOptions {
  /** Null is no limit. */
  readonly limitBytes: number | null
  readonly workers: number
}

export class MemoryBudget {
  readonly #options: MemoryBudgetOptions
  readonly #reserved = new Map<string, ModelMemory>()

  constructor(options: MemoryBudgetOptions) {
    this.#options = options
  }

  /**
   * Takes a model version into account before its segment is written; again under the same key it counts once.
   * @throws OnecopyError MEMORY_LIMIT with the numbers; nothing is reserved then.
   */
  reserve(key: string, header: Pick<SegmentHeader, 'fileBytes' | 'memoryRequirements' | 'sharing'>): void {
    const { limitBytes, workers } = this.#options
    const own = modelMemory(header)
    const others = [...this.#reserved].filter(([other]) => other !== key).map(([, one]) => one)
    const { segmentBytes, workerBytes, primaryBytes, totalBytes } = servingMemory([...others, own], workers)
    if (limitBytes !== null && totalBytes > limitBytes) {
      const othersBytes = segmentBytes - own.segmentBytes
      const how = header.memoryRequirements.privateBytes === null ? 'at least' : 'measured'
      const before = othersBytes === 0 ? '' : `, beside ${formatBytes(othersBytes)} of segments before it`
      throw new OnecopyError(
        'MEMORY_LIMIT',
        `serving takes at least ${formatBytes(totalBytes)} (segments ${formatBytes(segmentBytes)}, ` +
          `${workers} workers of ${formatBytes(workerBytes)}, the primary ${formatBytes(primaryBytes)}; this model ` +
          `${formatBytes(own.segmentBytes)} and ${formatBytes(own.privateBytes)} in each worker, ${how}${before}), ` +
          `the control group allows ${formatBytes(limitBytes)}: raise its memory limit or lower --workers`,
      )
    }
    this.#reserved.set(key, own)
  }

  /** Takes into account what every worker holds beside models; it shows when the first model is reserved. */
  reserveInWorkers(privateBytes: number): void {
    this.#reserved.set(BESIDE_MODELS, { segmentBytes: 0, privateBytes })
  }

  /** What was taken into account is gone, from shared memory and from the workers. */
  release(key: string): void {
    this.#reserved.delete(key)
  }
}
