/**
 * Total time of a process for one prediction: the three methods of `onecopy run`, and Python
 * programs that compute the features and then load the model or use the resident one.
 */
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CACHE_DIR, COMPILED_ROOT, PACKAGE_ROOT } from '../harness/paths.js'
import { createProgress } from '../harness/progress.js'
import type { BenchReport, Check } from '../harness/report.js'
import { orderOf } from '../harness/rounds.js'
import { segmentFolder } from '../harness/servers.js'
import { Stage } from '../harness/stage.js'
import { formatNumber, formatSpread, ratios, spread } from '../harness/statistics.js'
import { BUILT_IN, FINGERPRINT, hasChemistry, makeBundles, molecules } from './bundles.js'

const MAIN = join(COMPILED_ROOT, 'cluster', 'main.js')
const BAR = 2
const TOLERANCE = 1e-4

interface RunOptions {
  readonly model: string
  readonly runs: number
  readonly python: string
}

interface Method {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
  /** The method that loads the model with the same libraries. */
  readonly loads: string
}

interface Files {
  readonly resident: string
  readonly input: string
  readonly segmentDir: string
}

const COLD = 'onecopy run, cold'
const PYTHON_LOADS = 'Python that loads'

/** The caller appends the output file as the last argument. */
function methodsOf({ model, python }: RunOptions, { resident, input, segmentDir }: Files): Method[] {
  const ours = (name: string, via: string): Method => ({
    ...{ name, command: process.execPath, loads: COLD },
    args: [MAIN, 'run', resident, '--via', via, '--segment-dir', segmentDir, '--input', input, '--output'],
  })
  const node = [
    ours('onecopy run, socket', 'socket'),
    ours('onecopy run, segment', 'segment'),
    ours(COLD, 'cold'),
  ]
  if (!hasChemistry(python)) return node
  const programs = join(PACKAGE_ROOT, 'bench', 'variants')
  const fingerprint = [String(FINGERPRINT.bits), String(FINGERPRINT.radius)]
  const inputName = model === BUILT_IN ? 'fingerprint' : 'input'
  const theirs = (name: string, args: readonly string[]): Method => ({
    ...{ name, command: python, loads: PYTHON_LOADS, args: [...args, ...fingerprint, input] },
  })
  return [
    ...node,
    theirs('Python with onecopy.run', [join(programs, 'run_resident.py'), 'bench-resident', inputName]),
    theirs(PYTHON_LOADS, [join(programs, 'run_once.py'), join(resident, 'model.onnx')]),
  ]
}

/** Duration of the process in milliseconds. */
async function timeOf({ command, args }: Method, output: string, segmentDir: string): Promise<number> {
  const startedMs = performance.now()
  await promisify(execFile)(command, [...args, output], {
    env: {
      ...process.env,
      ONECOPY_SEGMENT_DIR: segmentDir,
      PYTHONPATH: [join(PACKAGE_ROOT, 'src', 'python'), process.env.PYTHONPATH ?? ''].join(':'),
    },
  })
  return performance.now() - startedMs
}

function valuesIn(path: string): number[] {
  return readFileSync(path, 'utf8').trim().split(/\r?\n/).slice(1).map(Number)
}

/** @throws Error unless all methods wrote the same values. */
function requireSameValues(outputs: readonly string[]): void {
  const [first = [], ...others] = outputs.map(valuesIn)
  for (const [i, values] of others.entries()) {
    const differ = first.some((value, row) => !(Math.abs(value - (values[row] ?? Number.NaN)) < TOLERANCE))
    if (differ) throw new Error(`expected ${outputs[i + 1]} to have the values of ${outputs[0]}`)
  }
}

export async function runReport(options: RunOptions, count: number): Promise<BenchReport> {
  const { model, runs, python } = options
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
  writeFileSync(input, `input\n${molecules(count).join('\n')}\n`)
  const methods = methodsOf(options, { resident, input, segmentDir })
  const times = new Map<string, number[]>(methods.map(({ name }) => [name, []]))
  const outputs = methods.map((_, i) => join(folder, `output-${i}.csv`))
  using progress = createProgress('one process', runs + 1)
  for (let i = 0; i <= runs; i++) {
    progress.step(`run ${i}`)
    for (const method of orderOf(methods, i)) {
      const ms = await timeOf(method, outputs[methods.indexOf(method)] ?? '', segmentDir)
      // The first run of each fills the page cache.
      if (i > 0) times.get(method.name)?.push(ms)
    }
  }
  requireSameValues(outputs)
  const timesOf = (name: string) => times.get(name) ?? []
  const faster = ({ name, loads }: Method) => ratios(timesOf(loads), timesOf(name))
  const bars = methods.filter(
    ({ name }) => name === 'onecopy run, socket' || name === 'Python with onecopy.run',
  )
  return {
    name: `ersilia-run-${count}`,
    title: `${model}, one process for ${count} molecules, ${runs} times each, alternating`,
    table: {
      head: ['process', 'ms, median (min-max)', 'speedup over loading'],
      rows: methods.map((method) => [
        method.name,
        formatSpread(spread(timesOf(method.name))),
        `${formatSpread(faster(method))}x`,
      ]),
    },
    checks: bars.map((method): Check => {
      const ratio = faster(method)
      const isOurs = method.loads === COLD
      return {
        claim: `${method.name}, compared with ${method.loads}`,
        bar: isOurs ? `at least ${formatNumber(BAR)} times faster` : 'faster',
        got: `${formatSpread(ratio)} times`,
        isMet: ratio.median >= (isOurs ? BAR : 1),
      }
    }),
    notes: [
      'time from the start to the exit of the process; the baseline loads the model with the same libraries',
      ...(hasChemistry(python)
        ? []
        : [`Python: **skipped**, ${python} lacks rdkit, numpy or onnxruntime (--python)`]),
    ],
    charts: [],
    setting: { model, runs, molecules: count },
    raw: Object.fromEntries(times),
  }
}
