/**
 * Replaces a model many times under load.
 *
 * Generations of one model that differ only in their weights alternate in the model file. Each is loaded over
 * the admin port while connections send requests without a pause. Plain Koa computes the outputs of each
 * generation, so every response identifies its generation. Memory and files are read while the server is
 * idle: after the first swap, several times in between, and after the last. Then a second model is loaded and
 * unloaded.
 */
import { join } from 'node:path'
import { defineBench } from './harness/bench.js'
import { sendToEach } from './harness/connections.js'
import { folderUse, openFiles, privateBytes, settle } from './harness/footprint.js'
import { Generations } from './harness/generations.js'
import { changeModel, putModel, referencesOf } from './harness/model-change.js'
import { countOption } from './harness/options.js'
import { MODELS_DIR, SCRATCH_DIR } from './harness/paths.js'
import { processTree } from './harness/processes.js'
import { createProgress, type Progress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { addressedTo, type InferRequest, inferRequests } from './harness/requests.js'
import { emptyCache, type RunningServer, startOnecopy } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { type AnswerInTime, SteadyLoad } from './harness/steady-load.js'
import { parseRecipe } from './models/recipes.js'
import { ensureModel, type GeneratedModel } from './models/store.js'
import { modelOption } from './models/subject.js'
import {
  type MeasuredSwaps,
  type Reading,
  type SwapOptions,
  type Swaps,
  swapsReport,
  Tally,
} from './rows/swap-report.js'

const REQUESTS_PER_ENCODING = 8
const SECOND_MODEL = 'second'
/** Responses for each connection before each reading, so that every worker gets requests. */
const RESPONSES_BEFORE_READING = 20
const READINGS = 10

interface Scene {
  readonly server: RunningServer
  readonly load: SteadyLoad
  readonly repositoryDir: string
  readonly files: readonly GeneratedModel[]
  readonly served: Generations
  readonly tally: Tally
  readonly progress: Progress
  readonly options: SwapOptions
}

/** Reads memory while the server is idle, after requests to every worker. */
async function readWhileIdle(swap: number, { server, load, tally, options }: Scene): Promise<Reading> {
  await load.more(RESPONSES_BEFORE_READING * options.connections)
  await load.pause()
  await settle(server)
  const pids = processTree(server.child.pid)
  const reading = {
    swap,
    answers: tally.answers,
    failures: tally.failures,
    pids,
    privateBytes: await Promise.all(pids.map(privateBytes)),
    segments: await folderUse(server.segmentDir),
    openFiles: pids.reduce((sum, pid) => sum + openFiles(pid), 0),
  }
  load.resume()
  return reading
}

async function swapAll(scene: Scene): Promise<Swaps> {
  const { server, load, repositoryDir, files, served, progress, options } = scene
  const { swaps, connections, model } = options
  const readings: Reading[] = []
  const compiledMs: number[] = []
  const cachedMs: number[] = []
  const readAfter = new Set(
    Array.from({ length: READINGS + 1 }, (_, i) => Math.max(1, Math.round((swaps * i) / READINGS))),
  )
  const startedMs = performance.now()
  for (let swap = 1; swap <= swaps; swap++) {
    progress.step(`swap ${swap}`)
    const generation = swap % files.length
    putModel(repositoryDir, model, (files[generation] as GeneratedModel).path)
    served.begin(generation)
    const elapsedMs = await changeModel(server, 'load', model)
    served.settle()
    const times = swap < files.length ? compiledMs : cachedMs
    times.push(elapsedMs)
    // Every generation gets requests before the next one is loaded.
    await load.more(2 * connections)
    if (readAfter.has(swap)) readings.push(await readWhileIdle(swap, scene))
  }
  return { readings, compiledMs, cachedMs, wallMs: performance.now() - startedMs }
}

/** Loads, uses and unloads a second model while the first is under load. */
async function loadAndUnload(
  scene: Scene,
  requests: readonly InferRequest[],
): Promise<MeasuredSwaps['second']> {
  const { server, repositoryDir, files, progress, options } = scene
  const { swaps } = options
  progress.step('loading a second model')
  putModel(repositoryDir, SECOND_MODEL, (files[0] as GeneratedModel).path)
  const loadMs = await changeModel(server, 'load', SECOND_MODEL)
  const toSecond = requests.map((request) => addressedTo(request, { name: SECOND_MODEL }))
  await sendToEach(server, { requests: toSecond, count: toSecond.length })
  const loaded = await readWhileIdle(swaps, scene)
  progress.step('unloading it')
  await changeModel(server, 'unload', SECOND_MODEL)
  return { loadMs, loaded, unloaded: await readWhileIdle(swaps, scene) }
}

async function swapsBench(options: SwapOptions): Promise<BenchReport> {
  const { swaps, model, connections, workers, generations, warmUp } = options
  await using stage = new Stage()
  using progress = createProgress('swaps', swaps + 6)
  progress.step('generating the models')
  const recipe = parseRecipe(model)
  const repositoryOf = join(MODELS_DIR, `${model}-generations-${generations}`)
  const files: GeneratedModel[] = []
  for (let version = 1; version <= generations; version++)
    files.push(await ensureModel(recipe, repositoryOf, { name: model, version }))
  const requests = (['binary', 'json'] as const).flatMap((encoding) =>
    inferRequests(recipe, { encoding, count: REQUESTS_PER_ENCODING }),
  )
  progress.step('computing reference outputs with plain Koa')
  const references = await referencesOf(stage, files, requests)
  progress.step('starting onecopy')
  const repositoryDir = stage.folder(SCRATCH_DIR, 'swaps-')
  putModel(repositoryDir, model, (files[0] as GeneratedModel).path)
  const server = await startOnecopy({
    stage,
    model: { repositoryDir },
    workers,
    // A new cache: the first swap to each generation compiles it, in every run of the bench.
    cacheDir: emptyCache(stage),
    flags: ['--model-control', 'explicit', '--load-model', '*'],
  })
  const served = new Generations(references, 0)
  const tally = new Tally(served)
  const onAnswer = (answer: AnswerInTime) => tally.record(answer)
  const load = new SteadyLoad({ port: server.port, requests, connections, onAnswer })
  load.resume()
  try {
    progress.step(`warm-up: ${warmUp} requests`)
    await load.more(warmUp)
    const scene: Scene = { server, load, repositoryDir, files, served, tally, progress, options }
    const swapped = await swapAll(scene)
    const second = await loadAndUnload(scene, requests)
    const measured = { ...swapped, second }
    return swapsReport({ measured, tally, silent: served.silent, files, settings: options })
  } finally {
    await load.close()
  }
}

export const swaps = defineBench({
  name: 'swaps',
  summary:
    'A model is replaced many times under load: every response is from a current generation, and nothing grows.',
  options: {
    swaps: countOption({ minimum: 2, help: 'Number of swaps', default: '100', quick: '6' }),
    model: modelOption({ help: 'Model to replace', default: 'mlp-12x2048' }),
    connections: countOption({ help: 'Connections that send requests without a pause', default: '32' }),
    workers: countOption({ minimum: 2, help: 'Workers of the server', default: '2' }),
    generations: countOption({ minimum: 2, help: 'Number of alternating generations', default: '3' }),
    'warm-up': countOption({
      ...{
        help: 'Requests before the first swap, because a new process grows with its first requests',
        default: '20000',
      },
      quick: '2000',
    }),
  },
  failsWhen: 'a request failed, a response was not from a current generation, or something grew',
  reports: ({ 'warm-up': warmUp, ...rest }) => [() => swapsBench({ ...rest, warmUp })],
})
