/**
 * A model replaced again and again under load: `node dist/bench/swaps.js`.
 *
 * Generations of one model, equal but for their weights, take turns in the model's file, and each is loaded
 * over the admin port while connections ask without a pause. What each generation answers is known from
 * plain Koa, so every single answer tells which one gave it. Memory and files are read in quiet, after the
 * first swap, along the way and after the last; then a second model is loaded and unloaded.
 */
import { linkSync, mkdirSync, renameSync } from 'node:fs'
import { Agent } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { send } from './harness/client.js'
import { sendToEach } from './harness/connections.js'
import { folderUse, openFiles, privateBytes, untilReleased } from './harness/footprint.js'
import { Generations, type References } from './harness/generations.js'
import { count } from './harness/options.js'
import { MODELS_DIR, SCRATCH_DIR } from './harness/paths.js'
import { processTree } from './harness/processes.js'
import { createProgress, type Progress } from './harness/progress.js'
import { type BenchReport, runBenches } from './harness/report.js'
import { addressedTo, type InferRequest, inferRequests } from './harness/requests.js'
import { type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { type AnswerInTime, SteadyLoad } from './harness/steady-load.js'
import { outputOf } from './harness/verify.js'
import { parseRecipe } from './models/recipes.js'
import { ensureModel, type GeneratedModel } from './models/store.js'
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
/** Idle time before memory is read: what requests left behind is collected. */
const SETTLE_MS = 2000
const LOAD_TIMEOUT_MS = 600_000
/** Answers for each connection before each look: no worker is left out. */
const ANSWERS_BEFORE_LOOK = 20
const READINGS = 10

const USAGE = `Usage: node dist/bench/swaps.js [options]

Options:
  --swaps N          Times the model is replaced, two or more (100)
  --model NAME       What is replaced (mlp-12x2048)
  --connections N    Connections that ask without a pause (32)
  --workers N        Workers of the server, two or more (2)
  --generations N    Forms of the model that take turns, two or more (3)
  --warm-up N        Requests before the first swap: a fresh process grows by requests alone (20000)

Exit code 1 when a request failed, an answer was not of a generation that was current, or something grew.
`

/** As a careful copy does it: complete under another name, then renamed. */
function putModel(repositoryDir: string, name: string, source: string): void {
  const path = join(repositoryDir, name, '1', 'model.onnx')
  mkdirSync(dirname(path), { recursive: true })
  const staging = join(repositoryDir, name, 'staging')
  linkSync(source, staging)
  renameSync(staging, path)
}

async function changeModel(server: RunningServer, action: 'load' | 'unload', name: string): Promise<number> {
  const startedMs = performance.now()
  const response = await fetch(
    `http://127.0.0.1:${server.adminPort}/v2/repository/models/${name}/${action}`,
    { method: 'POST', signal: AbortSignal.timeout(LOAD_TIMEOUT_MS) },
  )
  const text = await response.text()
  if (response.status !== 200) throw new Error(`${action} of ${name}: status ${response.status}: ${text}`)
  return performance.now() - startedMs
}

/** What each generation answers, by a server that shares nothing with the one measured. */
async function referencesOf(
  stage: Stage,
  generations: readonly GeneratedModel[],
  requests: readonly InferRequest[],
): Promise<References> {
  const [{ repositoryDir }] = generations as [GeneratedModel]
  const plain = await startVariant('plain-koa', { stage, model: { repositoryDir }, workers: 1 })
  const agent = new Agent({ keepAlive: true })
  const references: number[][][] = []
  for (const { name, version } of generations) {
    const answers: number[][] = []
    for (const request of requests) {
      const asked = addressedTo(request, { name, version })
      answers.push([...outputOf(await send({ agent, port: plain.port, request: asked }))])
    }
    references.push(answers)
  }
  agent.destroy()
  await stage.stop(plain.child)
  return references
}

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

/** Reads while nothing is asked, after every worker was. */
async function readInQuiet(swap: number, { server, load, tally, options }: Scene): Promise<Reading> {
  await load.more(ANSWERS_BEFORE_LOOK * options.connections)
  await load.pause()
  await untilReleased(server.segmentDir)
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  server.child.assertAlive()
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
    // Each generation is asked before the next comes.
    await load.more(2 * connections)
    if (readAfter.has(swap)) readings.push(await readInQuiet(swap, scene))
  }
  return { readings, compiledMs, cachedMs, wallMs: performance.now() - startedMs }
}

/** Beside the first, under its load: a second model comes, is asked, and goes. */
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
  const loaded = await readInQuiet(swaps, scene)
  progress.step('unloading it')
  await changeModel(server, 'unload', SECOND_MODEL)
  return { loadMs, loaded, unloaded: await readInQuiet(swaps, scene) }
}

async function swapsBench(options: SwapOptions): Promise<BenchReport> {
  const { swaps, model, connections, workers, generations, warmUp } = options
  await using stage = new Stage()
  const progress = createProgress('swaps', swaps + 6)
  try {
    progress.step('making the generations')
    const recipe = parseRecipe(model)
    const repositoryOf = join(MODELS_DIR, `${model}-generations-${generations}`)
    const files: GeneratedModel[] = []
    for (let version = 1; version <= generations; version++)
      files.push(await ensureModel(recipe, repositoryOf, { name: model, version }))
    const requests = (['binary', 'json'] as const).flatMap((encoding) =>
      inferRequests(recipe, { encoding, count: REQUESTS_PER_ENCODING }),
    )
    progress.step('asking plain Koa what each answers')
    const references = await referencesOf(stage, files, requests)
    progress.step('starting onecopy')
    const repositoryDir = stage.folder(SCRATCH_DIR, 'swaps-')
    putModel(repositoryDir, model, (files[0] as GeneratedModel).path)
    const server = await startOnecopy({
      stage,
      model: { repositoryDir },
      workers,
      // Its own: the first swap to each generation compiles it, in every run of the bench.
      cacheDir: stage.folder(tmpdir(), 'onecopy-bench-cache-'),
      flags: ['--model-control', 'explicit', '--load-model', '*'],
    })
    const served = new Generations(references, 0)
    const tally = new Tally(served)
    const onAnswer = (answer: AnswerInTime) => tally.take(answer)
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
  } finally {
    progress.end()
  }
}

async function main(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      swaps: { type: 'string', default: '100' },
      model: { type: 'string', default: 'mlp-12x2048' },
      connections: { type: 'string', default: '32' },
      workers: { type: 'string', default: '2' },
      generations: { type: 'string', default: '3' },
      'warm-up': { type: 'string', default: '20000' },
      help: { type: 'boolean' },
    },
  })
  if (values.help === true) {
    process.stderr.write(USAGE)
    return 0
  }
  const options: SwapOptions = {
    swaps: count('swaps', values.swaps, 2),
    model: values.model,
    connections: count('connections', values.connections),
    workers: count('workers', values.workers, 2),
    generations: count('generations', values.generations, 2),
    warmUp: count('warm-up', values['warm-up']),
  }
  return await runBenches([() => swapsBench(options)])
}

process.exitCode = await main(process.argv.slice(2))
