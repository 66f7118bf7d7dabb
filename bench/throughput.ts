/**
 * Throughput and latency by model and number of connections. All variants run in alternation. The same tables
 * show two limits: the runtime in a loop without a server, and Koa without a model.
 */
import { startBareLoop } from './harness/bare-loop.js'
import { defineBench } from './harness/bench.js'
import { closedLoopArm } from './harness/closed-loop.js'
import { failuresOf, noFailures, valuesOf } from './harness/compare.js'
import { leadCell, limitCell } from './harness/lead.js'
import { choiceOption, countOption, positiveOption, risingOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { ENCODINGS, type Encoding } from './harness/requests.js'
import { type Arm, alternate, type MeasuredArm, stepsOf } from './harness/rounds.js'
import { type RunningServer, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber, formatSpread, quantile, spread } from './harness/statistics.js'
import type { Chart } from './harness/svg.js'
import { chooseVariants, startOrSkip, variantsOption } from './harness/variants.js'
import { verifySameAnswers } from './harness/verify.js'
import { findSubject, modelsOption, requestsTo, type Subject } from './models/subject.js'

/** Different bodies, so that no response can come from a cache. */
const REQUEST_COUNT = 16

interface ThroughputOptions {
  readonly connections: readonly number[]
  readonly encoding: Encoding
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
  readonly variants: readonly string[]
}

interface Measured {
  readonly connections: number
  readonly arms: readonly MeasuredArm[]
}

const LIMITS = ['limit: session.run', 'limit: bare Koa'] as const

function isLimit(name: string): boolean {
  return LIMITS.some((limit) => limit === name)
}

interface Comparison {
  /** Servers under this many connections, and the limits. */
  readonly armsFor: (connections: number) => readonly Arm[]
  readonly notes: readonly string[]
}

async function startComparison(
  stage: Stage,
  model: Subject,
  options: ThroughputOptions,
): Promise<Comparison> {
  const { encoding, workers } = options
  const { variants, notes } = chooseVariants(options.variants, encoding)
  const servers: RunningServer[] = []
  for (const variant of variants) {
    const server = await startOrSkip({ variant, notes }, () => variant.start({ stage, model, workers }))
    if (server !== null) servers.push(server)
  }
  const requests = requestsTo(model, { encoding, count: REQUEST_COUNT })
  await verifySameAnswers(servers, requests)
  const loop = await startBareLoop({ stage, model, processes: workers, inputs: REQUEST_COUNT })
  const bareKoa = await startVariant('bare-koa', { stage, model, workers, name: LIMITS[1] })
  return {
    armsFor: (connections) => [
      ...servers.map((server) => closedLoopArm(server, { requests, connections })),
      { ...loop, name: LIMITS[0] },
      closedLoopArm(bareKoa, { requests, connections }),
    ],
    notes: [
      ...notes,
      `${LIMITS[0]}: the runtime in a loop, in as many processes as there are workers, without HTTP`,
      `${LIMITS[1]}: reads the same bodies and returns ok, without a model`,
    ],
  }
}

function rowsOf({ connections, arms }: Measured): string[][] {
  const onecopy = arms.find(({ name }) => name === 'onecopy')
  const lead = (arm: MeasuredArm, metric: 'requestsPerSecond' | 'p99Ms') => {
    if (onecopy === undefined || arm === onecopy) return '-'
    const [ours, theirs] = [valuesOf(onecopy, metric), valuesOf(arm, metric)]
    if (isLimit(arm.name)) return metric === 'p99Ms' ? '-' : limitCell(ours, theirs)
    return leadCell({ onecopy: ours, other: theirs, better: metric === 'p99Ms' ? 'lower' : 'higher' })
  }
  return arms.map((arm) => [
    `${connections}`,
    arm.name,
    formatSpread(spread(valuesOf(arm, 'requestsPerSecond'))),
    formatNumber(quantile(valuesOf(arm, 'p50Ms'), 0.5)),
    formatSpread(spread(valuesOf(arm, 'p99Ms'))),
    String(failuresOf(arm.samples)),
    lead(arm, 'requestsPerSecond'),
    lead(arm, 'p99Ms'),
  ])
}

function chartOf(
  measured: readonly Measured[],
  options: {
    readonly title: string
    readonly metric: 'requestsPerSecond' | 'p99Ms'
    readonly yLabel: string
    readonly names: readonly string[]
  },
): Chart {
  const { title, metric, yLabel, names } = options
  return {
    kind: 'lines',
    title,
    xLabel: 'connections',
    yLabel,
    isLogX: true,
    series: names.map((label) => ({
      label,
      points: measured.map(({ connections, arms }) => {
        const arm = arms.find(({ name }) => name === label)
        return [connections, arm === undefined ? Number.NaN : quantile(valuesOf(arm, metric), 0.5)] as const
      }),
    })),
  }
}

async function throughputBench(modelName: string, options: ThroughputOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const model = await findSubject(modelName)
  const { armsFor, notes } = await startComparison(stage, model, options)
  const { connections: steps, encoding, workers, rounds } = options
  const perStep = stepsOf(armsFor(1).length, rounds)
  using progress = createProgress(`throughput ${model.name}`, perStep * steps.length)
  const measured: Measured[] = []
  for (const connections of steps) {
    measured.push({ connections, arms: await alternate(armsFor(connections), { ...options, progress }) })
  }
  const title = `${model.name} (${formatMb(model.bytes)} MB), ${encoding}, ${workers} workers`
  const names = measured[0]?.arms.map(({ name }) => name) ?? []
  const servers = names.filter((name) => !isLimit(name))
  return {
    name: `throughput-${model.name}`,
    title,
    table: {
      head: [
        'connections',
        'variant',
        'req/s, median (min-max)',
        'p50 ms',
        'p99 ms',
        'failures',
        'onecopy compared, req/s',
        'p99',
      ],
      rows: measured.flatMap(rowsOf),
    },
    checks: [noFailures(measured.flatMap(({ arms }) => arms))],
    notes,
    charts: [
      // Bare Koa is left out: it would dwarf all other lines.
      chartOf(measured, {
        ...{ title: `${title}: requests per second`, metric: 'requestsPerSecond', yLabel: 'requests/s' },
        names: [...servers, LIMITS[0]],
      }),
      chartOf(measured, { title: `${title}: p99`, metric: 'p99Ms', yLabel: 'ms', names: servers }),
    ],
    setting: { ...options, model },
    raw: measured,
  }
}

export const throughput = defineBench({
  name: 'throughput',
  summary: 'Requests/s and p50/p99 for several models by number of connections, with two limits.',
  options: {
    models: modelsOption({
      default:
        'mlp-6x512,200MB,convnet-16x64,transformer-4x256,int8-6x1024,lstm-2x256,embedding-100000x512,trees-200x10',
      quick: 'mlp-6x512,200MB,convnet-16x64,transformer-4x256',
    }),
    connections: risingOption({ help: 'Numbers of connections', default: '1,8,32,128', quick: '1,32' }),
    encoding: choiceOption(ENCODINGS, { help: 'Encoding of tensors', default: 'binary' }),
    seconds: positiveOption({ help: 'Duration of one measurement of one variant', default: '3', quick: '1' }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '3', quick: '2' }),
    workers: countOption({ help: 'Workers of each variant', default: '2' }),
    variants: variantsOption({
      default: 'onecopy,plain-koa,pm2-koa,thread-pool,peers',
      quick: 'onecopy,plain-koa,thread-pool,peers',
    }),
  },
  failsWhen: 'a request failed',
  reports: ({ models, ...options }) => models.map((model) => () => throughputBench(model, options)),
})
