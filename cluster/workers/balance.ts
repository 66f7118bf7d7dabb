/**
 * Evens out what workers carry. Round robin deals out connections, not requests: a few busy ones that are
 * kept alive can all be at one worker while another idles. That worker is then asked to give one up; its
 * client connects anew and is dealt to the next worker in turn, which may be the same one.
 *
 * Reports are added up over a round, long enough for every busy connection to have had some turns. A
 * round asks a worker for one connection at most, and what was measured is forgotten with it, so that a
 * decision always rests on what the one before it led to. Rounds get longer while they keep asking:
 * clients that cannot be evened out are disturbed less and less.
 */
import { isIdle, type Load } from '../../src/http/connections.js'

const SHORTEST_ROUND_MS = 200
const LONGEST_ROUND_MS = 10_000
/** What connections carry is only judged over this long: clients that send in bursts differ at any moment. */
const LONG_ROUND_MS = 2000
const ROUND_GROWTH = 1.05
/** After this long without a request to any worker, rounds are short again. */
const CALM_AFTER_MS = 60_000
const TURNS_PER_CONNECTION = 8
/** Slow requests: a round does not wait longer than this for turns. */
const LONGEST_WAIT_FOR_TURNS_MS = 5000
/** A worker in the middle of requests that was silent for longer says nothing about now. */
const STALE_AFTER_MS = 1000

/** Less than this in flight on average is no burden worth moving. */
const LEAST_IN_FLIGHT = 0.1
const FAIR_SHARE_TOLERANCE = 0.1
const CONNECTIONS_TOLERANCE = 0.2
const CARRIED_TOLERANCE = 1 / 3

/** What one worker carried in a round. */
export interface WorkerLoad {
  readonly id: number
  /** Requests on connections that are kept alive, in the whole round. */
  readonly requests: number
  /** Requests inside, mean over the round. */
  readonly inFlight: number
  /** Mean over the round: a client that opens many connections makes them busy one by one. */
  readonly busyConnections: number
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** Connections that are alike: counting them is exact, and says so even when both workers are saturated. */
function hasMoreConnections(from: WorkerLoad, to: WorkerLoad): boolean {
  const excess = from.busyConnections - to.busyConnections
  return excess >= 2 && excess > CONNECTIONS_TOLERANCE * from.busyConnections
}

/**
 * Connections of all kinds, by what they carry: clear of one connection's worth and of chance (three
 * sigma). A worker that answers few requests but has many of them inside is slow, not free.
 */
function carriesMore(from: WorkerLoad, to: WorkerLoad): boolean {
  const moved = Math.max(1.5 / from.busyConnections, CARRIED_TOLERANCE)
  const chance = 3 * Math.sqrt(from.requests + to.requests)
  return (
    from.requests - to.requests > moved * from.requests + chance &&
    from.inFlight - to.inFlight > moved * from.inFlight
  )
}

/**
 * Ids of the workers that should each give up one connection now, from the loads of all workers that can
 * serve. Empty when the load is even, or as even as moving whole connections can make it. After a long
 * round connections are also judged by what they carry, not only counted.
 */
export function workersToRelieve(loads: readonly WorkerLoad[], { isLongRound = false } = {}): number[] {
  const fairShare = meanOf(loads.map(({ inFlight }) => inFlight))
  return loads
    .filter(
      (load) =>
        load.busyConnections >= 2 &&
        load.inFlight >= LEAST_IN_FLIGHT &&
        load.inFlight > fairShare * (1 + FAIR_SHARE_TOLERANCE) &&
        loads.some((other) => hasMoreConnections(load, other) || (isLongRound && carriesMore(load, other))),
    )
    .map(({ id }) => id)
}

interface Reports {
  latest: Load
  latestAtMs: number
  /** Sums over the round; reports that began before it are not in them. */
  elapsedMs: number
  requests: number
  inFlightMs: number
  busyConnectionMs: number
}

const NOTHING = { elapsedMs: 0, requests: 0, inFlightMs: 0, busyConnectionMs: 0 }

/** The last report of a worker that goes idle says so; a worker that never reported never had traffic. */
export class Balancer {
  readonly #reports = new Map<number, Reports>()
  #roundSinceMs = 0
  #roundMs = SHORTEST_ROUND_MS
  #lastReportMs = Number.NEGATIVE_INFINITY
  #lastAskedMs = Number.NEGATIVE_INFINITY

  /**
   * Takes a worker's report; returns the ids of the workers that should each give up one connection now.
   * `ready` are the ids of all workers that can serve, `nowMs` is monotonic.
   */
  take(options: { workerId: number; load: Load; ready: readonly number[]; nowMs: number }): number[] {
    const { workerId, load, ready, nowMs } = options
    for (const id of this.#reports.keys()) if (!ready.includes(id)) this.#reports.delete(id)
    if (!ready.includes(workerId)) return []
    // After a silence of all workers: what was before it has nothing to do with what comes.
    if (nowMs - this.#lastReportMs > STALE_AFTER_MS) this.#startRound(nowMs - load.elapsedMs)
    if (nowMs - this.#lastAskedMs > CALM_AFTER_MS) this.#roundMs = SHORTEST_ROUND_MS
    this.#lastReportMs = nowMs
    this.#add(workerId, load, nowMs)
    const loads = ready.flatMap((id) => this.#loadOf(id, nowMs) ?? [])
    if (!this.#isMeasured(loads, nowMs)) return []
    const isLongRound = nowMs - this.#roundSinceMs >= LONG_ROUND_MS
    const asked = workersToRelieve(loads, { isLongRound })
    if (asked.length > 0) {
      this.#roundMs = Math.min(this.#roundMs * ROUND_GROWTH, LONGEST_ROUND_MS)
      this.#lastAskedMs = nowMs
    }
    if (asked.length > 0 || isLongRound) this.#startRound(nowMs)
    return asked
  }

  #add(workerId: number, load: Load, nowMs: number): void {
    const before = this.#reports.get(workerId) ?? NOTHING
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

  /** What a worker carried in this round so far; null when that is not known. */
  #loadOf(id: number, nowMs: number): WorkerLoad | null {
    const reports = this.#reports.get(id)
    if (reports === undefined) return { id, requests: 0, inFlight: 0, busyConnections: 0 }
    const { latest, latestAtMs, elapsedMs, requests, inFlightMs, busyConnectionMs } = reports
    const roundMs = nowMs - this.#roundSinceMs
    // Idle since its last word: the silence counts as well.
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
    if (roundMs >= LONGEST_WAIT_FOR_TURNS_MS) return true
    const requests = loads.reduce((sum, load) => sum + load.requests, 0)
    const connections = loads.reduce((sum, load) => sum + load.busyConnections, 0)
    return requests >= TURNS_PER_CONNECTION * connections
  }

  #startRound(sinceMs: number): void {
    this.#roundSinceMs = sinceMs
    for (const reports of this.#reports.values()) Object.assign(reports, NOTHING)
  }
}
