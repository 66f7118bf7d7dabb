/** Dependencies of the catalogue and the model changes that it reports. */
import type { IndexEntry } from '../../src/api/schemas.js'
import type { PublishedModel } from '../../src/compile/publish.js'
import type { OnecopyError } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import type { ModelSource } from '../../src/repository/repository.js'
import type { FleetStats } from '../workers/stats.js'
import type { WorkerHandle } from '../workers/worker-handle.js'

export type ModelChange = 'loaded' | 'unloaded' | 'failed'

export interface CatalogueOptions {
  readonly stats: FleetStats
  readonly log: Log
  /** Compiles one model version and writes it to the folder; null if a held segment has the same content. */
  readonly publish: (
    source: ModelSource,
    choices: { readonly folderName: string; readonly heldKeys: readonly string[] },
  ) => Promise<PublishedModel | null>
  /** The memory of this folder's segment is free again. */
  readonly release: (folderName: string) => void
  /** Every process that may map a segment. */
  readonly processes: () => readonly number[]
  /** Live workers that are not retiring, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** All live workers. Retiring ones still answer their requests in flight. */
  readonly allWorkers: () => readonly WorkerHandle[]
  /** Replaces a worker that failed to apply a change. */
  readonly discard: (worker: WorkerHandle, failure: OnecopyError) => void
  /** Reports the outcome of a change. */
  readonly onChange: (model: IndexEntry, outcome: ModelChange) => void
  /** Deadline for a worker to load or switch to a generation. */
  readonly prepareTimeoutMs: number
  /** How long a change waits for the retired generation to be unloaded. */
  readonly retireTimeoutMs: number
}
