/**
 * Memory of attached workers, of workers that load the model and of bare workers, after the same
 * requests.
 */
import { sendToEach } from '../harness/connections.js'
import { hostMemory, privateBytes, settle } from '../harness/footprint.js'
import { createProgress } from '../harness/progress.js'
import type { BenchReport, Check } from '../harness/report.js'
import { type RunningServer, startVariant } from '../harness/servers.js'
import { Stage } from '../harness/stage.js'
import { formatMb, formatNumber, quantile } from '../harness/statistics.js'
import { findSubject, requestsTo } from '../models/subject.js'
import { startClusters } from './clusters.js'

const BAR_MB = 40
const MB = 1e6

interface Options {
  readonly workers: readonly number[]
  readonly requests: number
}

interface Held {
  readonly name: string
  /** Private memory of each worker. */
  readonly privateMb: readonly number[]
  /** Memory of the cluster, each page counted once. The attached cluster includes the owner. */
  readonly hostMb: number
}

function median(held: Held): number {
  return quantile(held.privateMb, 0.5)
}

async function heldBy(server: RunningServer, hostBytes: number): Promise<Held> {
  const held: number[] = []
  for (const pid of server.workerPids) held.push(await privateBytes(pid))
  return { name: server.name, privateMb: held.map((bytes) => bytes / MB), hostMb: hostBytes / MB }
}

async function measure(modelName: string, workers: number, count: number) {
  await using stage = new Stage()
  const model = await findSubject(modelName)
  const { owner, attached, plain } = await startClusters(stage, model, workers)
  // At least two, so that pages of the library are shared.
  const bare = await startVariant('bare-worker', { stage, model, workers: Math.max(2, workers) })
  const requests = requestsTo(model, { encoding: 'binary', count: 16 })
  const idle = await heldBy(bare, 0)
  for (const server of [attached, plain, bare]) await sendToEach(server, { requests, count })
  for (const server of [owner, attached, plain, bare]) await settle(server)
  const ofOwner = (await hostMemory(owner)).totalBytes
  // The segment counts once, with its owner.
  const { proportionalBytes, segmentMappedBytes } = await hostMemory({
    ...attached,
    segmentDir: owner.segmentDir,
  })
  return {
    workers,
    idle,
    bare: await heldBy(bare, (await hostMemory(bare)).totalBytes),
    attached: await heldBy(attached, proportionalBytes - segmentMappedBytes + ofOwner),
    plain: await heldBy(plain, (await hostMemory(plain)).totalBytes),
  }
}

export async function memoryReport(modelName: string, options: Options): Promise<BenchReport> {
  const model = await findSubject(modelName)
  using progress = createProgress(`attach ${model.name}, memory`, options.workers.length)
  const measured: Awaited<ReturnType<typeof measure>>[] = []
  for (const workers of options.workers) {
    progress.step(`${workers} workers`)
    measured.push(await measure(modelName, workers, options.requests))
  }
  const rows = measured.flatMap(({ workers, idle, bare, attached, plain }) =>
    [bare, attached, plain].map((held) => [
      String(workers),
      held.name,
      formatNumber(median(held)),
      formatNumber(median(held) - median(bare)),
      formatNumber(median(held) - median(idle)),
      formatNumber(held.hostMb),
    ]),
  )
  return {
    name: `attach-memory-${model.name}`,
    title: `${model.name} (${formatMb(model.bytes)} MB): memory of an attached Koa cluster, after ${options.requests} requests to each worker`,
    table: {
      head: [
        'workers',
        'cluster',
        'private MB per worker',
        'minus bare',
        'minus idle bare',
        'host memory MB',
      ],
      rows,
    },
    checks: measured.map(({ workers, bare, attached }): Check => {
      const above = median(attached) - median(bare)
      return {
        claim: `private memory of an attached worker minus a bare one, ${workers} workers`,
        ...{ bar: `${BAR_MB} MB`, got: `${formatNumber(above)} MB`, isMet: above <= BAR_MB },
      }
    }),
    notes: [
      'bare-worker: Koa and the runtime without a model, after the same requests; idle bare: before any request',
      'private: Private_Clean plus Private_Dirty of smaps_rollup, median of the workers; host memory: each page counts once, and attached-koa includes the owner',
    ],
    charts: [],
    setting: { model, ...options },
    raw: measured,
  }
}
