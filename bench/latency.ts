/**
 * Latency at a load that every variant can sustain: the same constant rate for all, in alternation. Latency
 * counts from the time a request was due. A closed loop slows down with its server and hides queueing time.
 */
import { defineBench } from './harness/bench.js'
import { closedLoop } from './harness/closed-loop.js'
import { leadCell } from './harness/lead.js'
import { openLoop } from './harness/open-loop.js'
import { choiceOption, countOption, positiveOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { ENCODINGS, type Encoding } from './harness/requests.js'
import { orderOf } from './harness/rounds.js'
import type { RunningServer } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatNumber, formatSpread, quantile, spread } from './harness/statistics.js'
import { spreadChart } from './harness/svg.js'
import { chooseVariants, startOrSkip, variantsOption } from './harness/variants.js'
import { verifySameAnswers } from './harness/verify.js'
import { findSubject, modelsOption, requestsTo } from './models/subject.js'

const REQUEST_COUNT = 16
const SATURATING_CONNECTIONS = 16
const PERCENTILES = { p50: 0.5, p90: 0.9, p99: 0.99, 'p99.9': 0.999 } as const
type Percentile = keyof typeof PERCENTILES

interface LatencyOptions {
  readonly share: number
  readonly encoding: Encoding
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
  readonly variants: readonly string[]
}

interface Round {
  readonly percentilesMs: Readonly<Record<Percentile, number>>
  readonly answers: number
  readonly failures: number
  /** Delay of requests in the client. Latencies include it. */
  readonly sendLagP99Ms: number
}

interface MeasuredVariant {
  readonly name: string
  readonly maximumPerSecond: number
  readonly rounds: Round[]
}

function valuesOf({ rounds }: MeasuredVariant, percentile: Percentile): number[] {
  return rounds.map(({ percentilesMs }) => percentilesMs[percentile])
}

function tableOf(measured: readonly MeasuredVariant[]): BenchReport['table'] {
  const onecopy = measured.find(({ name }) => name === 'onecopy')
  const lead = (one: MeasuredVariant, percentile: Percentile) =>
    onecopy === undefined || one === onecopy
      ? '-'
      : leadCell({
          ...{ onecopy: valuesOf(onecopy, percentile), other: valuesOf(one, percentile), better: 'lower' },
        })
  const percentiles = Object.keys(PERCENTILES) as Percentile[]
  return {
    head: [
      'variant',
      ...percentiles.map((percentile) => `${percentile} ms`),
      'failures',
      'client delay, p99 ms',
      'onecopy compared, p50',
      'p99',
    ],
    rows: measured.map((one) => [
      one.name,
      ...percentiles.map((percentile) => formatSpread(spread(valuesOf(one, percentile)))),
      String(one.rounds.reduce((sum, { failures }) => sum + failures, 0)),
      formatNumber(Math.max(...one.rounds.map(({ sendLagP99Ms }) => sendLagP99Ms))),
      lead(one, 'p50'),
      lead(one, 'p99'),
    ]),
  }
}

async function latencyBench(modelName: string, options: LatencyOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { encoding, workers, seconds, rounds, share } = options
  const model = await findSubject(modelName)
  const { variants, notes } = chooseVariants(options.variants, encoding)
  const requests = requestsTo(model, { encoding, count: REQUEST_COUNT })
  using progress = createProgress(`latency ${model.name}`, variants.length * (rounds + 2))
  const arms: { server: RunningServer; measured: MeasuredVariant }[] = []
  for (const variant of variants) {
    progress.step(`${variant.name}: starting`)
    const server = await startOrSkip({ variant, notes }, () => variant.start({ stage, model, workers }))
    if (server === null) continue
    progress.step(`${variant.name}: maximum`)
    const load = { port: server.port, requests, connections: SATURATING_CONNECTIONS }
    await closedLoop({ ...load, seconds: Math.min(2, seconds) })
    const { requestsPerSecond: maximumPerSecond } = await closedLoop({
      ...load,
      seconds: Math.min(3, seconds),
    })
    arms.push({ server, measured: { name: variant.name, maximumPerSecond, rounds: [] } })
  }
  await verifySameAnswers(
    arms.map(({ server }) => server),
    requests,
  )
  const slowest = Math.min(...arms.map(({ measured }) => measured.maximumPerSecond))
  const ratePerSecond = Math.max(1, slowest * share)
  for (let round = 0; round < rounds; round++) {
    for (const { server, measured } of orderOf(arms, round)) {
      progress.step(`${measured.name}: round ${round + 1}`)
      const { answers, sendLagsMs } = await openLoop({
        port: server.port,
        requests,
        ratePerSecond,
        seconds,
      })
      server.child.assertAlive()
      const latencies = answers.filter(({ status }) => status === 200).map(({ latencyMs }) => latencyMs)
      const percentiles = Object.entries(PERCENTILES).map(([name, q]) => [name, quantile(latencies, q)])
      measured.rounds.push({
        percentilesMs: Object.fromEntries(percentiles) as Record<Percentile, number>,
        answers: answers.length,
        failures: answers.length - latencies.length,
        sendLagP99Ms: quantile(sendLagsMs, 0.99),
      })
    }
  }
  const measured = arms.map((arm) => arm.measured)
  const failures = measured.flatMap((one) => one.rounds).reduce((sum, round) => sum + round.failures, 0)
  const title = `${model.name}, ${encoding}, ${formatNumber(ratePerSecond)} requests/s to each server, ${workers} workers`
  return {
    name: `latency-${model.name}`,
    title,
    table: tableOf(measured),
    checks: [{ claim: 'failed requests', got: String(failures), bar: '0', isMet: failures === 0 }],
    notes: [
      `the rate is ${share} of the maximum of the slowest variant (${measured
        .map((one) => `${one.name} ${formatNumber(one.maximumPerSecond)}/s`)
        .join(', ')})`,
      'latency counts from the time a request was due; it includes the delay of the client on the same machine',
      ...notes,
    ],
    charts: [
      spreadChart(
        { title: `${model.name} at ${formatNumber(ratePerSecond)} requests/s: p99`, unit: 'milliseconds' },
        measured.map((one) => [one.name, valuesOf(one, 'p99')]),
      ),
    ],
    setting: { ...options, ratePerSecond, model },
    raw: measured,
  }
}

export const latency = defineBench({
  name: 'latency',
  summary:
    'Latency percentiles at a constant rate that every variant can sustain, from the time each request was due.',
  options: {
    models: modelsOption({
      default: 'mlp-6x512,200MB,convnet-16x64',
      quick: 'mlp-6x512,200MB',
    }),
    share: positiveOption({
      placeholder: 'X',
      help: 'Share of the maximum rate of the slowest variant',
      default: '0.5',
    }),
    encoding: choiceOption(ENCODINGS, { help: 'Encoding of tensors', default: 'json' }),
    seconds: positiveOption({
      help: 'Duration of one measurement of one variant',
      default: '10',
      quick: '3',
    }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '4', quick: '2' }),
    workers: countOption({ help: 'Workers of each variant', default: '2' }),
    variants: variantsOption({
      default: 'onecopy,plain-koa,pm2-koa,thread-pool,peers',
      quick: 'onecopy,plain-koa,thread-pool,peers',
    }),
  },
  failsWhen: 'a request failed',
  reports: ({ models, ...options }) => models.map((model) => () => latencyBench(model, options)),
})
