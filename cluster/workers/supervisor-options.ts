/** What a supervisor is given. */

import type { OnecopyError } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import type { StartMessage } from '../messages.js'
import type { ServingPorts } from '../port.js'
import type { ModelFault, ModelVersion } from './breaker.js'
import type { ForkWorker } from './fork-worker.js'
import type { FleetStats } from './stats.js'
import type { WorkerHandle } from './worker-handle.js'

export interface SupervisorOptions {
  readonly workers: number
  /**
   * Maximum number of workers that boot at the same time when the server starts. More workers than
   * CPUs slow each other down, and the first response comes only when the last is nearly ready.
   */
  readonly concurrentBoots: number
  readonly fork?: ForkWorker
  /** The start message of a worker that starts now, without its slot; see WorkerHandleOptions. */
  readonly lease: (take: (start: Omit<StartMessage, 'statsSlot'>) => void) => Promise<() => void>
  readonly replacePorts: ServingPorts['replace']
  readonly stats: FleetStats
  readonly bootTimeoutMs: number
  readonly drainTimeoutMs: number
  readonly log: Log
  /** A worker listens, possibly without some models. It counts as ready once this resolves. */
  readonly onReady: (worker: WorkerHandle) => Promise<void>
  /** A model ended a worker. Returns whether repeated failures disable the model. */
  readonly onModelFault: (fault: ModelFault) => boolean
  /** The worker that the model ended is replaced. */
  readonly onFaultyWorkerReplaced: (model: ModelVersion) => void
  /** A worker ended while the server continues. */
  readonly onEnded: (reason: string) => void
  /** The limit of consecutive failed boots is reached: the server does not recover by itself. */
  readonly onBootLimitReached: (reason: OnecopyError) => void
  readonly onRecovered: () => void
}
