/**
 * A resident model with SMILES input, compared with a process that loads it for every request. The same
 * server serves all bundles: one has a serve.json; the others have a run.sh that starts a small program with
 * the same libraries in Node and, if available, in Python.
 */
import {
  BUILT_IN,
  type Bundle,
  type Bundles,
  makeBundles,
  molecules as moleculesOf,
} from './ersilia/bundles.js'
import { runReport } from './ersilia/run.js'
import { defineBench } from './harness/bench.js'
import { closedLoopArm } from './harness/closed-loop.js'
import { comparisonChart, comparisonTable, noFailures, ratioCheck } from './harness/compare.js'
import { countOption, positiveOption, textOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import type { InferRequest } from './harness/requests.js'
import { alternate, stepsOf } from './harness/rounds.js'
import { type RunningServer, startOnecopy } from './harness/servers.js'
import { Stage } from './harness/stage.js'

const CONNECTIONS = 2
const MOLECULES = [1, 100]
const THROUGHPUT_BAR = 5

interface Options {
  readonly model: string
  readonly seconds: number
  readonly rounds: number
  readonly runs: number
  readonly workers: number
  readonly python: string
}

function requestOf(count: number): InferRequest {
  return {
    method: 'POST',
    path: '/run?orient=values',
    headers: { 'Content-Type': 'application/json' },
    body: Buffer.from(JSON.stringify(moleculesOf(count))),
  }
}

async function valuesFrom(server: RunningServer): Promise<number[]> {
  const { method, path, body } = requestOf(20)
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { method, body: body.toString() })
  if (response.status !== 200) throw new Error(`${server.name} answered ${response.status}`)
  return ((await response.json()) as number[][]).map(([value]) => Number(value))
}

async function startServers(stage: Stage, { resident, others }: Bundles, workers: number) {
  const start = ({ name, root }: Bundle) =>
    startOnecopy({ stage, model: { repositoryDir: root }, workers, name, flags: ['--bundle', root] })
  const first = await start(resident)
  const expected = await valuesFrom(first)
  const servers = [first]
  for (const bundle of others) {
    const server = await start(bundle)
    const values = await valuesFrom(server)
    const differ = expected.some((value, i) => !(Math.abs(value - (values[i] as number)) < 1e-4))
    if (differ) throw new Error(`expected the outputs of ${bundle.name} to equal those of the resident model`)
    servers.push(server)
  }
  return servers
}

async function throughputBench(options: Options, molecules: number): Promise<BenchReport> {
  const { model, rounds, seconds, workers, python } = options
  await using stage = new Stage()
  const bundles = await makeBundles(stage, model, python)
  const servers = await startServers(stage, bundles, workers)
  using progress = createProgress(`${molecules} per request`, stepsOf(servers.length, rounds))
  const load = { requests: [requestOf(molecules)], connections: CONNECTIONS }
  const arms = await alternate(
    servers.map((server) => closedLoopArm(server, load)),
    { rounds, seconds, progress },
  )
  const [over, ...unders] = arms
  if (over === undefined) throw new Error('expected a resident model')
  const title = `${model}, ${molecules} molecules per request, ${CONNECTIONS} connections, ${workers} workers`
  return {
    name: `ersilia-${molecules}`,
    title,
    table: comparisonTable(arms),
    checks: [
      ...unders.flatMap((under) => [
        ratioCheck({
          over,
          under,
          metric: 'requestsPerSecond',
          bar: THROUGHPUT_BAR,
          isMetWhen: 'at least',
        }),
        ratioCheck({ over, under, metric: 'p50Ms', bar: 1, isMetWhen: 'below' }),
      ]),
      noFailures(arms),
    ],
    notes: bundles.notes,
    charts: [comparisonChart(title, arms, 'requestsPerSecond')],
    setting: { model, molecules, workers, connections: CONNECTIONS, rounds, seconds },
    raw: arms,
  }
}

function isChosen(part: string, chosen: readonly string[]): boolean {
  return chosen.length === 0 || chosen.includes(part)
}

export const ersilia = defineBench({
  name: 'ersilia',
  summary:
    'Predictions from SMILES: a resident model compared with a process for every request, onecopy run and Python.',
  options: {
    model: textOption({ help: `${BUILT_IN}, or an mlp of width 2048`, default: BUILT_IN }),
    seconds: positiveOption({
      help: 'Duration of one measurement of one variant',
      default: '10',
      quick: '3',
    }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '4', quick: '2' }),
    runs: countOption({
      help: 'Processes of each kind, alternating',
      default: '20',
      quick: '3',
    }),
    workers: countOption({ help: 'Workers of each server', default: '2' }),
    python: textOption({ help: 'A Python with rdkit, numpy and onnxruntime', default: 'python3' }),
  },
  choices: {
    word: 'PART',
    entries: [
      { name: 'requests', title: 'requests to a server of the bundle' },
      { name: 'processes', title: 'one process for each prediction' },
    ],
  },
  failsWhen: 'a bar is missed',
  reports: (options, chosen) => [
    ...(isChosen('requests', chosen)
      ? MOLECULES.map((molecules) => () => throughputBench(options, molecules))
      : []),
    ...(isChosen('processes', chosen)
      ? MOLECULES.map((molecules) => () => runReport(options, molecules))
      : []),
  ],
})
