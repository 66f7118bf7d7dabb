/** Requests that are not measured: the first one, and those that bring a server to its working weight. */
import { Agent } from 'node:http'
import { send } from './client.js'
import { sendToEach } from './connections.js'
import type { InferRequest } from './requests.js'
import type { RunningServer } from './servers.js'
import type { Variant } from './variants.js'

/** @throws Error when the answer is not a 200. */
export async function askOnce(server: RunningServer, request: InferRequest): Promise<void> {
  const agent = new Agent()
  try {
    const { status, body } = await send({ agent, port: server.port, request })
    if (status !== 200) throw new Error(`${server.name}: expected status 200, got ${status}: ${body}`)
  } finally {
    agent.destroy()
  }
}

/**
 * `count` requests to each worker. Where nobody can tell which worker answers, as many in all, over four
 * connections a worker at once: what chance leaves idle weighs less than it could.
 */
export async function askAll(
  variant: Variant,
  server: RunningServer,
  options: { readonly requests: readonly InferRequest[]; readonly count: number; readonly workers: number },
): Promise<void> {
  if (variant.hasKnownWorkers) return await sendToEach(server, options)
  const { requests, count, workers } = options
  const connections = Array.from({ length: workers * 4 }, async (_, index) => {
    for (let i = 0; i < Math.ceil(count / 4); i++) {
      await askOnce(server, requests[(index + i) % requests.length] as InferRequest)
    }
  })
  await Promise.all(connections)
}
