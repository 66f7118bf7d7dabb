/**
 * Keep-alive connections that send requests without a pause, in this process. Every response is passed on
 * with its send time. The load can pause, so that memory is read while the server is idle.
 */
import { Agent } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { type Answer, send } from './client.js'
import type { InferRequest } from './requests.js'

const POLL_MS = 5
const PROGRESS_TIMEOUT_MS = 60_000

export interface AnswerInTime {
  readonly requestIndex: number
  readonly sentMs: number
  readonly answeredMs: number
  /** The response, or the error. */
  readonly outcome: Answer | Error
}

export interface SteadyLoadOptions {
  readonly port: number
  readonly requests: readonly InferRequest[]
  readonly connections: number
  readonly onAnswer: (answer: AnswerInTime) => void
}

export class SteadyLoad {
  readonly #options: SteadyLoadOptions
  readonly #agents: readonly Agent[]
  #running: Promise<unknown> = Promise.resolve()
  #isPaused = true
  #sent = 0
  #answered = 0

  constructor(options: SteadyLoadOptions) {
    this.#options = options
    this.#agents = Array.from(
      { length: options.connections },
      () => new Agent({ keepAlive: true, maxSockets: 1 }),
    )
  }

  /** Responses so far, including failures. */
  get answered(): number {
    return this.#answered
  }

  resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.#running = Promise.all(this.#agents.map((agent) => this.#sendRequests(agent)))
    this.#running.catch(() => {})
  }

  async #sendRequests(agent: Agent): Promise<void> {
    const { port, requests, onAnswer } = this.#options
    while (!this.#isPaused) {
      const requestIndex = this.#sent++ % requests.length
      const request = requests[requestIndex]
      if (request === undefined) throw new Error('expected at least one request')
      const sentMs = performance.now()
      const outcome = await send({ agent, port, request }).catch((thrown: Error) => thrown)
      this.#answered++
      onAnswer({ requestIndex, sentMs, answeredMs: performance.now(), outcome })
    }
  }

  /** Resolves after `count` more responses. */
  async more(count: number): Promise<void> {
    const until = this.#answered + count
    let deadlineMs = performance.now() + PROGRESS_TIMEOUT_MS
    for (let last = this.#answered; this.#answered < until; ) {
      await pause(POLL_MS)
      if (this.#answered > last) deadlineMs = performance.now() + PROGRESS_TIMEOUT_MS
      last = this.#answered
      if (performance.now() > deadlineMs) throw new Error(`no response for ${PROGRESS_TIMEOUT_MS} ms`)
    }
  }

  /** Resolves when no request is in flight; connections stay open. */
  async pause(): Promise<void> {
    this.#isPaused = true
    await this.#running
  }

  async close(): Promise<void> {
    await this.pause()
    for (const agent of this.#agents) agent.destroy()
  }
}
