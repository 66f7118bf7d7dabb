/**
 * Open-loop load: sends requests at a constant rate, regardless of responses, like many independent clients.
 * Latency counts from the time a request was due, so that neither a slow server nor a slow client hides
 * queueing time (coordinated omission).
 */
import { Agent } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { send } from './client.js'
import type { InferRequest } from './requests.js'

export interface OpenLoopOptions {
  readonly port: number
  readonly requests: readonly InferRequest[]
  readonly ratePerSecond: number
  readonly seconds: number
}

export interface OpenLoopAnswer {
  /**
   * HTTP status; 0 for a connection error, -1 for a request that was not sent because of too many in flight.
   */
  readonly status: number
  /** Since the start of the run. */
  readonly dueMs: number
  readonly endedMs: number
  readonly latencyMs: number
}

export interface OpenLoopResult {
  readonly answers: readonly OpenLoopAnswer[]
  /** Delay of each request in the client. Latencies include it. */
  readonly sendLagsMs: readonly number[]
  readonly elapsedMs: number
}

/** Below the usual limit of open files. A server this far behind has failed anyway. */
const MAX_IN_FLIGHT = 8000

export async function openLoop({
  port,
  requests,
  ratePerSecond,
  seconds,
}: OpenLoopOptions): Promise<OpenLoopResult> {
  const agent = new Agent({ keepAlive: true, maxFreeSockets: MAX_IN_FLIGHT })
  const answers: OpenLoopAnswer[] = []
  const sendLagsMs: number[] = []
  const total = Math.round(ratePerSecond * seconds)
  const inFlight = new Set<Promise<void>>()
  const startedMs = performance.now()

  const sendOne = (index: number, dueMs: number) => {
    const record = (status: number) => {
      const endedMs = performance.now() - startedMs
      answers.push({ status, dueMs, endedMs, latencyMs: endedMs - dueMs })
    }
    const request = requests[index % requests.length]
    if (request === undefined) throw new Error('expected at least one request')
    if (inFlight.size >= MAX_IN_FLIGHT) {
      record(-1)
      return
    }
    sendLagsMs.push(performance.now() - startedMs - dueMs)
    const answered = send({ agent, port, request }).then(
      ({ status }) => record(status),
      () => record(0),
    )
    inFlight.add(answered)
    void answered.then(() => inFlight.delete(answered))
  }

  for (let index = 0; index < total; ) {
    const dueCount = Math.min(total, Math.floor(((performance.now() - startedMs) * ratePerSecond) / 1000) + 1)
    for (; index < dueCount; index++) sendOne(index, (index * 1000) / ratePerSecond)
    await pause(1)
  }
  const elapsedMs = performance.now() - startedMs
  await Promise.all(inFlight)
  agent.destroy()
  return { answers, sendLagsMs, elapsedMs }
}
