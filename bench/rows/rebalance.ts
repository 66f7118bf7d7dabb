/**
 * Keep-alive connections that all reached one worker: the others must not stay idle. The load of a worker is
 * its CPU time, which covers both requests handed over inside the server and connections that move. The table
 * also shows which worker holds the connections.
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

interface Sample {
  readonly atMs: number
  /** By worker, in the order of their pids, since the start. */
  readonly cpuSeconds: readonly number[]
  readonly requests: readonly number[]
}

async function drive(options: {
  readonly server: RunningServer
  readonly connections: readonly Connection[]
  readonly requests: readonly InferRequest[]
  readonly durationMs: number
}): Promise<{ samples: Sample[]; failures: number }> {
  const { server, connections, requests, durationMs } = options
  const counts = new Map<number | null, number>()
  let failures = 0
  const startedMs = performance.now()
  const startCpu = server.workerPids.map(cpuSeconds)
  const sample = (): Sample => ({
    atMs: performance.now() - startedMs,
    cpuSeconds: server.workerPids.map((pid, index) => cpuSeconds(pid) - (startCpu[index] ?? 0)),
    requests: server.workerPids.map((pid) => counts.get(pid) ?? 0),
  })
  const samples = [sample()]
  const timer = setInterval(() => samples.push(sample()), SAMPLE_MS)
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
  return { samples: [...samples, sample()], failures }
}

/** Share of each worker between two samples. */
function shares(from: Sample, to: Sample, count: 'cpuSeconds' | 'requests'): number[] {
  const parts = to[count].map((value, index) => value - (from[count][index] ?? 0))
  const total = parts.reduce((sum, part) => sum + part, 0)
  return parts.map((part) => (total === 0 ? 0 : part / total))
}

function percent(values: readonly number[]): string {
  return values.map((value) => `${(value * 100).toFixed(0)}%`).join(' / ')
}

export const rebalance: Row = {
  name: 'rebalance',
  title: `${MODEL}, JSON, ${CONNECTIONS} keep-alive connections that start at one of ${WORKERS} workers`,
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
    const { samples, failures } = await drive({ server, connections, requests, durationMs })
    for (const connection of connections) connection.close()
    server.child.assertAlive()
    const first = samples[0] as Sample
    const settled = samples.find(({ atMs }) => atMs >= SETTLED_AFTER_MS) ?? first
    const last = samples.at(-1) as Sample
    const settledShares = shares(settled, last, 'cpuSeconds')
    const periods = [
      { label: 'first 2 s', from: first, to: settled },
      { label: 'after 2 s', from: settled, to: last },
    ]
    return {
      name,
      title,
      table: {
        head: ['period', 'CPU time by worker', 'requests by worker of the connection', 'requests'],
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
          claim: 'requests lost while connections moved',
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
            points: samples.map((one) => [one.atMs / 1000, one.cpuSeconds[index] ?? 0] as const),
          })),
        },
      ],
      setting: { ...options, workers: WORKERS, model, connections: CONNECTIONS },
      raw: { samples, failures },
    }
  },
}
