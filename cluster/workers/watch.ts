/**
 * Looks after workers that live but are no good any more: one whose event loop is silent is ended, one that has
 * served its number of requests or has grown too large is replaced. One whose inference thread is silent says so itself.
 */
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import { readProcessMemory } from '../../src/process/memory.js'
import { formatBytes, formatMs } from '../../src/units.js'
import type { FleetStats } from './stats.js'
import type { Supervisor } from './supervisor.js'
import type { WorkerHandle } from './worker-handle.js'

const INTERVAL_MS = 500
/**
 * Of a longer pause between two looks so much counts: the primary did not run meanwhile (it was stopped, the container
 * frozen), and most likely nor did its workers.
 */
const LONGEST_LOOK_MS = 2 * INTERVAL_MS
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
  #lookedAtMs = performance.now()
  /** Silence before that is nobody's fault: it was not looked at. */
  #unseenUntilMs = Number.NEGATIVE_INFINITY
  #isMeasuring = false
  #isReplacing = false
  #isCeilingTooLow = false
  #isClosed = false

  constructor(options: WatchOptions) {
    this.#options = options
    this.#timer = setInterval(() => this.#look(), INTERVAL_MS)
  }

  #look(): void {
    const nowMs = performance.now()
    if (nowMs - this.#lookedAtMs > LONGEST_LOOK_MS) this.#unseenUntilMs = nowMs
    this.#lookedAtMs = nowMs
    for (const worker of this.#options.supervisor.ready) {
      const stall = this.#stallOf(worker, nowMs - this.#unseenUntilMs)
      if (stall !== null) this.#options.supervisor.condemn(worker, stall)
    }
    void this.#replaceWornOut()
  }

  #stallOf(worker: WorkerHandle, seenMs: number): OnecopyError | null {
    const { stats, stallTimeoutMs } = this.#options
    const { loopSilentMs, running } = stats.signs(worker.statsSlot)
    const silentMs = Math.min(loopSilentMs, seenMs)
    if (silentMs <= stallTimeoutMs) return null
    return new OnecopyError(
      'WORKER_STALLED',
      `the event loop of worker ${worker.id} has been silent for ${formatMs(Math.round(silentMs))} (--stall-timeout ${formatMs(stallTimeoutMs)})` +
        (running === null ? '' : `, while model ${running.model} version ${running.version} ran`),
    )
  }

  /** Measuring can take longer than the time between two looks: there is one of them at a time. */
  async #replaceWornOut(): Promise<void> {
    if (this.#isMeasuring || this.#isReplacing) return
    this.#isMeasuring = true
    try {
      for (const worker of this.#options.supervisor.ready) {
        const reason = await this.#wornOut(worker)
        if (this.#isClosed) return
        if (reason === null) continue
        this.#replace(worker, reason)
        return
      }
    } catch (thrown) {
      this.#options.log.error({ err: thrown }, `workers were not measured: ${messageOf(thrown)}`)
    } finally {
      this.#isMeasuring = false
    }
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
    this.#isClosed = true
    clearInterval(this.#timer)
  }
}
