/** The supervisor's state of one replica: one of the N workers that serve at all times. */
import type { Ports } from '../port.js'
import type { ModelVersion } from './breaker.js'
import type { WorkerHandle } from './worker-handle.js'

/** Outlives its processes: the serving one, its booting replacement and the last stalled one. */
export interface Replica {
  /** The serving worker; null while there is none. */
  worker: WorkerHandle | null
  /** A booting worker, the first one or the replacement of `worker`. */
  replacement: WorkerHandle | null
  /** The last stalled worker, if it has not ended: it answers 503 until other workers serve. */
  stalled: WorkerHandle | null
  /** Consecutive failed boots. At the limit, the supervisor stops trying. */
  failedBoots: number
  /** Consecutive crashes of short-lived workers. Determines the back-off. */
  crashes: number
  /** The ports that its last worker was to serve on; null before it was told. */
  ports: Ports | null
  /** No worker of this replica has been ready yet. */
  isStarting: boolean
  /** Whether a model ended the last worker. */
  wasModelFault: boolean
  /** Models that ended workers here since the last one was ready. */
  faultyModels: ModelVersion[]
  respawnTimer: NodeJS.Timeout | undefined
}

export function newReplica(): Replica {
  return {
    worker: null,
    replacement: null,
    stalled: null,
    failedBoots: 0,
    crashes: 0,
    ports: null,
    isStarting: true,
    wasModelFault: false,
    faultyModels: [],
    respawnTimer: undefined,
  }
}
