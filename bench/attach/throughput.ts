/** Throughput of a Koa cluster that attaches, compared with one that loads. */
import { closedLoopArm } from '../harness/closed-loop.js'
import { noFailures } from '../harness/compare.js'
import { leadCell } from '../harness/lead.js'
import { createProgress, type Progress } from '../harness/progress.js'
import type { BenchReport } from '../harness/report.js'
import { alternate, stepsOf } from '../harness/rounds.js'
import { Stage } from '../harness/stage.js'
import { formatMb, formatSpread, spread } from '../harness/statistics.js'
import { findSubject, requestsTo } from '../models/subject.js'
import { startClusters } from './clusters.js'

interface Options {
  readonly workers: readonly number[]
  readonly connections: number
  readonly rounds: number
  readonly seconds: number
}

async function measure(
  modelName: string,
  workers: number,
  options: Options & { readonly progress: Progress },
) {
  await using stage = new Stage()
  const model = await findSubject(modelName)
  const { attached, plain } = await startClusters(stage, model, workers)
  const requests = requestsTo(model, { encoding: 'binary', count: 16 })
  const { connections } = options
  const arms = [attached, plain].map((server) => closedLoopArm(server, { requests, connections }))
  return { workers, measured: await alternate(arms, options) }
}

export async function throughputReport(modelName: string, options: Options): Promise<BenchReport> {
  const model = await findSubject(modelName)
  const steps = stepsOf(2, options.rounds) * options.workers.length
  using progress = createProgress(`attach ${model.name}, requests`, steps)
  const clusters: Awaited<ReturnType<typeof measure>>[] = []
  for (const workers of options.workers)
    clusters.push(await measure(modelName, workers, { ...options, progress }))
  const rows = clusters.flatMap(({ workers, measured }) => {
    const perSecond = (name: string) =>
      measured.find((arm) => arm.name === name)?.samples.map((sample) => sample.requestsPerSecond) ?? []
    const [onecopy, other] = [perSecond('attached-koa'), perSecond('plain-koa')]
    return [
      [String(workers), 'attached-koa', formatSpread(spread(onecopy)), '-'],
      [
        String(workers),
        'plain-koa',
        formatSpread(spread(other)),
        leadCell({ onecopy, other, better: 'higher' }),
      ],
    ]
  })
  return {
    name: `attach-requests-${model.name}`,
    title: `${model.name} (${formatMb(model.bytes)} MB): throughput of an attached Koa cluster, ${options.connections} connections, binary`,
    table: { head: ['workers', 'cluster', 'requests/s', 'attached-koa compared'], rows },
    checks: [noFailures(clusters.flatMap(({ measured }) => measured))],
    notes: [],
    charts: [],
    setting: { model, ...options },
    raw: clusters,
  }
}
