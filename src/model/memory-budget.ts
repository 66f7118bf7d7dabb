/**
 * What serving takes of the memory that the control group allows. Shared memory counts towards its limit as soon as
 * it is written, so a server that is too large would be killed by the kernel in the middle of its start.
 */
import { OnecopyError } from '../errors.js'
import type { Sharing } from '../segment/layout.js'
import { formatBytes } from '../units.js'

/** What the processes take without any model, measured: a primary about 60 MB, a worker 50 to 63 MB. */
const PRIMARY_BYTES = 60e6
const WORKER_BYTES = 60e6

export interface MemoryBudgetOptions {
  /** Null is no limit. */
  readonly limitBytes: number | null
  readonly workers: number
}

interface Need {
  readonly segmentBytes: number
  /** At least: what a kernel packs for itself, and weights that only the graph holds. */
  readonly privateBytes: number
}

export class MemoryBudget {
  readonly #options: MemoryBudgetOptions
  readonly #reserved = new Map<string, Need>()

  constructor(options: MemoryBudgetOptions) {
    this.#options = options
  }

  /**
   * Takes a model version into account before its segment is written; again under the same key it counts once.
   * @throws OnecopyError MEMORY_LIMIT with the numbers; nothing is reserved then.
   */
  reserve(
    key: string,
    { fileBytes, sharing }: { readonly fileBytes: number; readonly sharing: Sharing },
  ): void {
    const { limitBytes, workers } = this.#options
    const need = {
      segmentBytes: fileBytes,
      privateBytes: sharing.privatelyPackedBytes + sharing.unshareableBytes,
    }
    const needs = [...new Map(this.#reserved).set(key, need).values()]
    const segmentBytes = needs.reduce((sum, one) => sum + one.segmentBytes, 0)
    const privateBytes = needs.reduce((sum, one) => sum + one.privateBytes, WORKER_BYTES)
    const neededBytes = PRIMARY_BYTES + segmentBytes + workers * privateBytes
    if (limitBytes !== null && neededBytes > limitBytes) {
      throw new OnecopyError(
        'MEMORY_LIMIT',
        `serving takes at least ${formatBytes(neededBytes)} (segments ${formatBytes(segmentBytes)}, ` +
          `${workers} workers of ${formatBytes(privateBytes)}, the primary ${formatBytes(PRIMARY_BYTES)}), ` +
          `the control group allows ${formatBytes(limitBytes)}: raise its memory limit or lower --workers`,
      )
    }
    this.#reserved.set(key, need)
  }

  release(key: string): void {
    this.#reserved.delete(key)
  }
}
