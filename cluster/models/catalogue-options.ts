/** What the catalogue is given, and how it says that a model has changed. */
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
  /** Compiles and writes one model version into a folder of that name; null where its content is held already. */
  readonly publish: (
    source: ModelSource,
    choices: { readonly folderName: string; readonly heldKeys: readonly string[] },
  ) => Promise<PublishedModel | null>
  /** The memory of a folder's segment is free again. */
  readonly release: (folderName: string) => void
  /** Every process that may have a segment mapped. */
  readonly processes: () => readonly number[]
  /** Workers that are alive and not on their way out, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** These and those on their way out, which answer what they began. */
  readonly allWorkers: () => readonly WorkerHandle[]
  /** A worker that cannot follow: it is to be replaced. */
  readonly discard: (worker: WorkerHandle, failure: OnecopyError) => void
  /** How a change ended. */
  readonly onChange: (model: IndexEntry, outcome: ModelChange) => void
  /** For a worker to load a generation, or to change over. */
  readonly prepareTimeoutMs: number
  /** How long a change waits for what it retired; that is kept for as long as it is used. */
  readonly retireTimeoutMs: number
}
