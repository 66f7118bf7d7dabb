/**
 * Many small models in one server.
 *
 * onecopy and plain Koa start in alternation on the same repository: many models in several versions, each
 * with its own weights. Every worker gets one request for each version, memory is read, and the server stops.
 * The first start of onecopy compiles everything; later ones use the cache.
 */
import { join } from 'node:path'
import { defineBench } from './harness/bench.js'
import { sendToEach } from './harness/connections.js'
import { folderUse, hostMemory, privateBytes, settle } from './harness/footprint.js'
import { countOption } from './harness/options.js'
import { MODELS_DIR } from './harness/paths.js'
import { createProgress, type Progress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { addressedTo, type InferRequest, inferRequests } from './harness/requests.js'
import { orderOf } from './harness/rounds.js'
import { emptyCache, type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber, formatSpread, quantile, type Spread, spread } from './harness/statistics.js'
import { spreadChart } from './harness/svg.js'
import { verifySameAnswers } from './harness/verify.js'
import { parseRecipe, type Recipe } from './models/recipes.js'
import { ensureModel, type GeneratedModel } from './models/store.js'
import { modelOption } from './models/subject.js'

interface ManyOptions {
  readonly models: number
  readonly versions: number
  readonly workers: number
  readonly model: string
  readonly rounds: number
}

interface Start {
  readonly server: string
  readonly readyMs: number
  readonly workerPrivateBytes: readonly number[]
  readonly segmentBytes: number
  readonly totalBytes: number
  readonly stopMs: number
  /** Files in the segment folder after the stop. */
  readonly filesLeft: number
}

async function generate(recipe: Recipe, { models, versions, model }: ManyOptions): Promise<GeneratedModel[]> {
  const repositoryDir = join(MODELS_DIR, `${models}x${versions}-${model}`)
  const generated: GeneratedModel[] = []
  for (let index = 1; index <= models; index++) {
    const name = `model-${String(index).padStart(String(models).length, '0')}`
    for (let version = 1; version <= versions; version++)
      generated.push(await ensureModel(recipe, repositoryDir, { name, version }))
  }
  return generated
}

/** Measures one server from start to stop. */
async function measureStart(options: {
  readonly stage: Stage
  readonly start: () => Promise<RunningServer>
  readonly requests: readonly InferRequest[]
}): Promise<Start> {
  const { stage, start, requests } = options
  const startedMs = performance.now()
  const server = await start()
  const readyMs = performance.now() - startedMs
  await sendToEach(server, { requests, count: requests.length })
  await settle(server)
  const workerPrivateBytes = await Promise.all(server.workerPids.map(privateBytes))
  const { totalBytes, segmentFolderBytes: segmentBytes } = await hostMemory(server)
  const stoppingMs = performance.now()
  await stage.stop(server.child)
  const stopMs = performance.now() - stoppingMs
  const { files: filesLeft } = await folderUse(server.segmentDir)
  return { server: server.name, readyMs, workerPrivateBytes, segmentBytes, totalBytes, stopMs, filesLeft }
}

/** Checks that all servers return the same outputs for every version. Runs after the measurements. */
async function verify(
  stage: Stage,
  starts: readonly (() => Promise<RunningServer>)[],
  requests: readonly InferRequest[],
): Promise<void> {
  const servers = await Promise.all(starts.map((start) => start()))
  await verifySameAnswers(servers, requests)
  for (const { child } of servers) await stage.stop(child)
}

function spreadOf(starts: readonly Start[], value: (start: Start) => number): Spread {
  return spread(starts.map(value))
}

function workerMb({ workerPrivateBytes }: Start): number {
  return quantile(workerPrivateBytes, 0.5) / 1e6
}

function rowOf(name: string, cold: Start, warm: readonly Start[]): string[] {
  return [
    name,
    formatNumber(cold.readyMs / 1000),
    formatSpread(spreadOf(warm, ({ readyMs }) => readyMs / 1000)),
    formatSpread(spreadOf(warm, workerMb)),
    cold.segmentBytes === 0 ? '-' : formatMb(cold.segmentBytes),
    formatSpread(spreadOf(warm, ({ totalBytes }) => totalBytes / 1e6)),
    formatSpread(spreadOf(warm, ({ stopMs }) => stopMs / 1000)),
  ]
}

async function measureAll(options: {
  readonly stage: Stage
  readonly progress: Progress
  readonly arms: readonly { readonly name: string; readonly start: () => Promise<RunningServer> }[]
  readonly requests: readonly InferRequest[]
  readonly rounds: number
}): Promise<Start[][]> {
  const { stage, progress, arms, requests, rounds } = options
  const starts: Start[][] = arms.map(() => [])
  for (let round = 0; round <= rounds; round++) {
    for (const arm of orderOf(arms, round)) {
      progress.step(`${arm.name}: ${round === 0 ? 'first start' : `warm start ${round}`}`)
      starts[arms.indexOf(arm)]?.push(await measureStart({ stage, start: arm.start, requests }))
    }
  }
  return starts
}

async function manyModelsBench(options: ManyOptions): Promise<BenchReport> {
  const { models, versions, workers, model: recipeText, rounds } = options
  await using stage = new Stage()
  using progress = createProgress('many-models', 2 * (rounds + 1) + 2)
  progress.step('generating the models')
  const recipe = parseRecipe(recipeText)
  const generated = await generate(recipe, options)
  const [{ repositoryDir }] = generated as [GeneratedModel]
  const [request] = inferRequests(recipe, { encoding: 'json', count: 1 }) as [InferRequest]
  const requests = generated.map((model) => addressedTo(request, model))
  // A new cache, so that the first start compiles everything in every run of the bench.
  const cacheDir = emptyCache(stage)
  const onecopy = {
    name: 'onecopy',
    start: () => startOnecopy({ stage, model: { repositoryDir }, workers, cacheDir }),
  }
  const plain = {
    name: 'plain-koa',
    start: () => startVariant('plain-koa', { stage, model: { repositoryDir }, workers }),
  }
  const arms = [onecopy, plain]
  const [onecopyStarts, plainStarts] = (await measureAll({ stage, progress, arms, requests, rounds })) as [
    [Start, ...Start[]],
    [Start, ...Start[]],
  ]
  progress.step('comparing the outputs')
  await verify(stage, [plain.start, onecopy.start], requests)
  const weightsBytes = generated.reduce((sum, { bytes }) => sum + bytes, 0)
  const filesLeft = onecopyStarts.reduce((sum, start) => sum + start.filesLeft, 0)
  const [[onecopyCold, ...onecopyWarm], [plainCold, ...plainWarm]] = [onecopyStarts, plainStarts]
  return {
    name: 'many-models',
    title: `${models} models x ${versions} versions of ${recipeText} (${formatMb(weightsBytes)} MB in total), ${workers} workers`,
    table: {
      head: [
        'server',
        'ready, first start, s',
        'ready, warm, s',
        'private MB per worker',
        'segments MB',
        'total host memory MB',
        'stop, s',
      ],
      rows: [rowOf('onecopy', onecopyCold, onecopyWarm), rowOf('plain-koa', plainCold, plainWarm)],
    },
    checks: [
      {
        claim: 'files left in the segment folders after every stop',
        got: String(filesLeft),
        bar: '0',
        isMet: filesLeft === 0,
      },
    ],
    notes: [
      `every worker got one request for each of the ${requests.length} versions; the outputs equal those of plain Koa`,
      'onecopy compiles everything on its first start; plain Koa optimizes every model in every worker on every start',
      `warm: median (min-max) of ${rounds} alternating starts; host memory: proportional set sizes of all processes, plus unmapped parts of the segments`,
    ],
    charts: [
      spreadChart(
        { title: `${models * versions} model versions, ${workers} workers: total host memory`, unit: 'MB' },
        [onecopyWarm, plainWarm].map((starts, index) => [
          arms[index]?.name ?? '',
          starts.map(({ totalBytes }) => totalBytes / 1e6),
        ]),
      ),
    ],
    setting: { ...options, models: generated },
    raw: { onecopy: onecopyStarts, plain: plainStarts },
  }
}

export const manyModels = defineBench({
  name: 'many-models',
  summary:
    'Many small models in several versions: memory, time to ready and to stop, compared with a plain Koa cluster.',
  options: {
    models: countOption({ help: 'Models in the repository', default: '30', quick: '5' }),
    versions: countOption({ help: 'Versions of each', default: '2' }),
    workers: countOption({ minimum: 2, help: 'Workers of each server', default: '4', quick: '2' }),
    model: modelOption({ help: 'Model of every version', default: 'mlp-4x256' }),
    rounds: countOption({ help: 'Warm starts of each server, alternating', default: '3', quick: '1' }),
  },
  failsWhen: 'onecopy leaves files in its segment folder',
  reports: (options) => [() => manyModelsBench(options)],
})
