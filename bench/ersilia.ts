/**
 * A resident model with SMILES input, compared with a process that loads it for every request. The same
 * server serves all bundles: one has a serve.json; the others have a run.sh that starts a small program with
 * the same libraries in Node and, if available, in Python.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { defineBench } from './harness/bench.js'
import { closedLoopArm } from './harness/closed-loop.js'
import { comparisonChart, comparisonTable, noFailures, ratioCheck } from './harness/compare.js'
import { countOption, positiveOption, textOption } from './harness/options.js'
import { CACHE_DIR, COMPILED_ROOT, PACKAGE_ROOT } from './harness/paths.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import type { InferRequest } from './harness/requests.js'
import { alternate, orderOf, stepsOf } from './harness/rounds.js'
import { type RunningServer, segmentFolder, startOnecopy } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatNumber, formatSpread, ratios, spread } from './harness/statistics.js'
import { benchModel } from './rows/row.js'

const MAIN = join(COMPILED_ROOT, 'cluster', 'main.js')
const BUILT_IN = 'logp'
const CONNECTIONS = 2
const MOLECULES = [1, 100]
const THROUGHPUT_BAR = 5
const RUN_BAR = 2

interface Options {
  readonly model: string
  readonly seconds: number
  readonly rounds: number
  readonly runs: number
  readonly workers: number
  readonly python: string
}

interface Bundle {
  readonly name: string
  readonly root: string
}

interface Bundles {
  readonly resident: Bundle
  readonly others: readonly Bundle[]
  readonly notes: readonly string[]
}

const FINGERPRINT = { radius: 1, bits: 2048 }

/** Esters with growing chains: all molecules differ. */
function molecules(count: number): string[] {
  return Array.from(
    { length: count },
    (_, i) => `CC(=O)Oc1ccc(C(=O)O${'C'.repeat(i % 40)})cc1${'C'.repeat(i / 40)}`,
  )
}

function writeBundle(folder: string, name: string, files: Record<string, string>): string {
  const root = join(folder, name)
  const framework = join(root, 'model', 'framework')
  mkdirSync(join(framework, 'columns'), { recursive: true })
  const card = { Identifier: `bench-${name}`, Slug: name, 'Output Type': ['Float'] }
  writeFileSync(join(root, 'metadata.json'), JSON.stringify(card))
  writeFileSync(
    join(framework, 'columns', 'run_columns.csv'),
    'name,type,direction,description\nvalue,float,high,x\n',
  )
  for (const [file, text] of Object.entries(files)) {
    writeFileSync(join(framework, file), text)
    if (file.endsWith('.sh')) chmodSync(join(framework, file), 0o755)
  }
  return root
}

function hasChemistry(python: string): boolean {
  const imports = 'import numpy, onnxruntime, rdkit.Chem.rdFingerprintGenerator'
  return spawnSync(python, ['-c', imports], { stdio: 'ignore' }).status === 0
}

async function makeBundles(stage: Stage, model: string, python: string): Promise<Bundles> {
  const folder = stage.folder(tmpdir(), 'onecopy-bench-ersilia-')
  const source =
    model === BUILT_IN
      ? join(PACKAGE_ROOT, 'models', 'logp', '1', 'model.onnx')
      : (await benchModel(model)).path
  const { bits, radius } = FINGERPRINT
  const featurizer = { kind: 'morgan', radius, bits, counts: 'simulated' }
  const manifest = { checkpoint: 'model.onnx', featurizer }
  const resident = writeBundle(folder, 'resident', { 'serve.json': JSON.stringify(manifest) })
  const checkpoint = join(resident, 'model.onnx')
  copyFileSync(source, checkpoint)
  const perRequest = (name: string, command: string): Bundle => ({
    name,
    root: writeBundle(folder, name.replaceAll(' ', '-'), {
      'run.sh': `#!/bin/bash\nexec ${command} "$2" "$3"\n`,
    }),
  })
  const inNode = join(COMPILED_ROOT, 'bench', 'variants', 'run-once.js')
  const inPython = join(PACKAGE_ROOT, 'bench', 'variants', 'run_once.py')
  const others = [
    perRequest(
      'node per request',
      `"${process.execPath}" "${inNode}" "${checkpoint}" ${bits} ${radius} simulated`,
    ),
  ]
  const isPythonThere = hasChemistry(python)
  if (isPythonThere)
    others.push(
      perRequest('python per request', `"${python}" "${inPython}" "${checkpoint}" ${bits} ${radius}`),
    )
  const notes = [
    'resident: the model loaded once, RDKit in a separate thread',
    'per request: the same server starts a process for each request, which imports RDKit and ONNX Runtime and loads the model',
    ...(isPythonThere
      ? []
      : [`python per request: **skipped**, ${python} lacks rdkit, numpy or onnxruntime (--python)`]),
  ]
  return { resident: { name: 'resident', root: resident }, others, notes }
}

function requestOf(count: number): InferRequest {
  return {
    method: 'POST',
    path: '/run?orient=values',
    headers: { 'Content-Type': 'application/json' },
    body: Buffer.from(JSON.stringify(molecules(count))),
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

/** Duration of one `onecopy run` in milliseconds. */
function timeRun(args: readonly string[]): number {
  const startedMs = performance.now()
  const { status, stderr } = spawnSync(process.execPath, [MAIN, 'run', ...args], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`onecopy run ended with ${status}: ${stderr}`)
  return performance.now() - startedMs
}

async function runBench({ model, runs, python }: Options): Promise<BenchReport> {
  await using stage = new Stage()
  const { root: resident } = (await makeBundles(stage, model, python)).resident
  const segmentDir = segmentFolder(stage)
  await stage.start({
    name: 'load',
    args: [MAIN, 'load', resident, '--segment-dir', segmentDir, '--cache-dir', CACHE_DIR],
    hasChannel: false,
  })
  const folder = stage.folder(tmpdir(), 'onecopy-bench-ersilia-')
  const input = join(folder, 'input.csv')
  writeFileSync(input, `input\n${molecules(100).join('\n')}\n`)
  const methods = ['socket', 'segment', 'cold'] as const
  const times: Record<(typeof methods)[number], number[]> = { socket: [], segment: [], cold: [] }
  using progress = createProgress('onecopy run', runs + 1)
  for (let i = 0; i <= runs; i++) {
    progress.step(`run ${i}`)
    for (const via of orderOf(methods, i)) {
      const files = ['--input', input, '--output', join(folder, `${via}.csv`)]
      const ms = timeRun([resident, ...files, '--via', via, '--segment-dir', segmentDir])
      // The first run of each fills the page cache.
      if (i > 0) times[via].push(ms)
    }
  }
  const faster = ratios(times.cold, times.socket)
  const title = `${model}, onecopy run of 100 molecules, ${runs} times each, alternating`
  return {
    name: 'ersilia-run',
    title,
    table: {
      head: ['method', 'ms, median (min-max)', 'a cold run takes'],
      rows: methods.map((via) => [
        via,
        formatSpread(spread(times[via])),
        `${formatSpread(ratios(times.cold, times[via]))}x`,
      ]),
    },
    checks: [
      {
        claim: 'a run through the resident server, compared with a cold one',
        bar: `at least ${formatNumber(RUN_BAR)} times faster`,
        got: `${formatSpread(faster)} times`,
        isMet: faster.median >= RUN_BAR,
      },
    ],
    notes: [],
    charts: [],
    setting: { model, runs },
    raw: times,
  }
}

export const ersilia = defineBench({
  name: 'ersilia',
  summary:
    'Predictions from SMILES: a resident model compared with a process for every request, and onecopy run.',
  options: {
    model: textOption({ help: `${BUILT_IN}, or an mlp of width 2048`, default: BUILT_IN }),
    seconds: positiveOption({
      help: 'Duration of one measurement of one variant',
      default: '10',
      quick: '3',
    }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '4', quick: '2' }),
    runs: countOption({
      help: 'Runs of onecopy run with each method, alternating',
      default: '20',
      quick: '3',
    }),
    workers: countOption({ help: 'Workers of each server', default: '2' }),
    python: textOption({ help: 'A Python with rdkit, numpy and onnxruntime', default: 'python3' }),
  },
  failsWhen: 'a bar is missed',
  reports: (options) => [
    ...MOLECULES.map((molecules) => () => throughputBench(options, molecules)),
    () => runBench(options),
  ],
})
