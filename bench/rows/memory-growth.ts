/**
 * Checks that workers stop growing: sends batches of every size and samples private memory. The JavaScript
 * heap varies by more than the bar between two samples. Growth is therefore the trend over all samples of the
 * second half.
 */
import { type Connection, connectTo } from '../harness/connections.js'
import { privateBytes } from '../harness/footprint.js'
import { createProgress } from '../harness/progress.js'
import { type InferRequest, inferRequests } from '../harness/requests.js'
import { type RunningServer, startOnecopy } from '../harness/servers.js'
import { formatNumber, trendSlope } from '../harness/statistics.js'
import { benchModel, type Row } from './row.js'

const MODEL = 'mlp-6x512'
const CONNECTIONS_PER_WORKER = 4
/** Even, so that a stage ends exactly in the middle. */
const STAGES = 20
const BAR_MB = 5
/** Rows of a request. Large ones only in binary, because JSON would cost more than the model. */
const BINARY_ROWS = [1, 2, 3, 5, 8, 13, 21, 32]
const JSON_ROWS = [1, 2, 4]
const REQUESTS_PER_SIZE = 4

async function privateMb({ workerPids }: RunningServer): Promise<number[]> {
  return (await Promise.all(workerPids.map(privateBytes))).map((bytes) => bytes / 1e6)
}

async function sendMany(
  connections: readonly Connection[],
  requests: readonly InferRequest[],
  count: number,
) {
  let sent = 0
  await Promise.all(
    connections.map(async (connection) => {
      while (sent < count) {
        const { status } = await connection.send(requests[sent++ % requests.length] as InferRequest)
        if (status !== 200) throw new Error(`expected status 200, got ${status}`)
      }
    }),
  )
}

async function connectToEach(server: RunningServer, probe: InferRequest): Promise<Connection[][]> {
  const byWorker: Connection[][] = []
  for (const ownerPid of server.workerPids) {
    byWorker.push(await connectTo({ server, ownerPid, count: CONNECTIONS_PER_WORKER, probe }))
  }
  return byWorker
}

export const memoryGrowth: Row = {
  name: 'memory-growth',
  title: `${MODEL}, private memory of each worker over mixed batches`,
  run: async ({ name, title, stage, options }) => {
    const { workers, batches } = options
    const model = await benchModel(MODEL)
    const requests = [
      ...BINARY_ROWS.map((rows) => ({ rows, encoding: 'binary' as const })),
      ...JSON_ROWS.map((rows) => ({ rows, encoding: 'json' as const })),
    ].flatMap((set) => inferRequests(model.recipe, { ...set, count: REQUESTS_PER_SIZE }))
    // At least two workers: segment pages mapped by one process count as private.
    const server = await startOnecopy({ stage, model, workers: Math.max(2, workers) })
    const connections = await connectToEach(server, requests[0] as InferRequest)
    using progress = createProgress(name, STAGES)
    const measured: number[][] = [await privateMb(server)]
    try {
      for (let at = 1; at <= STAGES; at++) {
        progress.step(`${Math.round((batches * at) / STAGES)} of ${batches} batches to each worker`)
        await Promise.all(connections.map((own) => sendMany(own, requests, batches / STAGES)))
        measured.push(await privateMb(server))
      }
    } finally {
      for (const connection of connections.flat()) connection.close()
    }
    server.child.assertAlive()
    const at = (stageIndex: number, worker: number) => measured[stageIndex]?.[worker] ?? Number.NaN
    const growthMb = server.workerPids.map((_, worker) => {
      const secondHalf = measured.slice(STAGES / 2).map((mb) => mb[worker] ?? Number.NaN)
      return trendSlope(secondHalf) * (secondHalf.length - 1)
    })
    return {
      name,
      title,
      table: {
        head: ['worker', 'at start MB', 'at half MB', 'at end MB', 'trend of second half MB'],
        rows: server.workerPids.map((_, worker) => [
          String(worker + 1),
          ...[at(0, worker), at(STAGES / 2, worker), at(STAGES, worker), growthMb[worker] ?? Number.NaN].map(
            formatNumber,
          ),
        ]),
      },
      checks: [
        {
          claim: `growth in the second half of ${batches} batches to each worker`,
          got: `${growthMb.map(formatNumber).join(' / ')} MB`,
          bar: `below ${BAR_MB} MB each`,
          isMet: growthMb.every((growth) => growth < BAR_MB),
        },
      ],
      notes: [],
      charts: [
        {
          kind: 'lines',
          title,
          xLabel: 'batches',
          yLabel: 'private MB',
          series: server.workerPids.map((_, worker) => ({
            label: `worker ${worker + 1}`,
            points: measured.map((mb, index) => [(batches * index) / STAGES, mb[worker] ?? 0] as const),
          })),
        },
      ],
      setting: { ...options, model, connectionsPerWorker: CONNECTIONS_PER_WORKER },
      raw: measured,
    }
  },
}
