/**
 * Closed-loop load: each connection sends its next request after the last response. Measures the throughput
 * of a server; its latencies apply to exactly that load.
 */
import autocannon from 'autocannon'
import { untilIdle } from './idle.js'
import type { InferRequest } from './requests.js'
import type { Arm, Sample } from './rounds.js'
import type { RunningServer } from './servers.js'
import { quantile } from './statistics.js'
import { hasWrk, wrkClosedLoop } from './wrk.js'

export interface ClosedLoopOptions {
  readonly port: number
  readonly requests: readonly InferRequest[]
  readonly connections: number
  readonly seconds: number
}

const TIMEOUT_SECONDS = 30
/** The generator ends at the first of its samples after the duration: a second, by default. */
const SAMPLE_MS = 50

/** Uses wrk if it is installed, else autocannon. */
export async function closedLoop(options: ClosedLoopOptions): Promise<Sample> {
  return hasWrk() ? await wrkClosedLoop(options) : await autocannonClosedLoop(options)
}

async function autocannonClosedLoop({
  port,
  requests,
  connections,
  seconds,
}: ClosedLoopOptions): Promise<Sample> {
  const latenciesMs: number[] = []
  let failures = 0
  const startedMs = performance.now()
  let lastMs = startedMs
  await new Promise<void>((resolve, reject) => {
    const load = autocannon(
      {
        url: `http://127.0.0.1:${port}`,
        connections,
        duration: seconds,
        timeout: TIMEOUT_SECONDS,
        sampleInt: SAMPLE_MS,
        // Copies, because the generator modifies its input.
        requests: requests.map(({ method, path, headers, body }) => ({
          method,
          path,
          body,
          headers: { ...headers },
        })),
      },
      (thrown: Error | null) => (thrown === null || thrown === undefined ? resolve() : reject(thrown)),
    )
    // Its own histogram has a resolution of one millisecond, too coarse for a small model.
    load.on('response', (_, statusCode, __, responseMs) => {
      lastMs = performance.now()
      if (statusCode === 200) latenciesMs.push(responseMs)
      else failures++
    })
    load.on('reqError', () => failures++)
  })
  return {
    requestsPerSecond: (latenciesMs.length * 1000) / (lastMs - startedMs),
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    failures,
  }
}

/**
 * A server under closed-loop load, as one side of a comparison. Waits until the server is idle after each
 * measurement.
 */
export function closedLoopArm(
  server: RunningServer,
  options: {
    readonly name?: string
    readonly requests: readonly InferRequest[]
    readonly connections: number
  },
): Arm {
  const { requests, connections, name = server.name } = options
  return {
    name,
    measure: async (seconds) => {
      const sample = await closedLoop({ port: server.port, requests, connections, seconds })
      server.child.assertAlive()
      await untilIdle(server.child.pid)
      return sample
    },
  }
}
