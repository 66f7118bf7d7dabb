/**
 * What serving takes of the memory that the control group allows. Shared memory counts towards its limit as soon as
 * it is written, so a server that is too large would be killed by the kernel in the middle of its start. In a swap
 * both generations count, in shared memory and in every worker, until the old one is gone.
 */
import { OnecopyError } from '../errors.js'
import type { SegmentHeader } from '../segment/layout.js'
import { formatBytes } from '../units.js'
import { leastPrivateBytes } from './needs.js'

/** What the processes take without any model, measured: a primary about 60 MB, a worker 50 to 63 MB. */
const PRIMARY_BYTES = 60e6
const WORKER_BYTES = 60e6

export interface MemoryBudgetOptions {
  /** Null is no limit. */
  readonly limitBytes: number | null
  readonly workers: number
}

interface Reserved {
  readonly segmentBytes: number
  /** In every worker. */
  readonly privateBytes: number
}

export class MemoryBudget {
  readonly #options: MemoryBudgetOptions
  readonly #reserved = new Map<string, Reserved>()

  constructor(options: MemoryBudgetOptions) {
    this.#options = options
  }

  /**
   * Takes a model version into account before its segment is written; again under the same key it counts once.
   * @throws OnecopyError MEMORY_LIMIT with the numbers; nothing is reserved then.
   */
  reserve(key: string, header: Pick<SegmentHeader, 'fileBytes' | 'needs' | 'sharing'>): void {
    const { limitBytes, workers } = this.#options
    const measuredBytes = header.needs.privateBytes
    const own: Reserved = {
      segmentBytes: header.fileBytes,
      privateBytes: measuredBytes ?? leastPrivateBytes(header),
    }
    const others = [...this.#reserved].filter(([other]) => other !== key).map(([, one]) => one)
    const othersBytes = others.reduce((sum, one) => sum + one.segmentBytes, 0)
    const segmentBytes = othersBytes + own.segmentBytes
    const privateBytes = others.reduce((sum, one) => sum + one.privateBytes, WORKER_BYTES + own.privateBytes)
    const neededBytes = PRIMARY_BYTES + segmentBytes + workers * privateBytes
    if (limitBytes !== null && neededBytes > limitBytes) {
      const how = measuredBytes === null ? 'at least' : 'measured'
      const before = othersBytes === 0 ? '' : `, beside ${formatBytes(othersBytes)} of segments before it`
      throw new OnecopyError(
        'MEMORY_LIMIT',
        `serving takes at least ${formatBytes(neededBytes)} (segments ${formatBytes(segmentBytes)}, ` +
          `${workers} workers of ${formatBytes(privateBytes)}, the primary ${formatBytes(PRIMARY_BYTES)}; this model ` +
          `${formatBytes(own.segmentBytes)} and ${formatBytes(own.privateBytes)} in each worker, ${how}${before}), ` +
          `the control group allows ${formatBytes(limitBytes)}: raise its memory limit or lower --workers`,
      )
    }
    this.#reserved.set(key, own)
  }

  /** What was taken into account is gone, from shared memory and from the workers. */
  release(key: string): void {
    this.#reserved.delete(key)
  }
}
