/**
 * Processes of one's own that attach to a running onecopy, against those that load the model: the time to the first answer,
 * what a Koa cluster of them answers, and what its workers hold.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { defineBench } from './harness/bench.js'
import { closedLoopArm } from './harness/closed-loop.js'
import { noFailures } from './harness/compare.js'
import { hostMemory, privateBytes, untilReleased } from './harness/footprint.js'
import { leadCell } from './harness/lead.js'
import { countOption, positiveOption, risingOption } from './harness/options.js'
import { COMPILED_ROOT } from './harness/paths.js'
import { createProgress, type Progress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { alternate, stepsOf } from './harness/rounds.js'
import { type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatNumber, formatSpread, spread } from './harness/statistics.js'
import { findSubject, modelsOption, requestsTo, type Subject } from './models/subject.js'

const run = promisify(execFile)
const WAYS = ['attach', 'kept', 'create'] as const
const WAY_NAMES = {
  attach: 'attach, raw weights released',
  kept: 'attach, --raw-weights keep',
  create: 'InferenceSession.create(path)',
} as const
const MB = 1e6

interface Options {
  readonly workers: readonly number[]
  readonly connections: number
  readonly rounds: number
  readonly seconds: number
}

async function firstAnswerMs(
  way: (typeof WAYS)[number],
  model: Subject,
  segmentDir: string,
): Promise<number> {
  const [[input] = []] = model.inputs(1)
  if (input === undefined) throw new Error('expected a model with an input')
  const script = join(COMPILED_ROOT, 'bench', 'variants', 'first-answer.js')
  const args = [
    way === 'create' ? way : 'attach',
    model.name,
    model.path,
    segmentDir,
    input.name,
    String(input.data.length),
  ]
  const { stdout } = await run(process.execPath, [script, ...args])
  return Number(stdout)
}

async function timeReport(modelName: string, { rounds }: Options): Promise<BenchReport> {
  await using stage = new Stage()
  const model = await findSubject(modelName)
  const owner = await startOnecopy({ stage, model, workers: 1 })
  const keeper = await startOnecopy({ stage, model, workers: 1, flags: ['--raw-weights', 'keep'] })
  using progress = createProgress(`attach ${model.name}`, rounds * WAYS.length)
  const times: Record<(typeof WAYS)[number], number[]> = { attach: [], kept: [], create: [] }
  try {
    for (let round = 0; round < rounds; round++)
      for (const way of round % 2 === 0 ? WAYS : [...WAYS].reverse()) {
        progress.step(`${WAY_NAMES[way]}: round ${round + 1}`)
        // Raw weights are released between rounds: attaching brings them back each time.
        if (way === 'attach') await untilReleased(owner.segmentDir)
        times[way].push(await firstAnswerMs(way, model, (way === 'kept' ? keeper : owner).segmentDir ?? ''))
      }
  } finally {
  }
  const title = `${model.name} (${Math.round(model.bytes / MB)} MB): from nothing to the first answer, in one process`
  const lead = (way: (typeof WAYS)[number]) =>
    way === 'create' ? '-' : leadCell({ onecopy: times[way], other: times.create, better: 'lower' })
  return {
    name: `attach-${model.name}`,
    title,
    table: {
      head: ['', 'first answer after, ms', 'against create'],
      rows: WAYS.map((way) => [WAY_NAMES[way], formatSpread(spread(times[way])), lead(way)]),
    },
    checks: [],
    notes: [
      'libraries are loaded before the clock starts',
      'released raw weights are brought back by each attach',
    ],
    charts: [],
    setting: { model, rounds },
    raw: times,
  }
}

interface Held {
  readonly workers: number
  readonly name: string
  /** Median over the workers. */
  readonly privateMb: number
  readonly hostMb: number
}

async function heldBy(server: RunningServer, workers: number, hostBytes: number): Promise<Held> {
  const held: number[] = []
  for (const pid of server.workerPids) held.push(await privateBytes(pid))
  held.sort((a, b) => a - b)
  const { name } = server
  return { workers, name, privateMb: (held[Math.floor(held.length / 2)] ?? 0) / MB, hostMb: hostBytes / MB }
}

async function measureFleet(
  model: Subject,
  {
    workers,
    options,
    progress,
  }: { readonly workers: number; readonly options: Options; readonly progress: Progress },
) {
  await using stage = new Stage()
  const owner = await startOnecopy({ stage, model, workers: 1 })
  const env = { BENCH_SEGMENT_DIR: owner.segmentDir ?? '' }
  const attached = await startVariant('attached-koa', { stage, model, workers, env })
  const plain = await startVariant('plain-koa', { stage, model, workers })
  const bare = await startVariant('bare-worker', { stage, model, workers: 1 })
  const requests = requestsTo(model, { encoding: 'binary', count: 16 })
  const { connections } = options
  const arms = [attached, plain].map((server) => closedLoopArm(server, { requests, connections }))
  const measured = await alternate(arms, { ...options, progress })
  await untilReleased(owner.segmentDir)
  // The owner, one copy of the weights in it, counts on the side of those that attach.
  const ofOwner = (await hostMemory(owner)).totalBytes
  const held = [
    await heldBy(bare, 1, (await hostMemory(bare)).totalBytes),
    await heldBy(attached, workers, (await hostMemory(attached)).proportionalBytes + ofOwner),
    await heldBy(plain, workers, (await hostMemory(plain)).totalBytes),
  ]
  return { workers, measured, held }
}

async function fleetReport(modelName: string, options: Options): Promise<BenchReport> {
  const model = await findSubject(modelName)
  using progress = createProgress(`attach ${model.name}`, stepsOf(2, options.rounds) * options.workers.length)
  const fleets: Awaited<ReturnType<typeof measureFleet>>[] = []
  try {
    for (const workers of options.workers)
      fleets.push(await measureFleet(model, { workers, options, progress }))
  } finally {
  }
  const rows = fleets.flatMap(({ workers, measured, held }) => {
    const perSecond = (name: string) =>
      measured.find((arm) => arm.name === name)?.samples.map((sample) => sample.requestsPerSecond) ?? []
    const lead = leadCell({
      onecopy: perSecond('attached-koa'),
      other: perSecond('plain-koa'),
      better: 'higher',
    })
    return held.map(({ name, privateMb, hostMb }) => [
      String(workers),
      name,
      perSecond(name).length === 0 ? '-' : formatSpread(spread(perSecond(name))),
      name === 'plain-koa' ? lead : '-',
      formatNumber(privateMb),
      formatNumber(hostMb),
    ])
  })
  const size = Math.round(model.bytes / MB)
  return {
    name: `attach-koa-${model.name}`,
    title: `${model.name} (${size} MB): a Koa cluster that attaches, ${options.connections} connections, binary`,
    table: {
      head: [
        'workers',
        'cluster',
        'requests/s',
        'attached-koa against it',
        'private MB a worker',
        'MB on the host',
      ],
      rows,
    },
    checks: [noFailures(fleets.flatMap(({ measured }) => measured))],
    notes: [
      'bare-worker: a worker with Koa and the runtime, and no model',
      'private: Private_Clean and Private_Dirty of smaps_rollup; on the host: each page once, the owner counted with attached-koa',
    ],
    charts: [],
    setting: { model, ...options },
    raw: fleets,
  }
}

export const attachBench = defineBench({
  name: 'attach',
  summary: 'Processes of one’s own that attach, against those that load: first answer, requests/s, memory.',
  options: {
    models: modelsOption({ default: '200MB,1GB', quick: '200MB' }),
    workers: risingOption({ help: 'Workers of each cluster', default: '1,4,8', quick: '2' }),
    connections: countOption({ help: 'Connections', default: '16', quick: '8' }),
    rounds: countOption({ help: 'Measurements of each, in turns', default: '5', quick: '2' }),
    seconds: positiveOption({ help: 'Length of one measurement', default: '3', quick: '1' }),
  },
  reports: ({ models, ...options }) =>
    models.flatMap((model) => [() => timeReport(model, options), () => fleetReport(model, options)]),
})
