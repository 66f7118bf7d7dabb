/**
 * Shows one copy of the weights, with the memory statistics of the kernel.
 *
 * onecopy and plain Koa serve the same 200 MB model. Next to each runs the same server with a model of the
 * same interface and almost no weights. All get the same requests and stay alive while memory is read. The
 * private memory minus that of the bare server is the cost of the weights per worker.
 */
import { defineBench } from './harness/bench.js'
import { sendToEach } from './harness/connections.js'
import { memoryOf, settle } from './harness/footprint.js'
import { countOption } from './harness/options.js'
import { mappedMemory } from './harness/processes.js'
import { createProgress, type Progress } from './harness/progress.js'
import type { BenchReport, Check } from './harness/report.js'
import { inferRequests } from './harness/requests.js'
import { type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber, quantile } from './harness/statistics.js'
import { verifySameAnswers } from './harness/verify.js'
import type { GeneratedModel } from './models/store.js'
import { modelOption } from './models/subject.js'
import { benchModel } from './rows/row.js'

const BAR_MB = 40
/** A plain worker has at least the raw weights or a packed copy; below that, the method is wrong. */
const CONTROL_SHARE_OF_WEIGHTS = 1

interface MemoryOptions {
  readonly workers: number
  readonly requests: number
  readonly model: string
}

interface WorkerMemory {
  readonly pid: number
  readonly privateMb: number
  /** Resident pages of the segment that other processes map too. */
  readonly segmentSharedMb: number
  readonly segmentPrivateMb: number
}

interface MeasuredServer {
  readonly name: string
  readonly workers: readonly WorkerMemory[]
}

async function measure({ name, workerPids, segmentDir }: RunningServer): Promise<MeasuredServer> {
  const workers = await Promise.all(
    workerPids.map(async (pid) => {
      const memory = await memoryOf(pid)
      const segment = segmentDir === null ? null : await mappedMemory(pid, segmentDir)
      return {
        pid,
        privateMb: memory.privateBytes / 1e6,
        segmentSharedMb: (segment?.sharedBytes ?? 0) / 1e6,
        segmentPrivateMb: (segment?.privateBytes ?? 0) / 1e6,
      }
    }),
  )
  return { name, workers }
}

interface Servers {
  readonly onecopy: RunningServer
  readonly onecopyBare: RunningServer
  readonly plain: RunningServer
  readonly plainBare: RunningServer
  readonly bareWorker: RunningServer
}

async function startAll(options: {
  readonly stage: Stage
  readonly model: GeneratedModel
  readonly tiny: GeneratedModel
  readonly workers: number
  readonly progress: Progress
}): Promise<Servers> {
  const { stage, model, tiny, workers, progress } = options
  progress.step('starting onecopy, compiling a new model')
  const onecopy = await startOnecopy({ stage, model, workers })
  const onecopyBare = await startOnecopy({ stage, model: tiny, workers, name: 'onecopy, no weights' })
  progress.step('starting plain Koa')
  const plain = await startVariant('plain-koa', { stage, model, workers })
  const plainBare = await startVariant('plain-koa', {
    stage,
    model: tiny,
    workers,
    name: 'plain-koa, no weights',
  })
  const bareWorker = await startVariant('bare-worker', {
    stage,
    model: tiny,
    workers,
    name: 'Koa and the library',
  })
  return { onecopy, onecopyBare, plain, plainBare, bareWorker }
}

function medianPrivateMb({ workers }: MeasuredServer): number {
  return quantile(
    workers.map(({ privateMb }) => privateMb),
    0.5,
  )
}

function aboveBare(server: MeasuredServer, bare: MeasuredServer): number[] {
  return server.workers.map(({ privateMb }) => privateMb - medianPrivateMb(bare))
}

function checksOf(options: {
  readonly onecopyMb: readonly number[]
  readonly plainMb: readonly number[]
  readonly weightsMb: number
}): Check[] {
  const { onecopyMb, plainMb, weightsMb } = options
  const list = (values: readonly number[]) => `${values.map(formatNumber).join(' / ')} MB`
  return [
    {
      claim: 'private memory of a onecopy worker above a bare one',
      got: list(onecopyMb),
      bar: `at most ${BAR_MB} MB each`,
      isMet: onecopyMb.every((mb) => mb <= BAR_MB),
    },
    {
      claim: 'control: the same for a plain Koa worker, which has its own copies',
      got: list(plainMb),
      bar: `at least the weights, ${formatNumber(weightsMb * CONTROL_SHARE_OF_WEIGHTS)} MB (about 330 MB measured before)`,
      isMet: plainMb.every((mb) => mb >= weightsMb * CONTROL_SHARE_OF_WEIGHTS),
    },
  ]
}

async function memoryBench({
  workers,
  requests: count,
  model: modelName,
}: MemoryOptions): Promise<BenchReport> {
  await using stage = new Stage()
  using progress = createProgress('worker-memory', 5)
  const model = await benchModel(modelName)
  if (model.recipe.kind !== 'mlp') throw new Error(`expected an mlp, got ${modelName}`)
  const tiny = await benchModel(`tiny-${model.recipe.width}`)
  const servers = await startAll({ stage, model, tiny, workers, progress })
  const all = Object.values(servers) as RunningServer[]
  // Half in JSON, half in binary, so that memory used by both codecs counts.
  const requestsFor = ({ recipe }: GeneratedModel) => [
    ...inferRequests(recipe, { encoding: 'json', count: 8 }),
    ...inferRequests(recipe, { encoding: 'binary', count: 8 }),
  ]
  await verifySameAnswers([servers.plain, servers.onecopy], requestsFor(model))
  await verifySameAnswers([servers.plainBare, servers.onecopyBare], requestsFor(tiny))
  progress.step(`${count} requests to each worker`)
  for (const server of all) {
    const isBare = server !== servers.onecopy && server !== servers.plain
    await sendToEach(server, { requests: requestsFor(isBare ? tiny : model), count })
  }
  progress.step('settling')
  await Promise.all(all.map(settle))
  progress.step('reading /proc')
  const [onecopy, onecopyBare, plain, plainBare, bareWorker] = (await Promise.all(all.map(measure))) as [
    MeasuredServer,
    MeasuredServer,
    MeasuredServer,
    MeasuredServer,
    MeasuredServer,
  ]
  const onecopyMb = aboveBare(onecopy, onecopyBare)
  const plainMb = aboveBare(plain, plainBare)
  // The strictest measure: it includes everything that the server adds to Koa and the library.
  const beyondLibraryMb = (worker: WorkerMemory) => worker.privateMb - medianPrivateMb(bareWorker)
  const rows = (server: MeasuredServer, beyondMb: readonly number[]) =>
    server.workers.map((worker, index) => [
      `${server.name} ${index + 1}`,
      formatNumber(worker.privateMb),
      formatNumber(beyondMb[index] ?? Number.NaN),
      formatNumber(beyondLibraryMb(worker)),
      formatNumber(worker.segmentSharedMb),
      formatNumber(worker.segmentPrivateMb),
    ])
  return {
    name: 'worker-memory',
    title: `${model.name} (${formatMb(model.bytes)} MB), ${workers} workers, after ${count} requests to each`,
    table: {
      head: [
        'worker',
        'private MB',
        'minus bare MB',
        'minus Koa and library MB',
        'segment, shared MB',
        'segment, private MB',
      ],
      rows: [...rows(onecopy, onecopyMb), ...rows(plain, plainMb)],
    },
    checks: checksOf({ onecopyMb, plainMb, weightsMb: model.bytes / 1e6 }),
    notes: [onecopyBare, plainBare, bareWorker].map(
      (server) =>
        `bare: ${server.name}, median private memory of a worker ${formatNumber(medianPrivateMb(server))} MB`,
    ),
    charts: [
      {
        kind: 'bars',
        title: `private memory of a worker above a bare one, ${model.name}`,
        unit: 'MB',
        bars: [
          ...onecopyMb.map((value, index) => ({ label: `onecopy ${index + 1}`, value })),
          ...plainMb.map((value, index) => ({ label: `plain-koa ${index + 1}`, value })),
        ],
      },
    ],
    setting: { workers, requests: count, model, tiny },
    raw: { onecopy, onecopyBare, plain, plainBare, bareWorker },
  }
}

export const workerMemory = defineBench({
  name: 'worker-memory',
  summary:
    'Private memory of each worker for a model, compared with a plain Koa cluster and with bare workers.',
  options: {
    workers: countOption({ help: 'Workers of each server', default: '4' }),
    requests: countOption({ help: 'Requests to each worker', default: '60', quick: '16' }),
    model: modelOption({ help: 'An mlp', default: 'mlp-12x2048' }),
  },
  failsWhen: `a worker of onecopy has more than ${BAR_MB} MB above a bare one`,
  reports: (options) => [() => memoryBench(options)],
})
