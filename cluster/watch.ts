/**
 * Looks after workers that live but are no good any more: one that is silent is ended, one that has
 * served its number of requests or has grown too large is replaced.
 */
import { messageOf, OnecopyError } from '../src/errors.js'
import type { Log } from '../src/log.js'
import { readProcessMemory } from '../src/process/memory.js'
import { formatBytes, formatMs } from '../src/units.js'
import type { FleetStats } from './stats.js'
import type { Supervisor } from './supervisor.js'
import type { WorkerHandle } from './worker-handle.js'

const INTERVAL_MS = 500
/** A worker above the ceiling at this age is as small as workers are here: replacing it would never end. */
const GROWN_AFTER_MS = 10_000

export interface WatchOptions {
  readonly supervisor: Supervisor
  readonly stats: FleetStats
  readonly log: Log
  readonly stallTimeoutMs: number
  /** 0 is no limit. */
  readonly maxRequestsPerWorker: number
  /** 0 is no limit. */
  readonly maxPrivateBytes: number
}

export class Watch {
  readonly #options: WatchOptions
  readonly #timer: NodeJS.Timeout
  #isReplacing = false
  #isCeilingTooLow = false

  constructor(options: WatchOptions) {
    this.#options = options
    this.#timer = setInterval(() => void this.#look(), INTERVAL_MS)
  }

  async #look(): Promise<void> {
    for (const worker of this.#options.supervisor.ready) {
      const stall = this.#stallOf(worker)
      if (stall !== null) this.#options.supervisor.condemn(worker, stall)
      else if (!this.#isReplacing) {
        const reason = await this.#wornOut(worker)
        if (reason !== null) this.#replace(worker, reason)
      }
    }
  }

  #stallOf(worker: WorkerHandle): OnecopyError | null {
    const { stats, stallTimeoutMs } = this.#options
    const { loopSilentMs, threadSilentMs, running } = stats.signs(worker.statsSlot)
    const silent = (who: string, forMs: number) =>
      new OnecopyError(
        'WORKER_STALLED',
        `${who} of worker ${worker.id} has been silent for ${formatMs(Math.round(forMs))} (--stall-timeout ${formatMs(stallTimeoutMs)})` +
          (running === null ? '' : `, while model ${running.model} version ${running.version} ran`),
      )
    if (loopSilentMs > stallTimeoutMs) return silent('the event loop', loopSilentMs)
    if (threadSilentMs > stallTimeoutMs) return silent('the inference thread', threadSilentMs)
    return null
  }

  /** Why a worker should be replaced by a fresh one; null where it should not. */
  async #wornOut(worker: WorkerHandle): Promise<'max requests' | 'max memory' | null> {
    const { stats, log, maxRequestsPerWorker, maxPrivateBytes } = this.#options
    if (maxRequestsPerWorker > 0) {
      const served = stats.requestsIn(worker.statsSlot) - worker.inheritedRequests
      if (served >= maxRequestsPerWorker) return 'max requests'
    }
    if (maxPrivateBytes === 0 || this.#isCeilingTooLow) return null
    const memory = await readProcessMemory(worker.pid)
    if (memory === null || memory.privateBytes <= maxPrivateBytes) return null
    const message = `worker ${worker.id} holds ${formatBytes(memory.privateBytes)} of its own (--max-private-memory ${formatBytes(maxPrivateBytes)})`
    this.#isCeilingTooLow = worker.ageMs < GROWN_AFTER_MS
    log.warn(
      { worker: worker.id, workerPid: worker.pid, privateBytes: memory.privateBytes },
      this.#isCeilingTooLow ? `${message} from the start: the ceiling is ignored` : message,
    )
    return this.#isCeilingTooLow ? null : 'max memory'
  }

  #replace(worker: WorkerHandle, reason: string): void {
    this.#isReplacing = true
    this.#options.supervisor
      .replace(worker, reason)
      .catch((thrown) =>
        this.#options.log.error(
          { err: thrown, worker: worker.id },
          `the worker serves on: ${messageOf(thrown)}`,
        ),
      )
      .finally(() => {
        this.#isReplacing = false
      })
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
