/**
 * Connections and their load, and which connection a process sheds if its load is too high. A connection is
 * shed by `Connection: close` on one of its responses, so that its client reconnects. No request is
 * interrupted.
 */
import type { Socket } from 'node:net'
import type { Context, Next } from 'koa'

/** A connection that was idle for longer is not busy. */
const BUSY_WITHIN_MS = 2000
/** A client is alone if no other one has sent a request for this long, connected or not. */
const ALONE_AFTER_MS = 1000

/** The load of a process since the last report; all numbers except the last accumulate over time. */
export interface Load {
  readonly elapsedMs: number
  /** Requests on keep-alive connections, which could have gone to other workers. */
  readonly requests: number
  /** Total time of requests in the process: divided by the elapsed time, the mean number in flight. */
  readonly inFlightMs: number
  /** Current number of busy keep-alive connections, which could go to other workers. */
  readonly busyConnections: number
}

/** Whether there was no load, and no connection from which load is likely soon. */
export function isIdle({ requests, inFlightMs, busyConnections }: Load): boolean {
  return requests === 0 && inFlightMs === 0 && busyConnections === 0
}

interface Connection {
  requests: number
  inFlight: number
  lastRequestMs: number
  /** It pipelines requests: those in transit would be lost if it were closed. */
  isPipelined: boolean
}

function isMovable({ requests, inFlight, lastRequestMs, isPipelined }: Connection, nowMs: number): boolean {
  // Only a second request proves that the client keeps the connection.
  return requests > 1 && !isPipelined && (inFlight > 0 || nowMs - lastRequestMs < BUSY_WITHIN_MS)
}

export class Connections {
  readonly #now: () => number
  readonly #open = new Map<Socket, Connection>()
  #takenAtMs: number
  #requests = 0
  #inFlight = 0
  #inFlightMs = 0
  #countedUntilMs: number
  #shallShed = false
  #lastSocket: Socket | null = null
  /** When a request last came from another connection than the one before it. */
  #lastChangeMs = Number.NEGATIVE_INFINITY

  /** @param now Milliseconds of a monotonic clock. */
  constructor(now = () => performance.now()) {
    this.#now = now
    this.#takenAtMs = now()
    this.#countedUntilMs = this.#takenAtMs
  }

  /**
   * Whether no other request is likely to arrive before the one in flight is answered: no other
   * client is connected, or their connections are idle, such as those of probes and balancers.
   */
  get isAlone(): boolean {
    if (this.#inFlight !== 1) return false
    return this.#open.size <= 1 || this.#countedUntilMs - this.#lastChangeMs > ALONE_AFTER_MS
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
    // There was no connection left to shed.
    if (busyConnections === 0) this.#shallShed = false
    return load
  }

  /** Sheds one busy connection: the next one with a response, which is most likely one with much traffic. */
  shed(): void {
    this.#shallShed = true
  }

  /**
   * A request begins. `willStay`: its connection is kept alive. `isMultiplexed`: requests in transit are not
   * lost when the connection is shed, because HTTP/2 reports which were processed.
   */
  begin(socket: Socket, willStay: boolean, isMultiplexed = false): void {
    const nowMs = this.#countTime()
    this.#inFlight++
    if (socket !== this.#lastSocket) {
      this.#lastSocket = socket
      this.#lastChangeMs = nowMs
    }
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
    socket.once('close', () => {
      this.#open.delete(socket)
      if (this.#lastSocket === socket) this.#lastSocket = null
    })
    return connection
  }

  /** A response is about to be sent; true if it must close its connection. */
  end(socket: Socket): boolean {
    const nowMs = this.#countTime()
    this.#inFlight--
    const connection = this.#open.get(socket)
    if (connection === undefined) return false
    connection.inFlight--
    if (!this.#shallShed || !isMovable(connection, nowMs)) return false
    this.#shallShed = false
    // From now on it is the load of another process.
    this.#open.delete(socket)
    return true
  }

  #countTime(): number {
    const nowMs = this.#now()
    this.#inFlightMs += this.#inFlight * (nowMs - this.#countedUntilMs)
    this.#countedUntilMs = nowMs
    return nowMs
  }
}

/** Middleware around everything else: counts, and closes connections that are shed or draining. */
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
    let isClosing = false
    try {
      await next()
    } finally {
      isClosing = connections.end(socket)
    }
    if (isClosing || isDraining()) ctx.set('Connection', 'close')
  }
}
