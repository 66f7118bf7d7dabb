/**
 * HTTP must respond while a model runs for half a second, and while large JSON is decoded and
 * encoded. One worker computes long requests without a pause, and a client polls its liveness
 * route.
 */
import { Agent } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { send } from '../harness/client.js'
import { createProgress } from '../harness/progress.js'
import { type Encoding, encodeRequest, type InferRequest, inputTensors } from '../harness/requests.js'
import { startOnecopy } from '../harness/servers.js'
import { formatNumber, quantile } from '../harness/statistics.js'
import { benchModel, type Row } from './row.js'

const MODEL = 'mlp-12x2048'
/** About half a second of one core. */
const ROWS = 1024
const LIVE: InferRequest = { method: 'GET', path: '/v2/health/live', headers: {}, body: Buffer.alloc(0) }
const LIVE_BAR_MS = 20
const LAG_BAR_MS = 10

async function eventLoopLagMs(adminPort: number): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text()
  return Number(text.match(/^onecopy_event_loop_lag_seconds (\S+)$/m)?.[1]) * 1000
}

const headOfLineRow = (row: { readonly name: string; readonly encoding: Encoding }): Row => ({
  name: row.name,
  title: `${MODEL}, ${ROWS} rows per request as ${row.encoding}: liveness of the same worker`,
  run: async ({ name, title, stage, options }) => {
    const model = await benchModel(MODEL)
    const long = inputTensors(model.recipe, 2, ROWS).map((tensor) =>
      encodeRequest(model.recipe, tensor, row.encoding),
    )
    const server = await startOnecopy({ stage, model, workers: 1 })
    const agent = new Agent({ keepAlive: true })
    using progress = createProgress(name, 1)
    const computeMs: number[] = []
    const liveMs: number[] = []
    let lagMs = Number.NaN
    try {
      progress.step('measuring')
      await eventLoopLagMs(server.adminPort ?? 0)
      const endMs = performance.now() + options.seconds * 1000
      const compute = async () => {
        for (let i = 0; performance.now() < endMs; i++) {
          const startedMs = performance.now()
          await send({ agent, port: server.port, request: long[i % long.length] as InferRequest })
          computeMs.push(performance.now() - startedMs)
        }
      }
      const poll = async () => {
        while (performance.now() < endMs) {
          const startedMs = performance.now()
          await send({ agent, port: server.port, request: LIVE })
          liveMs.push(performance.now() - startedMs)
          await pause(2)
        }
      }
      await Promise.all([compute(), poll()])
      lagMs = await eventLoopLagMs(server.adminPort ?? 0)
      server.child.assertAlive()
    } finally {
      agent.destroy()
    }
    const liveP99Ms = quantile(liveMs, 0.99)
    return {
      name,
      title,
      table: {
        head: ['measure', 'p50 ms', 'p99 ms', 'samples'],
        rows: [
          [
            'long request',
            formatNumber(quantile(computeMs, 0.5)),
            formatNumber(quantile(computeMs, 0.99)),
            `${computeMs.length}`,
          ],
          ['liveness', formatNumber(quantile(liveMs, 0.5)), formatNumber(liveP99Ms), `${liveMs.length}`],
          ['event-loop lag of the worker', '', formatNumber(lagMs), ''],
        ],
      },
      checks: [
        {
          claim: 'p99 of liveness',
          got: `${formatNumber(liveP99Ms)} ms`,
          bar: `at most ${LIVE_BAR_MS} ms`,
          isMet: liveP99Ms <= LIVE_BAR_MS,
        },
        {
          claim: 'p99 of event-loop lag',
          got: `${formatNumber(lagMs)} ms`,
          bar: `at most ${LAG_BAR_MS} ms`,
          isMet: lagMs <= LAG_BAR_MS,
        },
      ],
      notes: [],
      charts: [],
      setting: { ...options, workers: 1, model, rows: ROWS, encoding: row.encoding },
      raw: { computeMs, liveMs, lagMs },
    }
  },
})

export const headOfLine = headOfLineRow({ name: 'head-of-line', encoding: 'binary' })
export const headOfLineJson = headOfLineRow({ name: 'head-of-line-json', encoding: 'json' })
