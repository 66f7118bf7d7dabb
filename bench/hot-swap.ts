/**
 * Replaces a model under load in two ways. onecopy loads the new model next to the old one and then switches
 * all workers. A plain cluster replaces its workers one after the other, like the reload of pm2. The two
 * generations have different outputs, so every response identifies its generation.
 */
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { defineBench } from './harness/bench.js'
import { hostMemory, untilReleased } from './harness/footprint.js'
import { leadCell } from './harness/lead.js'
import { changeModel, putModel, referencesOf } from './harness/model-change.js'
import { countOption } from './harness/options.js'
import { MODELS_DIR, SCRATCH_DIR } from './harness/paths.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { inferRequests } from './harness/requests.js'
import { emptyCache, type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatSpread, quantile, spread } from './harness/statistics.js'
import { type AnswerInTime, SteadyLoad } from './harness/steady-load.js'
import { spreadChart } from './harness/svg.js'
import { isSameOutput, outputOf } from './harness/verify.js'
import { parseRecipe, recipeName } from './models/recipes.js'
import { ensureModel, type GeneratedModel } from './models/store.js'
import { modelOption } from './models/subject.js'

const REQUEST_COUNT = 4
const WARM_UP_ANSWERS = 500
/** Poll interval for the memory of all processes, because each sample takes time. */
const SAMPLE_MS = 500
const REPLACED = '"msg":"replaced"'

interface HotSwapOptions {
  readonly swaps: number
  readonly model: string
  readonly connections: number
  readonly workers: number
}

interface Swap {
  /** Until the server reported completion. */
  readonly doneMs: number
  /** Until the last response of the old generation. */
  readonly lastOldMs: number
  readonly answers: number
  readonly failures: number
  readonly p99Ms: number
  readonly mostBytes: number
}

interface Swapped {
  readonly name: string
  /** While idle, before the first swap. */
  readonly restBytes: number
  readonly swaps: Swap[]
}

/** A server, and the function that applies a changed model file; it resolves when the server is done. */
interface Changeable {
  readonly server: RunningServer
  readonly repositoryDir: string
  change(): Promise<unknown>
}

type StartServer = (stage: Stage, files: readonly GeneratedModel[], workers: number) => Promise<Changeable>

function repositoryWith(stage: Stage, [first]: readonly GeneratedModel[]): string {
  const repositoryDir = stage.folder(SCRATCH_DIR, 'hot-swap-')
  if (first !== undefined) putModel(repositoryDir, first.name, first.path)
  return repositoryDir
}

const beginOnecopy: StartServer = async (stage, files, workers) => {
  const repositoryDir = repositoryWith(stage, files)
  const server = await startOnecopy({
    ...{ stage, model: { repositoryDir }, workers },
    // A new cache: the first swap to each generation includes its compilation.
    cacheDir: emptyCache(stage),
    flags: ['--model-control', 'explicit', '--load-model', '*'],
  })
  return { server, repositoryDir, change: () => changeModel(server, 'load', files[0]?.name ?? '') }
}

const beginPlain: StartServer = async (stage, files, workers) => {
  const repositoryDir = repositoryWith(stage, files)
  let onReplaced = () => {}
  const server = await startVariant('plain-koa', {
    ...{ stage, model: { repositoryDir }, workers, flags: ['--supervised'] },
    onLine: (line) => {
      if (line.includes(REPLACED)) onReplaced()
    },
  })
  const change = () =>
    new Promise<void>((resolve) => {
      onReplaced = resolve
      server.child.process.kill('SIGHUP')
    })
  return { server, repositoryDir, change }
}

const CANDIDATES: Readonly<Record<string, StartServer>> = {
  onecopy: beginOnecopy,
  'plain-koa, workers replaced': beginPlain,
}

async function totalBytes(server: RunningServer): Promise<number> {
  try {
    return (await hostMemory(server)).totalBytes
  } catch {
    // A worker ended during the sample: the next one counts.
    return 0
  }
}

async function swapOnce(options: {
  readonly candidate: Changeable
  readonly load: SteadyLoad
  readonly answers: AnswerInTime[]
  readonly isOld: (answer: AnswerInTime) => boolean
  readonly connections: number
}): Promise<Swap> {
  const { candidate, load, answers, isOld, connections } = options
  // Drops earlier responses, which a long bench could not hold in memory.
  answers.length = 0
  const startedMs = performance.now()
  let mostBytes = 0
  let isDone = false
  const sampling = (async () => {
    while (!isDone) {
      mostBytes = Math.max(mostBytes, await totalBytes(candidate.server))
      await pause(SAMPLE_MS)
    }
  })()
  await candidate.change()
  const doneMs = performance.now() - startedMs
  await load.more(4 * connections)
  isDone = true
  await sampling
  const seen = [...answers]
  const failed = seen.filter(({ outcome }) => outcome instanceof Error || outcome.status !== 200)
  const old = seen.filter((answer) => !failed.includes(answer) && isOld(answer))
  return {
    doneMs,
    lastOldMs: Math.max(0, ...old.map(({ answeredMs }) => answeredMs - startedMs)),
    answers: seen.length,
    failures: failed.length,
    p99Ms: quantile(
      seen.map(({ sentMs, answeredMs }) => answeredMs - sentMs),
      0.99,
    ),
    mostBytes,
  }
}

async function measure(options: {
  readonly stage: Stage
  readonly name: string
  readonly begin: StartServer
  readonly files: readonly GeneratedModel[]
  readonly settings: HotSwapOptions
  readonly step: (note: string) => void
}): Promise<Swapped> {
  const { stage, name, begin, files, settings, step } = options
  const { swaps, connections, workers } = settings
  const [{ recipe }] = files as [GeneratedModel]
  const requests = inferRequests(recipe, { encoding: 'binary', count: REQUEST_COUNT })
  const references = await referencesOf(stage, files, requests)
  step(`${name}: starting`)
  const candidate = await begin(stage, files, workers)
  const { server, repositoryDir } = candidate
  const answers: AnswerInTime[] = []
  const onAnswer = (answer: AnswerInTime) => answers.push(answer)
  const load = new SteadyLoad({ port: server.port, requests, connections, onAnswer })
  load.resume()
  try {
    await load.more(WARM_UP_ANSWERS)
    await load.pause()
    await untilReleased(server.segmentDir)
    const measured: Swapped = { name, restBytes: await totalBytes(server), swaps: [] }
    load.resume()
    for (let swap = 1; swap <= swaps; swap++) {
      step(`${name}: swap ${swap}`)
      const old = references[(swap - 1) % files.length] ?? []
      const { name: modelName, path } = files[swap % files.length] as GeneratedModel
      putModel(repositoryDir, modelName, path)
      const isOld = ({ requestIndex, outcome }: AnswerInTime) =>
        !(outcome instanceof Error) && isSameOutput(old[requestIndex] ?? [], outputOf(outcome))
      measured.swaps.push(await swapOnce({ candidate, load, answers, isOld, connections }))
    }
    return measured
  } finally {
    await load.close()
    await stage.stop(server.child)
  }
}

function tableOf(all: readonly Swapped[]): BenchReport['table'] {
  const [onecopy] = all
  const old = ({ swaps }: Swapped) => swaps.map(({ lastOldMs }) => lastOldMs)
  return {
    head: [
      'way',
      'last old response after, ms',
      'reported done after, ms',
      'requests during swap',
      'failed',
      'p99 during swap, ms',
      'host memory before, MB',
      'peak during swap, MB',
      'onecopy compared, last old response',
    ],
    rows: all.map((one) => [
      one.name,
      formatSpread(spread(old(one))),
      formatSpread(spread(one.swaps.map(({ doneMs }) => doneMs))),
      String(one.swaps.reduce((sum, { answers }) => sum + answers, 0)),
      String(one.swaps.reduce((sum, { failures }) => sum + failures, 0)),
      formatSpread(spread(one.swaps.map(({ p99Ms }) => p99Ms))),
      formatMb(one.restBytes),
      formatMb(Math.max(...one.swaps.map(({ mostBytes }) => mostBytes))),
      onecopy === undefined || one === onecopy
        ? '-'
        : leadCell({ onecopy: old(onecopy), other: old(one), better: 'lower' }),
    ]),
  }
}

async function hotSwapBench(settings: HotSwapOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { swaps, workers, connections } = settings
  const recipe = parseRecipe(settings.model)
  const name = recipeName(recipe)
  const candidates = Object.entries(CANDIDATES)
  using progress = createProgress('hot-swap', candidates.length * (swaps + 1) + 1)
  progress.step('generating two models')
  const repositoryOf = join(MODELS_DIR, `${name}-generations-2`)
  const files = [
    await ensureModel(recipe, repositoryOf, { name, version: 1 }),
    await ensureModel(recipe, repositoryOf, { name, version: 2 }),
  ]
  const all: Swapped[] = []
  for (const [label, begin] of candidates) {
    all.push(
      await measure({ stage, name: label, begin, files, settings, step: (note) => progress.step(note) }),
    )
  }
  const failures = all[0]?.swaps.reduce((sum, swap) => sum + swap.failures, 0) ?? 0
  return {
    name: 'hot-swap',
    title: `${name}, ${swaps} swaps under ${connections} connections, ${workers} workers`,
    table: tableOf(all),
    checks: [{ claim: 'failed requests of onecopy', got: String(failures), bar: '0', isMet: failures === 0 }],
    notes: [
      'the first swap of onecopy compiles the other generation; later ones use the cache',
      'memory is sampled every half second; each page counts once',
      'during a swap, a plain cluster returns outputs of both generations',
    ],
    charts: [
      spreadChart(
        { title: `${name}: time to the last response of the old model`, unit: 'milliseconds' },
        all.map((one) => [one.name, one.swaps.map(({ lastOldMs }) => lastOldMs)]),
      ),
    ],
    setting: { ...settings, files },
    raw: all,
  }
}

export const hotSwap = defineBench({
  name: 'hot-swap',
  summary:
    'A model replaced under load: time to the last old response, failures and peak memory, compared with replaced workers.',
  options: {
    swaps: countOption({ help: 'Number of swaps', default: '10', quick: '3' }),
    model: modelOption({ help: 'A generated model', default: '200MB' }),
    connections: countOption({ help: 'Connections that send requests without a pause', default: '16' }),
    workers: countOption({ help: 'Workers of each server', default: '2' }),
  },
  failsWhen: 'a request to onecopy failed',
  reports: (options) => [() => hotSwapBench(options)],
})
