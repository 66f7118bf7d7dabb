/** One of the N workers that are to serve at all times, and what the supervisor knows about it. */
import type { ModelVersion } from './breaker.js'
import type { WorkerHandle } from './worker-handle.js'

/** It outlives its processes: whichever serves now, the one that boots to replace it, and the last that stalled. */
export interface Replica {
  /** The one that serves; null while there is none. */
  worker: WorkerHandle | null
  /** One that boots, to serve first or to replace `worker`. */
  successor: WorkerHandle | null
  /** The last one that stalled, if it is still there: it answers 503 until others serve. */
  stalled: WorkerHandle | null
  /** Boots that failed, in a row: too many, and there is no use in another. */
  failedBoots: number
  /** Crashes, in a row, of workers that did not live long: what the back-off grows with. */
  crashes: number
  /** It never had a worker that was ready. */
  isStarting: boolean
  /** Whether the last worker here was ended by a model. */
  wasModelFault: boolean
  /** Models that ended workers here since the last one was ready. */
  faultyModels: ModelVersion[]
  respawnTimer: NodeJS.Timeout | undefined
}

export function newReplica(): Replica {
  return {
    worker: null,
    successor: null,
    stalled: null,
    failedBoots: 0,
    crashes: 0,
    isStarting: true,
    wasModelFault: false,
    faultyModels: [],
    respawnTimer: undefined,
  }
}
