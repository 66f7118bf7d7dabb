/**
 * Clients that each keep one connection for a while and send requests without a pause. The worker behind
 * every connection is known. A request may only fail if that worker was killed.
 */
import { Agent } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type Answer, send } from '../harness/client.js'
import { ownerOf } from '../harness/connections.js'
import type { InferRequest } from '../harness/requests.js'
import { isSameOutput, outputOf } from '../harness/verify.js'

const OWNER_POLL_MS = 5
/** A client then reconnects, so that replacement workers get their share. */
const REQUESTS_PER_CONNECTION = 50
/** Back-off after a rejected request. */
const PAUSE_AFTER_REFUSAL_MS = 20
/** A connection may go to a dead worker until the primary notices its death. */
const NOTICE_MS = 1000

export interface KnownAnswer {
  readonly request: InferRequest
  readonly output: readonly number[]
}

/** A worker that was killed without a drain. */
export interface Cut {
  readonly pid: number
  readonly atMs: number
}

export interface LostRequest {
  readonly sentAtMs: number
  readonly lostAtMs: number
  readonly reason: string
  /** Null if no worker had accepted the connection. */
  readonly ownerPid: number | null
}

/** Counts of all clients; `answered` is read while they run. */
export interface Tally {
  sent: number
  answered: number
  refused: number
  readonly wrong: string[]
  /** The worker that held the connection was killed. */
  readonly lostWithWorker: LostRequest[]
  /** No worker had accepted the connection, and one had just been killed. */
  readonly lostBeforeWorker: LostRequest[]
  /** Failures without an explanation. */
  readonly unexplained: LostRequest[]
}

export function newTally(): Tally {
  return {
    sent: 0,
    answered: 0,
    refused: 0,
    wrong: [],
    lostWithWorker: [],
    lostBeforeWorker: [],
    unexplained: [],
  }
}

export interface ClientOptions {
  readonly port: number
  readonly workerPids: () => readonly number[]
  readonly cuts: readonly Cut[]
  readonly tally: Tally
  readonly answers: readonly KnownAnswer[]
  /** Pause between a response and the next request of a client. */
  readonly pauseMs: number
  readonly isOver: () => boolean
}

export class ChaosClient {
  readonly #options: ClientOptions
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 })
  readonly #owners = new WeakMap<Socket, number>()
  #socket: Socket | undefined
  #count = 0

  constructor(options: ClientOptions) {
    this.#options = options
  }

  async run(offset: number): Promise<void> {
    const { answers, isOver, pauseMs } = this.#options
    for (let index = offset; !isOver(); index++) {
      const isRefused = await this.#sendOne(answers[index % answers.length] as KnownAnswer)
      const ms = isRefused ? PAUSE_AFTER_REFUSAL_MS : pauseMs
      if (ms > 0) await pause(ms)
    }
    this.#agent.destroy()
  }

  /** True if the server rejected the request or did not listen. */
  async #sendOne(known: KnownAnswer): Promise<boolean> {
    const { tally } = this.#options
    const sentAtMs = performance.now()
    tally.sent++
    const isLast = ++this.#count % REQUESTS_PER_CONNECTION === 0
    const headers = { ...known.request.headers, ...(isLast ? { Connection: 'close' } : {}) }
    const reply = await send({
      ...{ agent: this.#agent, port: this.#options.port, request: { ...known.request, headers } },
      onSocket: (socket) => this.#track(socket),
    }).catch((thrown: Error) => thrown)
    if (reply instanceof Error) {
      const reason = (reply as NodeJS.ErrnoException).code ?? reply.message
      this.#recordLoss({
        sentAtMs,
        lostAtMs: performance.now(),
        reason,
        ownerPid: (this.#socket && this.#owners.get(this.#socket)) ?? null,
      })
      return reason === 'ECONNREFUSED'
    }
    if (reply.status === 503) {
      tally.refused++
      return true
    }
    if (reply.status === 200) tally.answered++
    const problem = problemOf(reply, known.output)
    if (problem !== null) tally.wrong.push(problem)
    return false
  }

  #recordLoss(lost: LostRequest): void {
    const { cuts, tally } = this.#options
    if (cuts.some(({ pid }) => pid === lost.ownerPid)) tally.lostWithWorker.push(lost)
    else if (
      lost.ownerPid === null &&
      lost.reason !== 'ECONNREFUSED' &&
      cuts.some(({ atMs }) => atMs >= lost.sentAtMs - NOTICE_MS && atMs <= lost.lostAtMs)
    )
      tally.lostBeforeWorker.push(lost)
    else tally.unexplained.push(lost)
  }

  #track(socket: Socket): void {
    if (socket === this.#socket) return
    this.#socket = socket
    if (socket.connecting) socket.once('connect', () => this.#findOwner(socket))
    else this.#findOwner(socket)
  }

  /** The primary accepts a connection and hands it over, so its worker is known only later. */
  #findOwner(socket: Socket): void {
    if (socket.destroyed || socket.localPort === undefined) return
    const { port, workerPids } = this.#options
    const ownerPid = ownerOf({ port, workerPids: workerPids() }, socket.localPort)
    if (ownerPid !== null) this.#owners.set(socket, ownerPid)
    else setTimeout(() => this.#findOwner(socket), OWNER_POLL_MS)
  }
}

/** The problem of a complete response; null if it is correct. */
function problemOf(reply: Answer, expected: readonly number[]): string | null {
  if (reply.status !== 200) return `status ${reply.status}: ${reply.body.toString().slice(0, 200)}`
  try {
    const got = outputOf(reply)
    return isSameOutput(expected, got) ? null : `expected ${expected.join(' ')}, got ${got.join(' ')}`
  } catch (thrown) {
    return `unreadable: ${String(thrown)}`
  }
}
