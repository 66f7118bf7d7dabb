/** Requests outside the measurement: the first one, and those that warm up a server. */
import { Agent } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { send } from './client.js'
import { sendToEach } from './connections.js'
import type { InferRequest } from './requests.js'
import type { RunningServer } from './servers.js'
import type { Variant } from './variants.js'

/** Short, because the interval is part of the measurement. */
const RETRY_MS = 5

/** Sends a request again and again to a server that starts, until the status is 200 or `signal` aborts. */
export async function untilAnswered(options: {
  readonly port: number
  readonly request: InferRequest
  readonly signal: AbortSignal
}): Promise<void> {
  const { port, request, signal } = options
  const agent = new Agent()
  try {
    while (!signal.aborted) {
      const answer = await send({ agent, port, request }).catch(() => null)
      if (answer?.status === 200) return
      await pause(RETRY_MS)
    }
  } finally {
    agent.destroy()
  }
}

/** @throws Error unless the status is 200. */
export async function sendOnce(server: RunningServer, request: InferRequest): Promise<void> {
  const agent = new Agent()
  try {
    const { status, body } = await send({ agent, port: server.port, request })
    if (status !== 200) throw new Error(`${server.name}: expected status 200, got ${status}: ${body}`)
  } finally {
    agent.destroy()
  }
}

/**
 * Sends `count` requests to each worker. If workers cannot be identified, sends as many in total over four
 * concurrent connections per worker, so that few workers stay idle.
 */
export async function sendToWorkers(
  variant: Variant,
  server: RunningServer,
  options: { readonly requests: readonly InferRequest[]; readonly count: number; readonly workers: number },
): Promise<void> {
  if (variant.hasKnownWorkers) return await sendToEach(server, options)
  const { requests, count, workers } = options
  const connections = Array.from({ length: workers * 4 }, async (_, index) => {
    for (let i = 0; i < Math.ceil(count / 4); i++) {
      await sendOnce(server, requests[(index + i) % requests.length] as InferRequest)
    }
  })
  await Promise.all(connections)
}
