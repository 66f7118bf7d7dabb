/** Latency with the model loaded for every request, compared with servers that keep it in memory. */
import { defineBench } from './harness/bench.js'
import { closedLoopArm } from './harness/closed-loop.js'
import { comparisonChart, failuresOf, noFailures, valuesOf } from './harness/compare.js'
import { leadCell } from './harness/lead.js'
import { countOption, positiveOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { alternate, type MeasuredArm, stepsOf } from './harness/rounds.js'
import type { RunningServer } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber, formatSpread, quantile, spread } from './harness/statistics.js'
import { chooseVariants, variantsOption } from './harness/variants.js'
import { verifySameAnswers } from './harness/verify.js'
import { findSubject, modelsOption, requestsTo } from './models/subject.js'

const REQUEST_COUNT = 4

interface RequestLoadOptions {
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
  readonly variants: readonly string[]
}

function rowsOf(measured: readonly MeasuredArm[]): string[][] {
  const onecopy = measured.find(({ name }) => name === 'onecopy')
  return measured.map((arm) => [
    arm.name,
    formatSpread(spread(valuesOf(arm, 'p50Ms'))),
    formatNumber(quantile(valuesOf(arm, 'p99Ms'), 0.5)),
    formatSpread(spread(valuesOf(arm, 'requestsPerSecond'))),
    String(failuresOf(arm.samples)),
    onecopy === undefined || arm === onecopy
      ? '-'
      : leadCell({ onecopy: valuesOf(onecopy, 'p50Ms'), other: valuesOf(arm, 'p50Ms'), better: 'lower' }),
  ])
}

async function requestLoadBench(modelName: string, options: RequestLoadOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { workers, rounds } = options
  const model = await findSubject(modelName)
  const { variants, notes } = chooseVariants(options.variants, 'binary')
  const requests = requestsTo(model, { encoding: 'binary', count: REQUEST_COUNT })
  using progress = createProgress(`request-load ${model.name}`, stepsOf(variants.length, rounds))
  const servers: RunningServer[] = []
  for (const variant of variants) servers.push(await variant.start({ stage, model, workers }))
  await verifySameAnswers(servers, requests)
  // One request in flight per worker, so that no request queues.
  const arms = servers.map((server) => closedLoopArm(server, { requests, connections: workers }))
  const measured = await alternate(arms, { ...options, progress })
  const title = `${model.name} (${formatMb(model.bytes)} MB), ${workers} concurrent requests`
  return {
    name: `request-load-${model.name}`,
    title,
    table: {
      head: ['variant', 'p50 ms', 'p99 ms', 'req/s', 'failures', 'onecopy compared, p50'],
      rows: rowsOf(measured),
    },
    checks: [noFailures(measured)],
    notes,
    charts: [comparisonChart(`${title}: p50`, measured, 'p50Ms')],
    setting: { ...options, model },
    raw: measured,
  }
}

export const requestLoad = defineBench({
  name: 'request-load',
  summary:
    'A model loaded for every request, in the worker or in a new process, compared with one that stays loaded.',
  options: {
    models: modelsOption({ default: '20MB,200MB' }),
    seconds: positiveOption({
      help: 'Duration of one measurement of one variant',
      default: '10',
      quick: '3',
    }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '4', quick: '2' }),
    workers: countOption({ help: 'Workers of each variant, and concurrent requests', default: '2' }),
    variants: variantsOption({ default: 'onecopy,plain-koa,reload-per-request,process-per-request' }),
  },
  failsWhen: 'a request failed',
  reports: ({ models, ...options }) => models.map((model) => () => requestLoadBench(model, options)),
})
