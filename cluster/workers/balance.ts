/**
 * Balances load between workers. Round robin distributes connections, not requests, so one worker
 * can hold several busy keep-alive connections while another is idle. The primary then tells the
 * busy worker to close one. The client reconnects and reaches the next worker in turn, which may be
 * the same one.
 *
 * Reports are summed over a round, long enough for several requests on every busy connection. A
 * round closes at most one connection per worker and then discards its measurements, so every
 * decision sees the effect of the previous one. Rounds get longer while they close connections, so
 * a load that cannot be balanced is disturbed less and less.
 */
import { isIdle, type Load } from '../../src/http/connections.js'

const MIN_ROUND_MS = 200
const MAX_ROUND_MS = 10_000
/**
 * Load per connection is compared only over this long: momentary load differs with bursty clients.
 */
const LONG_ROUND_MS = 2000
const ROUND_GROWTH = 1.05
/** After this long without a closed connection, rounds are short again. */
const CALM_AFTER_MS = 60_000
const REQUESTS_PER_CONNECTION = 8
/** Maximum duration of a round with slow requests. */
const MAX_WAIT_FOR_REQUESTS_MS = 5000
/** A busy worker that has not reported for this long has no current load. */
const STALE_AFTER_MS = 1000

/** With fewer requests in flight on average, a worker is not worth relieving. */
const MIN_IN_FLIGHT = 0.1
const FAIR_SHARE_TOLERANCE = 0.1
const CONNECTIONS_TOLERANCE = 0.2
const LOAD_TOLERANCE = 1 / 3

/** The load of one worker in a round. */
export interface WorkerLoad {
  readonly id: number
  /** Requests on keep-alive connections in the whole round. */
  readonly requests: number
  /** Requests in flight, mean over the round. */
  readonly inFlight: number
  /**
   * Mean over the round: a client that opens many connections makes them busy one after the other.
   */
  readonly busyConnections: number
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** For similar connections. The count is exact, and valid even when both workers are saturated. */
function hasMoreConnections(from: WorkerLoad, to: WorkerLoad): boolean {
  const excess = from.busyConnections - to.busyConnections
  return excess >= 2 && excess > CONNECTIONS_TOLERANCE * from.busyConnections
}

/**
 * For connections with different loads. The difference must exceed the load of one connection and
 * three standard deviations. A worker with few completed requests but many in flight is slow, not
 * idle.
 */
function carriesMore(from: WorkerLoad, to: WorkerLoad): boolean {
  const moved = Math.max(1.5 / from.busyConnections, LOAD_TOLERANCE)
  const chance = 3 * Math.sqrt(from.requests + to.requests)
  return (
    from.requests - to.requests > moved * from.requests + chance &&
    from.inFlight - to.inFlight > moved * from.inFlight
  )
}

/**
 * Returns the ids of the workers that should each close one connection, from the loads of all ready
 * workers. Empty if the load is even, or as even as moving whole connections allows. Load per
 * connection counts only after a long round.
 */
export function workersToRelieve(loads: readonly WorkerLoad[], { isLongRound = false } = {}): number[] {
  const fairShare = meanOf(loads.map(({ inFlight }) => inFlight))
  return loads
    .filter(
      (load) =>
        load.busyConnections >= 2 &&
        load.inFlight >= MIN_IN_FLIGHT &&
        load.inFlight > fairShare * (1 + FAIR_SHARE_TOLERANCE) &&
        loads.some((other) => hasMoreConnections(load, other) || (isLongRound && carriesMore(load, other))),
    )
    .map(({ id }) => id)
}

interface Reports {
  latest: Load
  latestAtMs: number
  /** Sums over the round, without reports that began before it. */
  elapsedMs: number
  requests: number
  inFlightMs: number
  busyConnectionMs: number
}

const NO_LOAD = { elapsedMs: 0, requests: 0, inFlightMs: 0, busyConnectionMs: 0 }

/** An idle worker sends one final report. A worker without reports never had traffic. */
export class Balancer {
  readonly #reports = new Map<number, Reports>()
  #roundSinceMs = 0
  #roundMs = MIN_ROUND_MS
  #lastReportMs = Number.NEGATIVE_INFINITY
  #lastReliefMs = Number.NEGATIVE_INFINITY

  /**
   * Records a report and returns the ids of the workers that should each close one connection.
   * `ready` holds the ids of all ready workers; `nowMs` is monotonic.
   */
  take(options: { workerId: number; load: Load; ready: readonly number[]; nowMs: number }): number[] {
    const { workerId, load, ready, nowMs } = options
    for (const id of this.#reports.keys()) if (!ready.includes(id)) this.#reports.delete(id)
    if (!ready.includes(workerId)) return []
    // After silence from all workers, earlier measurements say nothing about the current load.
    if (nowMs - this.#lastReportMs > STALE_AFTER_MS) this.#startRound(nowMs - load.elapsedMs)
    if (nowMs - this.#lastReliefMs > CALM_AFTER_MS) this.#roundMs = MIN_ROUND_MS
    this.#lastReportMs = nowMs
    this.#add(workerId, load, nowMs)
    const loads = ready.flatMap((id) => this.#loadOf(id, nowMs) ?? [])
    if (!this.#isMeasured(loads, nowMs)) return []
    const isLongRound = nowMs - this.#roundSinceMs >= LONG_ROUND_MS
    const relieved = workersToRelieve(loads, { isLongRound })
    if (relieved.length > 0) {
      this.#roundMs = Math.min(this.#roundMs * ROUND_GROWTH, MAX_ROUND_MS)
      this.#lastReliefMs = nowMs
    }
    if (relieved.length > 0 || isLongRound) this.#startRound(nowMs)
    return relieved
  }

  #add(workerId: number, load: Load, nowMs: number): void {
    const before = this.#reports.get(workerId) ?? NO_LOAD
    const weight = nowMs - load.elapsedMs >= this.#roundSinceMs ? 1 : 0
    this.#reports.set(workerId, {
      latest: load,
      latestAtMs: nowMs,
      elapsedMs: before.elapsedMs + weight * load.elapsedMs,
      requests: before.requests + weight * load.requests,
      inFlightMs: before.inFlightMs + weight * load.inFlightMs,
      busyConnectionMs: before.busyConnectionMs + weight * load.busyConnections * load.elapsedMs,
    })
  }

  /** The load of a worker in this round; null if unknown. */
  #loadOf(id: number, nowMs: number): WorkerLoad | null {
    const reports = this.#reports.get(id)
    if (reports === undefined) return { id, requests: 0, inFlight: 0, busyConnections: 0 }
    const { latest, latestAtMs, elapsedMs, requests, inFlightMs, busyConnectionMs } = reports
    const roundMs = nowMs - this.#roundSinceMs
    // An idle worker sends no reports: its silence counts as idle time.
    const coveredMs = isIdle(latest) ? Math.max(elapsedMs, roundMs) : elapsedMs
    if (coveredMs === 0 || (!isIdle(latest) && nowMs - latestAtMs > STALE_AFTER_MS)) return null
    return {
      id,
      requests: (requests / coveredMs) * roundMs,
      inFlight: inFlightMs / coveredMs,
      busyConnections: busyConnectionMs / coveredMs,
    }
  }

  #isMeasured(loads: readonly WorkerLoad[], nowMs: number): boolean {
    const roundMs = nowMs - this.#roundSinceMs
    if (roundMs < this.#roundMs) return false
    if (roundMs >= MAX_WAIT_FOR_REQUESTS_MS) return true
    const requests = loads.reduce((sum, load) => sum + load.requests, 0)
    const connections = loads.reduce((sum, load) => sum + load.busyConnections, 0)
    return requests >= REQUESTS_PER_CONNECTION * connections
  }

  #startRound(sinceMs: number): void {
    this.#roundSinceMs = sinceMs
    for (const reports of this.#reports.values()) Object.assign(reports, NO_LOAD)
  }
}
