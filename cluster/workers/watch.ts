/**
 * Detects workers that run but need replacement. A worker with a silent event loop is killed. A worker that
 * has served its number of requests or exceeds the memory ceiling is replaced. Workers report a stalled
 * inference thread themselves.
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
 * The most that a gap between two checks counts as silence. After a longer gap the primary itself was
 * suspended (stopped or frozen with its container), and most likely its workers too.
 */
const MAX_CHECK_GAP_MS = 2 * INTERVAL_MS
/** A worker above the ceiling at this age has a normal size: replacing it would repeat for ever. */
const GROWTH_AGE_MS = 10_000

export interface WatchOptions {
  readonly supervisor: Supervisor
  readonly stats: FleetStats
  readonly log: Log
  readonly stallTimeoutMs: number
  /** 0 means no limit. */
  readonly maxRequestsPerWorker: number
  /** 0 means no limit. */
  readonly maxPrivateBytes: number
}

export class Watch {
  readonly #options: WatchOptions
  readonly #timer: NodeJS.Timeout
  #checkedAtMs = performance.now()
  /** Silence before this time does not count: the primary was suspended. */
  #suspendedUntilMs = Number.NEGATIVE_INFINITY
  #isMeasuring = false
  #isReplacing = false
  #isCeilingTooLow = false
  #isClosed = false

  constructor(options: WatchOptions) {
    this.#options = options
    this.#timer = setInterval(() => this.#check(), INTERVAL_MS)
  }

  #check(): void {
    const nowMs = performance.now()
    if (nowMs - this.#checkedAtMs > MAX_CHECK_GAP_MS) this.#suspendedUntilMs = nowMs
    this.#checkedAtMs = nowMs
    for (const worker of this.#options.supervisor.ready) {
      const stall = this.#stallOf(worker, nowMs - this.#suspendedUntilMs)
      if (stall !== null) this.#options.supervisor.discard(worker, stall)
    }
    void this.#replaceWornOut()
  }

  #stallOf(worker: WorkerHandle, observedMs: number): OnecopyError | null {
    const { stats, stallTimeoutMs } = this.#options
    const { loopSilentMs, running } = stats.stateOf(worker.statsSlot)
    const silentMs = Math.min(loopSilentMs, observedMs)
    if (silentMs <= stallTimeoutMs) return null
    return new OnecopyError(
      'WORKER_STALLED',
      `the event loop of worker ${worker.id} has been silent for ${formatMs(Math.round(silentMs))} (--stall-timeout ${formatMs(stallTimeoutMs)})` +
        (running === null ? '' : ` while it ran model ${running.model} version ${running.version}`),
    )
  }

  /** A measurement can take longer than the interval between checks, so only one runs at a time. */
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
      this.#options.log.error(
        { err: thrown },
        `could not measure the memory of the workers: ${messageOf(thrown)}`,
      )
    } finally {
      this.#isMeasuring = false
    }
  }

  /** Why the worker needs replacement; null if it does not. */
  async #wornOut(worker: WorkerHandle): Promise<'max requests' | 'max memory' | null> {
    const { stats, log, maxRequestsPerWorker, maxPrivateBytes } = this.#options
    if (maxRequestsPerWorker > 0) {
      const served = stats.requestsIn(worker.statsSlot) - worker.inheritedRequests
      if (served >= maxRequestsPerWorker) return 'max requests'
    }
    if (maxPrivateBytes === 0 || this.#isCeilingTooLow) return null
    const memory = await readProcessMemory(worker.pid)
    if (memory === null || memory.privateBytes <= maxPrivateBytes) return null
    const message = `worker ${worker.id} has ${formatBytes(memory.privateBytes)} of private memory (--max-private-memory ${formatBytes(maxPrivateBytes)})`
    this.#isCeilingTooLow = worker.ageMs < GROWTH_AGE_MS
    log.warn(
      { worker: worker.id, workerPid: worker.pid, privateBytes: memory.privateBytes },
      this.#isCeilingTooLow ? `${message} right after its start: the ceiling is ignored` : message,
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
          `the worker was not replaced: ${messageOf(thrown)}`,
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
