/**
 * Clients that keep one connection each for a while and send without a pause. For every request that fails it is
 * known which worker held its connection: a failure is only allowed where that very worker was killed.
 */
import { Agent } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type Answer, send } from '../harness/client.js'
import { ownerOf } from '../harness/connections.js'
import type { InferRequest } from '../harness/requests.js'
import { isSameOutput, outputOf } from '../harness/verify.js'

const OWNER_POLL_MS = 5
/** Then a client connects anew, so that workers that replaced others get their share. */
const REQUESTS_PER_CONNECTION = 50
/** A server that refuses is not asked again at once. */
const PAUSE_AFTER_REFUSAL_MS = 20
/** A connection may be dealt to a worker whose death was not noticed yet. */
const NOTICE_MS = 1000

export interface KnownAnswer {
  readonly request: InferRequest
  readonly output: readonly number[]
}

/** A worker that was killed in a way that cuts its requests off. */
export interface Cut {
  readonly pid: number
  readonly atMs: number
}

export interface LostRequest {
  readonly sentAtMs: number
  readonly lostAtMs: number
  readonly reason: string
  /** Null where the connection had not reached a worker. */
  readonly ownerPid: number | null
}

/** Counts of all clients; `answered` is read while they run. */
export interface Tally {
  sent: number
  answered: number
  refused: number
  readonly wrong: string[]
  /** The worker that held the connection was killed. */
  readonly cutOff: LostRequest[]
  /** No worker had the connection yet, and one was just killed. */
  readonly cutOffOnTheWay: LostRequest[]
  /** Nothing explains these. */
  readonly unexplained: LostRequest[]
}

export function newTally(): Tally {
  return { sent: 0, answered: 0, refused: 0, wrong: [], cutOff: [], cutOffOnTheWay: [], unexplained: [] }
}

export interface ClientOptions {
  readonly port: number
  readonly workerPids: () => readonly number[]
  readonly cuts: readonly Cut[]
  readonly tally: Tally
  readonly answers: readonly KnownAnswer[]
  /** Between an answer and the next request of a client. */
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
      const isRefused = await this.#ask(answers[index % answers.length] as KnownAnswer)
      const ms = isRefused ? PAUSE_AFTER_REFUSAL_MS : pauseMs
      if (ms > 0) await pause(ms)
    }
    this.#agent.destroy()
  }

  /** True when the server had no room for the request, or was not there. */
  async #ask(known: KnownAnswer): Promise<boolean> {
    const { tally } = this.#options
    const sentAtMs = performance.now()
    tally.sent++
    const isLast = ++this.#count % REQUESTS_PER_CONNECTION === 0
    const headers = { ...known.request.headers, ...(isLast ? { Connection: 'close' } : {}) }
    const reply = await send({
      ...{ agent: this.#agent, port: this.#options.port, request: { ...known.request, headers } },
      onSocket: (socket) => this.#take(socket),
    }).catch((thrown: Error) => thrown)
    if (reply instanceof Error) {
      const reason = (reply as NodeJS.ErrnoException).code ?? reply.message
      this.#takeLost({
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

  #takeLost(lost: LostRequest): void {
    const { cuts, tally } = this.#options
    if (cuts.some(({ pid }) => pid === lost.ownerPid)) tally.cutOff.push(lost)
    else if (
      lost.ownerPid === null &&
      lost.reason !== 'ECONNREFUSED' &&
      cuts.some(({ atMs }) => atMs >= lost.sentAtMs - NOTICE_MS && atMs <= lost.lostAtMs)
    )
      tally.cutOffOnTheWay.push(lost)
    else tally.unexplained.push(lost)
  }

  #take(socket: Socket): void {
    if (socket === this.#socket) return
    this.#socket = socket
    if (socket.connecting) socket.once('connect', () => this.#findOwner(socket))
    else this.#findOwner(socket)
  }

  /** The primary accepts a connection and hands it on: its worker is known a moment later. */
  #findOwner(socket: Socket): void {
    if (socket.destroyed || socket.localPort === undefined) return
    const { port, workerPids } = this.#options
    const ownerPid = ownerOf({ port, workerPids: workerPids() }, socket.localPort)
    if (ownerPid !== null) this.#owners.set(socket, ownerPid)
    else setTimeout(() => this.#findOwner(socket), OWNER_POLL_MS)
  }
}

/** What is wrong with an answer that came whole; null when it is right. */
function problemOf(reply: Answer, expected: readonly number[]): string | null {
  if (reply.status !== 200) return `status ${reply.status}: ${reply.body.toString().slice(0, 200)}`
  try {
    const got = outputOf(reply)
    return isSameOutput(expected, got) ? null : `expected ${expected.join(' ')}, got ${got.join(' ')}`
  } catch (thrown) {
    return `unreadable: ${String(thrown)}`
  }
}
