/**
 * Time from process start to first response. onecopy starts in three ways: cold, with the compile cache, and
 * with the segment of a killed server. The others load the model in every worker every time.
 */
import { killLife } from './cycles/life.js'
import { defineBench } from './harness/bench.js'
import { freePort } from './harness/free-port.js'
import { leadCell } from './harness/lead.js'
import { countOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import type { InferRequest } from './harness/requests.js'
import { emptyCache, type RunningServer, segmentFolder, startOnecopy } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatSpread, spread } from './harness/statistics.js'
import { spreadChart } from './harness/svg.js'
import { chooseVariants, startOrSkip, variantsOption } from './harness/variants.js'
import { untilAnswered } from './harness/warm-up.js'
import { findSubject, modelsOption, requestsTo, type Subject } from './models/subject.js'

const ONECOPY_STARTS = ['onecopy, cold', 'onecopy, compile cache', 'onecopy, after SIGKILL'] as const

interface StartOptions {
  readonly rounds: number
  readonly workers: number
  readonly variants: readonly string[]
}

interface TimedStart {
  readonly readyMs: number
  readonly firstAnswerMs: number
}

interface Scene {
  readonly stage: Stage
  readonly model: Subject
  readonly workers: number
  readonly request: InferRequest
}

/** Starts a server on `port`, with a client that sends requests from the beginning until one is answered. */
async function timeStart(
  start: (port: number) => Promise<RunningServer>,
  request: InferRequest,
): Promise<TimedStart & { readonly server: RunningServer }> {
  const port = await freePort()
  const startedMs = performance.now()
  const failed = new AbortController()
  const [server, firstAnswerMs] = await Promise.all([
    start(port).catch((thrown) => {
      failed.abort()
      throw thrown
    }),
    untilAnswered({ port, request, signal: failed.signal }).then(() => performance.now() - startedMs),
  ])
  return { readyMs: server.child.readyAtMs - startedMs, firstAnswerMs, server }
}

/** The three kinds of start; each prepares the next. */
async function onecopyStarts({ stage, model, workers, request }: Scene): Promise<TimedStart[]> {
  const segmentDir = segmentFolder(stage)
  const cacheDir = emptyCache(stage)
  const start = (port: number) => startOnecopy({ stage, model, workers, port, segmentDir, cacheDir })
  const cold = await timeStart(start, request)
  await stage.stop(cold.server.child)
  const cached = await timeStart(start, request)
  await killLife(stage, { server: cached.server })
  const adopted = await timeStart(start, request)
  await stage.stop(adopted.server.child)
  return [cold, cached, adopted].map(({ readyMs, firstAnswerMs }) => ({ readyMs, firstAnswerMs }))
}

type Times = ReadonlyMap<string, TimedStart[]>

async function measureRounds(
  scene: Scene,
  options: StartOptions & { readonly step: (note: string) => void },
): Promise<{ times: Times; notes: readonly string[] }> {
  const { stage, model, workers, request } = scene
  const { variants, notes } = chooseVariants(options.variants)
  const times = new Map<string, TimedStart[]>()
  const keep = (name: string, { readyMs, firstAnswerMs }: TimedStart) =>
    times.set(name, [...(times.get(name) ?? []), { readyMs, firstAnswerMs }])
  for (let round = 0; round < options.rounds; round++) {
    for (const variant of variants) {
      options.step(`${variant.name}: round ${round + 1}`)
      if (variant.name === 'onecopy') {
        const starts = await onecopyStarts(scene)
        for (const [index, name] of ONECOPY_STARTS.entries()) keep(name, starts[index] as TimedStart)
        continue
      }
      const timed = await startOrSkip({ variant, notes }, () =>
        timeStart((port) => variant.start({ stage, model, workers, port }), request),
      )
      if (timed === null) continue
      keep(variant.name, timed)
      await stage.stop(timed.server.child)
    }
  }
  return { times, notes }
}

function tableOf(times: Times): BenchReport['table'] {
  const firstAnswers = (name: string) => times.get(name)?.map(({ firstAnswerMs }) => firstAnswerMs) ?? []
  const isOurs = (name: string) => ONECOPY_STARTS.some((one) => one === name)
  const lead = (ours: string, name: string) =>
    isOurs(name) ? '-' : leadCell({ onecopy: firstAnswers(ours), other: firstAnswers(name), better: 'lower' })
  return {
    head: [
      'start',
      'first response after, ms',
      'every worker ready after, ms',
      ...ONECOPY_STARTS.map((name) => `compared: ${name}`),
    ],
    rows: [...times].map(([name, starts]) => [
      name,
      formatSpread(spread(firstAnswers(name))),
      formatSpread(spread(starts.map(({ readyMs }) => readyMs))),
      ...ONECOPY_STARTS.map((ours) => lead(ours, name)),
    ]),
  }
}

async function startBench(modelName: string, options: StartOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { workers, rounds } = options
  const model = await findSubject(modelName)
  const [request] = requestsTo(model, { encoding: 'json', count: 1 }) as [InferRequest]
  const { variants } = chooseVariants(options.variants)
  using progress = createProgress(`start ${model.name}`, variants.length * rounds)
  const { times, notes } = await measureRounds(
    { stage, model, workers, request },
    { ...options, step: (note) => progress.step(note) },
  )
  const title = `${model.name} (${Math.round(model.bytes / 1e6)} MB), ${workers} workers, from start to first response`
  return {
    name: `start-${model.name}`,
    title,
    table: tableOf(times),
    checks: [],
    notes: [
      'a cold start compiles the model, once for each model file',
      'the model file is in the page cache for all variants',
      'the client sends a request every few milliseconds from the beginning, and the first response counts',
      'thread-pool listens before its threads have loaded the model: its first response waits for one of them',
      ...notes,
    ],
    charts: [
      spreadChart(
        { title, unit: 'milliseconds' },
        [...times].map(([label, starts]) => [label, starts.map(({ firstAnswerMs }) => firstAnswerMs)]),
      ),
    ],
    setting: { ...options, model },
    raw: Object.fromEntries(times),
  }
}

export const start = defineBench({
  name: 'start',
  summary:
    'Time to first response: cold, with the compile cache, and after a kill, compared with servers that load every time.',
  options: {
    models: modelsOption({ default: '200MB', quick: '200MB' }),
    rounds: countOption({ help: 'Starts of each kind, alternating', default: '5', quick: '2' }),
    workers: countOption({ help: 'Workers of each variant', default: '4', quick: '2' }),
    variants: variantsOption({
      default: 'onecopy,plain-koa,pm2-koa,thread-pool,peers',
    }),
  },
  reports: ({ models, ...options }) => models.map((model) => () => startBench(model, options)),
})
