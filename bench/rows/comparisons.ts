/** Rows that compare two variants under the same closed-loop load. */
import { startBareLoop } from '../harness/bare-loop.js'
import { closedLoopArm } from '../harness/closed-loop.js'
import { comparisonChart, comparisonTable, type Metric, noFailures, ratioCheck } from '../harness/compare.js'
import { createProgress } from '../harness/progress.js'
import type { BenchReport, Check } from '../harness/report.js'
import { type Encoding, inferRequests } from '../harness/requests.js'
import { type Arm, alternate, type MeasuredArm, stepsOf } from '../harness/rounds.js'
import { startOnecopy, startVariant } from '../harness/servers.js'
import { verifySameAnswers } from '../harness/verify.js'
import { benchModel, type Row, type RowContext } from './row.js'

/** Different bodies, so that no response can come from a cache. */
const REQUEST_COUNT = 16

interface Comparison {
  readonly context: RowContext
  readonly first: Arm
  readonly second: Arm
  readonly metric: Metric
  readonly checks: (first: MeasuredArm, second: MeasuredArm) => readonly Check[]
  readonly setting: object
}

async function compare({
  context,
  first,
  second,
  metric,
  checks,
  setting,
}: Comparison): Promise<BenchReport> {
  const { name, title, options } = context
  using progress = createProgress(name, stepsOf(2, options.rounds))
  const measured = await alternate([first, second], { ...options, progress })
  const [a, b] = measured as [MeasuredArm, MeasuredArm]
  return {
    name,
    title,
    table: comparisonTable(measured),
    checks: [...checks(a, b), noFailures(measured)],
    notes: [],
    charts: [comparisonChart(title, measured, metric)],
    setting: { ...options, ...setting },
    raw: measured,
  }
}

interface AgainstPlain {
  readonly name: string
  readonly model: string
  readonly encoding: Encoding
  readonly connections: number
  readonly bar: number
}

function againstPlainKoa({ name, model: modelName, encoding, connections, bar }: AgainstPlain): Row {
  return {
    name,
    title: `${modelName}, ${encoding}, ${connections} connections, onecopy compared with plain Koa`,
    run: async (context) => {
      const { stage, options } = context
      const model = await benchModel(modelName)
      const requests = inferRequests(model.recipe, { encoding, count: REQUEST_COUNT })
      const onecopy = await startOnecopy({ stage, model, workers: options.workers })
      const plain = await startVariant('plain-koa', { stage, model, workers: options.workers })
      await verifySameAnswers([plain, onecopy], requests)
      return await compare({
        context,
        first: closedLoopArm(onecopy, { requests, connections }),
        second: closedLoopArm(plain, { requests, connections }),
        metric: 'requestsPerSecond',
        checks: (over, under) => [
          ratioCheck({ over, under, metric: 'requestsPerSecond', bar, isMetWhen: 'at least' }),
          ratioCheck({ over, under, metric: 'p99Ms', bar: 1, isMetWhen: 'below' }),
        ],
        setting: { model, encoding, connections, requests: REQUEST_COUNT },
      })
    },
  }
}

export const smallJson = againstPlainKoa({
  name: 'small-json',
  model: 'mlp-6x512',
  encoding: 'json',
  connections: 32,
  bar: 2.2,
})

export const largeBinary = againstPlainKoa({
  name: 'large-binary',
  model: 'mlp-12x2048',
  encoding: 'binary',
  connections: 32,
  bar: 5,
})

/** Four requests in flight per worker: one is computed, the others are received, queued or sent. */
const CONVNET_CONNECTIONS_PER_WORKER = 4

export const convnet: Row = {
  name: 'convnet',
  title: 'a ConvNet that gains nothing from batching, onecopy compared with session.run in a loop',
  run: async (context) => {
    const { stage, options } = context
    const model = await benchModel('convnet-16x64')
    const requests = inferRequests(model.recipe, { encoding: 'binary', count: REQUEST_COUNT })
    const connections = options.workers * CONVNET_CONNECTIONS_PER_WORKER
    const onecopy = await startOnecopy({ stage, model, workers: options.workers })
    const bare = await startBareLoop({ stage, model, processes: options.workers, inputs: REQUEST_COUNT })
    return await compare({
      context,
      first: closedLoopArm(onecopy, { requests, connections }),
      second: bare,
      metric: 'requestsPerSecond',
      checks: (over, under) => [
        ratioCheck({ over, under, metric: 'requestsPerSecond', bar: 0.97, isMetWhen: 'at least' }),
      ],
      setting: { model, encoding: 'binary', connections, requests: REQUEST_COUNT },
    })
  },
}

export const oneConnection: Row = {
  name: 'one-connection',
  title: 'mlp-2x64, JSON, 1 connection, onecopy compared with a bare Koa route',
  run: async (context) => {
    const { stage, options } = context
    const model = await benchModel('mlp-2x64')
    const requests = inferRequests(model.recipe, { encoding: 'json', count: REQUEST_COUNT })
    const onecopy = await startOnecopy({ stage, model, workers: options.workers })
    const bare = await startVariant('bare-koa', { stage, model, workers: options.workers })
    return await compare({
      context,
      first: closedLoopArm(onecopy, { requests, connections: 1 }),
      second: closedLoopArm(bare, { requests, connections: 1 }),
      metric: 'p50Ms',
      checks: (over, under) => [ratioCheck({ over, under, metric: 'p50Ms', bar: 2, isMetWhen: 'at most' })],
      setting: { model, encoding: 'json', connections: 1, requests: REQUEST_COUNT },
    })
  },
}

export const binaryAgainstJson: Row = {
  name: 'binary-json',
  title: 'mlp-6x512, 32 connections, onecopy with binary tensors compared with JSON',
  run: async (context) => {
    const { stage, options } = context
    const connections = 32
    const model = await benchModel('mlp-6x512')
    const binary = inferRequests(model.recipe, { encoding: 'binary', count: REQUEST_COUNT })
    const json = inferRequests(model.recipe, { encoding: 'json', count: REQUEST_COUNT })
    const onecopy = await startOnecopy({ stage, model, workers: options.workers })
    return await compare({
      context,
      first: closedLoopArm(onecopy, { name: 'binary', requests: binary, connections }),
      second: closedLoopArm(onecopy, { name: 'json', requests: json, connections }),
      metric: 'requestsPerSecond',
      checks: (over, under) => [
        ratioCheck({ over, under, metric: 'requestsPerSecond', bar: 1.4, isMetWhen: 'at least' }),
      ],
      setting: { model, connections, requests: REQUEST_COUNT },
    })
  },
}
