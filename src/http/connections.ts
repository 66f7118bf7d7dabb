/**
 * Who is connected, and how busy: what a process carries, and which connection it gives up when it
 * carries too much. A connection is given up by `Connection: close` on one of its responses, so that
 * its client connects anew; nothing is ever cut off.
 */
import type { Socket } from 'node:net'
import type { Context, Next } from 'koa'

/** A connection that was silent for longer is not busy. */
const BUSY_WITHIN_MS = 2000

/** What a process carried since it was last asked; all of it adds up over time but the last number. */
export interface Load {
  readonly elapsedMs: number
  /** Requests that arrived on connections that are kept alive: those that could have gone elsewhere. */
  readonly requests: number
  /** Time that requests spent inside, summed: divided by the elapsed time, the mean number in flight. */
  readonly inFlightMs: number
  /** Connections that are kept alive, sent a request lately and could go elsewhere; at this moment. */
  readonly busyConnections: number
}

/** Whether there was nothing to carry, and nobody from whom more is likely to come soon. */
export function isIdle({ requests, inFlightMs, busyConnections }: Load): boolean {
  return requests === 0 && inFlightMs === 0 && busyConnections === 0
}

interface Connection {
  requests: number
  inFlight: number
  lastRequestMs: number
  /** It sends requests without waiting for answers: those on their way would be lost if it were closed. */
  isPipelined: boolean
}

function isMovable({ requests, inFlight, lastRequestMs, isPipelined }: Connection, nowMs: number): boolean {
  // A single request may be all that its client wanted: a second one proves that it keeps the connection.
  return requests > 1 && !isPipelined && (inFlight > 0 || nowMs - lastRequestMs < BUSY_WITHIN_MS)
}

export class Connections {
  readonly #open = new Map<Socket, Connection>()
  #takenAtMs = performance.now()
  #requests = 0
  #inFlight = 0
  #inFlightMs = 0
  #countedUntilMs = this.#takenAtMs
  #shallShed = false

  /** Whether the one request in flight is all that can arrive before it is answered: nobody else is connected. */
  get isAlone(): boolean {
    return this.#inFlight === 1 && this.#open.size <= 1
  }

  /** The load since the last call. */
  takeLoad(): Load {
    const nowMs = this.#countTime()
    let busyConnections = 0
    for (const connection of this.#open.values()) if (isMovable(connection, nowMs)) busyConnections++
    const load = {
      elapsedMs: nowMs - this.#takenAtMs,
      requests: this.#requests,
      inFlightMs: this.#inFlightMs,
      busyConnections,
    }
    this.#takenAtMs = nowMs
    this.#requests = 0
    this.#inFlightMs = 0
    // Nothing was left to give up.
    if (busyConnections === 0) this.#shallShed = false
    return load
  }

  /** Gives up one busy connection: the next one that is answered, so most likely one that is used a lot. */
  shed(): void {
    this.#shallShed = true
  }

  /**
   * A request begins; `willStay` says whether its connection outlives it, `isMultiplexed` that those on their way are not lost
   * when it is given up: HTTP/2 says which they are.
   */
  begin(socket: Socket, willStay: boolean, isMultiplexed = false): void {
    const nowMs = this.#countTime()
    this.#inFlight++
    if (!willStay) this.#open.delete(socket)
    else {
      const connection = this.#open.get(socket) ?? this.#add(socket)
      connection.requests++
      connection.inFlight++
      connection.lastRequestMs = nowMs
      if (connection.inFlight > 1 && !isMultiplexed) connection.isPipelined = true
      if (connection.requests > 1) this.#requests++
    }
  }

  #add(socket: Socket): Connection {
    const connection = { requests: 0, inFlight: 0, lastRequestMs: 0, isPipelined: false }
    this.#open.set(socket, connection)
    socket.once('close', () => this.#open.delete(socket))
    return connection
  }

  /** The answer to a request is about to be sent; true when it must say that its connection closes. */
  end(socket: Socket): boolean {
    const nowMs = this.#countTime()
    this.#inFlight--
    const connection = this.#open.get(socket)
    if (connection === undefined) return false
    connection.inFlight--
    if (!this.#shallShed || !isMovable(connection, nowMs)) return false
    this.#shallShed = false
    // From here on it is the load of whoever gets it.
    this.#open.delete(socket)
    return true
  }

  #countTime(): number {
    const nowMs = performance.now()
    this.#inFlightMs += this.#inFlight * (nowMs - this.#countedUntilMs)
    this.#countedUntilMs = nowMs
    return nowMs
  }
}

/** Middleware around everything else: counts, and closes connections that are given up or must go. */
export function keptConnections({
  connections,
  isDraining,
}: {
  readonly connections: Connections
  readonly isDraining: () => boolean
}) {
  return async (ctx: Context, next: Next): Promise<void> => {
    const { socket } = ctx.req
    connections.begin(socket, ctx.res.shouldKeepAlive)
    let isGivenUp = false
    try {
      await next()
    } finally {
      isGivenUp = connections.end(socket)
    }
    if (isGivenUp || isDraining()) ctx.set('Connection', 'close')
  }
}
