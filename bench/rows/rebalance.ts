/**
 * Keep-alive connections that all landed on one worker: the others must not stay idle. What a worker
 * carries is judged by its CPU time, which sees work that is handed over inside the server as well as
 * connections that move; who holds the connections of the requests is shown beside it.
 */
import { type Connection, connectTo } from '../harness/connections.js'
import { cpuSeconds } from '../harness/processes.js'
import { createProgress } from '../harness/progress.js'
import { type InferRequest, inferRequests } from '../harness/requests.js'
import { type RunningServer, startOnecopy } from '../harness/servers.js'
import { benchModel, type Row } from './row.js'

const MODEL = 'mlp-6x512'
const CONNECTIONS = 4
const WORKERS = 2
const REQUEST_COUNT = 16
const SETTLED_AFTER_MS = 2000
const SAMPLE_MS = 500
const BAR = { low: 0.4, high: 0.6 }

interface Moment {
  readonly atMs: number
  /** By worker, in the order of their pids: since the start. */
  readonly cpuSeconds: readonly number[]
  readonly requests: readonly number[]
}

async function drive(options: {
  readonly server: RunningServer
  readonly connections: readonly Connection[]
  readonly requests: readonly InferRequest[]
  readonly durationMs: number
}): Promise<{ moments: Moment[]; failures: number }> {
  const { server, connections, requests, durationMs } = options
  const counts = new Map<number | null, number>()
  let failures = 0
  const startedMs = performance.now()
  const startCpu = server.workerPids.map(cpuSeconds)
  const look = (): Moment => ({
    atMs: performance.now() - startedMs,
    cpuSeconds: server.workerPids.map((pid, index) => cpuSeconds(pid) - (startCpu[index] ?? 0)),
    requests: server.workerPids.map((pid) => counts.get(pid) ?? 0),
  })
  const moments = [look()]
  const timer = setInterval(() => moments.push(look()), SAMPLE_MS)
  const loops = connections.map(async (connection, offset) => {
    for (let index = offset; performance.now() - startedMs < durationMs; index++) {
      const request = requests[index % requests.length] as InferRequest
      try {
        const { status } = await connection.send(request)
        if (status !== 200) failures++
        counts.set(connection.ownerPid, (counts.get(connection.ownerPid) ?? 0) + 1)
      } catch {
        failures++
      }
    }
  })
  await Promise.all(loops)
  clearInterval(timer)
  return { moments: [...moments, look()], failures }
}

/** Share of each worker in what was counted between two moments. */
function shares(from: Moment, to: Moment, count: 'cpuSeconds' | 'requests'): number[] {
  const parts = to[count].map((value, index) => value - (from[count][index] ?? 0))
  const total = parts.reduce((sum, part) => sum + part, 0)
  return parts.map((part) => (total === 0 ? 0 : part / total))
}

function percent(values: readonly number[]): string {
  return values.map((value) => `${(value * 100).toFixed(0)}%`).join(' / ')
}

export const rebalance: Row = {
  name: 'rebalance',
  title: `${MODEL}, JSON, ${CONNECTIONS} keep-alive connections that begin at one of ${WORKERS} workers`,
  run: async ({ name, title, stage, options }) => {
    const model = await benchModel(MODEL)
    const requests = inferRequests(model.recipe, { encoding: 'json', count: REQUEST_COUNT })
    const server = await startOnecopy({ stage, model, workers: WORKERS })
    using progress = createProgress(name, 2)
    progress.step('connecting')
    const [ownerPid] = server.workerPids as [number]
    const probe = requests[0] as InferRequest
    const connections = await connectTo({ server, ownerPid, count: CONNECTIONS, probe })
    progress.step('driving')
    const durationMs = SETTLED_AFTER_MS + options.seconds * 1000
    const { moments, failures } = await drive({ server, connections, requests, durationMs })
    for (const connection of connections) connection.close()
    server.child.assertAlive()
    const first = moments[0] as Moment
    const settled = moments.find(({ atMs }) => atMs >= SETTLED_AFTER_MS) ?? first
    const last = moments.at(-1) as Moment
    const settledShares = shares(settled, last, 'cpuSeconds')
    const periods = [
      { label: 'first 2 s', from: first, to: settled },
      { label: 'after 2 s', from: settled, to: last },
    ]
    return {
      name,
      title,
      table: {
        head: ['period', 'CPU time by worker', 'requests by holder of the connection', 'requests'],
        rows: periods.map(({ label, from, to }) => [
          label,
          percent(shares(from, to, 'cpuSeconds')),
          percent(shares(from, to, 'requests')),
          String(to.requests.reduce((sum, count, index) => sum + count - (from.requests[index] ?? 0), 0)),
        ]),
      },
      checks: [
        {
          claim: 'share of each worker after 2 s',
          got: percent(settledShares),
          bar: '40-60%',
          isMet: settledShares.every((share) => share >= BAR.low && share <= BAR.high),
        },
        {
          claim: 'no request was lost while connections moved',
          got: `${failures} failures`,
          bar: '0',
          isMet: failures === 0,
        },
      ],
      notes: [],
      charts: [
        {
          kind: 'lines',
          title,
          xLabel: 'seconds',
          yLabel: 'CPU seconds so far',
          series: server.workerPids.map((_, index) => ({
            label: `worker ${index + 1}`,
            points: moments.map((moment) => [moment.atMs / 1000, moment.cpuSeconds[index] ?? 0] as const),
          })),
        },
      ],
      setting: { ...options, workers: WORKERS, model, connections: CONNECTIONS },
      raw: { moments, failures },
    }
  },
}
