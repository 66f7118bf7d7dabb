/** The report of swaps under load: the check of every response, all readings, and the claims. */
import type { FolderUse } from '../harness/footprint.js'
import type { Generations } from '../harness/generations.js'
import type { BenchReport, Check } from '../harness/report.js'
import { formatMb, formatNumber, formatSpread, spread } from '../harness/statistics.js'
import type { AnswerInTime } from '../harness/steady-load.js'
import { outputOf } from '../harness/verify.js'
import type { GeneratedModel } from '../models/store.js'

const MAX_GROWTH_SHARE = 0.05
const MAX_GROWTH_BYTES = 5e6
const MAX_GROWTH_AFTER_UNLOAD_BYTES = 10e6
/** The stats page of an unloaded model version may remain. */
const MAX_LEFT_AFTER_UNLOAD_BYTES = 1e6
/** Heaps vary by more than the bar: the lowest of the last readings counts. */
const LAST_READINGS = 3
const SAMPLE_FAILURES = 5

export interface SwapOptions {
  readonly swaps: number
  readonly model: string
  readonly connections: number
  readonly workers: number
  readonly generations: number
  readonly warmUp: number
}

export interface Reading {
  readonly swap: number
  /** Since the start. */
  readonly answers: number
  readonly failures: number
  readonly pids: readonly number[]
  readonly privateBytes: readonly number[]
  readonly segments: FolderUse
  /** Open files of all processes. */
  readonly openFiles: number
}

/** Counts of responses, by result of the check. */
export class Tally {
  answers = 0
  failures = 0
  notCurrent = 0
  ofNone = 0
  /** The first few failures. */
  readonly samples: string[] = []
  readonly #generations: Generations

  constructor(generations: Generations) {
    this.#generations = generations
  }

  record({ requestIndex, sentMs, answeredMs, outcome }: AnswerInTime): void {
    this.answers++
    let values: readonly number[]
    try {
      if (outcome instanceof Error) throw outcome
      values = outputOf(outcome)
    } catch (thrown) {
      this.failures++
      this.#sample(`failed: ${(thrown as Error).message}`)
      return
    }
    const verdict = this.#generations.judge({ requestIndex, values, sentMs, answeredMs })
    if (verdict === 'current') return
    if (verdict === 'not current') this.notCurrent++
    else this.ofNone++
    this.#sample(
      `${verdict}: request ${requestIndex}, sent at ${formatNumber(sentMs)} ms: ${values.join(' ')}`,
    )
  }

  #sample(text: string): void {
    if (this.samples.length < SAMPLE_FAILURES) this.samples.push(text)
  }
}

export interface Swaps {
  readonly readings: readonly Reading[]
  /** Durations of the swaps that compiled a generation, and of the others. */
  readonly compiledMs: readonly number[]
  readonly cachedMs: readonly number[]
  readonly wallMs: number
}

export interface MeasuredSwaps extends Swaps {
  readonly second: { readonly loadMs: number; readonly loaded: Reading; readonly unloaded: Reading }
}
const list = (bytes: readonly number[]) => `${bytes.map(formatMb).join(' / ')} MB`

function hasGrown(first: number, last: number): boolean {
  return last - first > Math.max(MAX_GROWTH_BYTES, first * MAX_GROWTH_SHARE)
}

function lowestOfLast(readings: readonly Reading[]): number[] {
  const selected = readings.slice(1).slice(-LAST_READINGS)
  return (selected[0]?.pids ?? []).map((_, i) =>
    Math.min(...selected.map((reading) => reading.privateBytes[i] ?? Number.NaN)),
  )
}

function differences(to: readonly number[], from: readonly number[]): number[] {
  return to.map((bytes, i) => bytes - (from[i] ?? Number.NaN))
}

function checksOf(options: {
  readonly tally: Tally
  readonly silent: number
  readonly readings: readonly Reading[]
  readonly second: MeasuredSwaps['second']
}): Check[] {
  const { tally, silent, readings, second } = options
  const [first, last] = [readings[0], readings.at(-1)] as [Reading, Reading]
  const lowest = lowestOfLast(readings)
  const { unloaded } = second
  const growthBar = `at most ${MAX_GROWTH_SHARE * 100}% or ${formatMb(MAX_GROWTH_BYTES)} MB more than after the first swap`
  const workersAfter = differences(unloaded.privateBytes, last.privateBytes).slice(1)
  return [
    {
      claim: 'failed requests',
      got: `${tally.failures} of ${tally.answers}`,
      bar: '0',
      isMet: tally.failures === 0 && tally.answers > 0,
    },
    {
      claim: 'responses from a generation that was not current, or from none',
      got: `${tally.notCurrent} and ${tally.ofNone}`,
      bar: '0 and 0',
      isMet: tally.notCurrent === 0 && tally.ofNone === 0,
    },
    {
      claim: 'control: generations without a response while they were current',
      got: String(silent),
      bar: '0',
      isMet: silent === 0,
    },
    {
      claim: 'replaced processes',
      got: String(unloaded.pids.filter((pid) => !first.pids.includes(pid)).length),
      bar: '0',
      isMet: String(unloaded.pids) === String(first.pids) && String(last.pids) === String(first.pids),
    },
    {
      claim: 'segment folder after the last swap',
      got: `${formatMb(last.segments.bytes)} MB`,
      bar: growthBar,
      isMet: !hasGrown(first.segments.bytes, last.segments.bytes),
    },
    {
      claim: 'files in the segment folder after the last swap',
      got: String(last.segments.files),
      bar: `${first.segments.files}, as after the first`,
      isMet: last.segments.files === first.segments.files,
    },
    {
      claim: 'growth of private memory over the swaps, lowest of the last three readings: primary, workers',
      got: list(differences(lowest, first.privateBytes)),
      bar: growthBar,
      isMet: lowest.every((bytes, i) => !hasGrown(first.privateBytes[i] ?? Number.NaN, bytes)),
    },
    {
      claim: 'segment folder after the unload of the second model, minus before its load',
      got: `${formatMb(unloaded.segments.bytes - last.segments.bytes)} MB`,
      bar: `at most ${formatMb(MAX_LEFT_AFTER_UNLOAD_BYTES)} MB`,
      isMet: unloaded.segments.bytes - last.segments.bytes <= MAX_LEFT_AFTER_UNLOAD_BYTES,
    },
    {
      claim: 'private memory of the workers, likewise',
      got: list(workersAfter),
      bar: `at most ${formatMb(MAX_GROWTH_AFTER_UNLOAD_BYTES)} MB each`,
      isMet: workersAfter.every((bytes) => bytes <= MAX_GROWTH_AFTER_UNLOAD_BYTES),
    },
  ]
}

function processName(index: number): string {
  return index === 0 ? 'primary' : `worker ${index}`
}

/** The first time, and the spread of all. */
function swapTimes(timesMs: readonly number[]): [string, string] {
  const [firstMs] = timesMs
  if (firstMs === undefined) return ['-', '-']
  return [formatNumber(firstMs / 1000), formatSpread(spread(timesMs.map((ms) => ms / 1000)))]
}

export function swapsReport(options: {
  readonly measured: MeasuredSwaps
  readonly tally: Tally
  readonly silent: number
  readonly files: readonly GeneratedModel[]
  readonly settings: SwapOptions
}): BenchReport {
  const { measured, tally, silent, files, settings } = options
  const { readings, compiledMs, cachedMs, wallMs, second } = measured
  const [first, last] = [readings[0], readings.at(-1)] as [Reading, Reading]
  const { loaded, unloaded } = second
  const selected = [first, last, loaded, unloaded]
  const title = `${settings.model} (${formatMb(files[0]?.bytes ?? 0)} MB) replaced ${settings.swaps} times under ${settings.connections} connections, ${settings.workers} workers`
  return {
    name: 'swaps',
    title,
    table: {
      head: ['', 'after the first swap', 'after the last', 'with a second model', 'after its unload'],
      rows: [
        ...first.pids.map((_, i) => [
          `private memory, ${processName(i)}, MB`,
          ...selected.map((reading) => formatMb(reading.privateBytes[i] ?? Number.NaN)),
        ]),
        ['segment folder, MB', ...selected.map(({ segments }) => formatMb(segments.bytes))],
        ['files in it', ...selected.map(({ segments }) => String(segments.files))],
        ['open files, all processes', ...selected.map((reading) => String(reading.openFiles))],
        ['requests so far', ...selected.map(({ answers }) => String(answers))],
        ['failures so far', ...selected.map(({ failures }) => String(failures))],
        ['a swap that compiles, s', ...swapTimes(compiledMs), '-', '-'],
        ['a swap from the cache, s', ...swapTimes(cachedMs), formatNumber(second.loadMs / 1000), '-'],
      ],
    },
    checks: checksOf({ tally, silent, readings, second }),
    notes: [
      `times after the last swap are median (min-max), of ${compiledMs.length} swaps that compiled and ${cachedMs.length} others; with the second model: its load`,
      `the swaps took ${formatNumber(wallMs / 1000)} s in total, including pauses for reading memory`,
      ...tally.samples,
    ],
    charts: [
      {
        kind: 'lines',
        title: `private memory over ${settings.swaps} swaps, ${settings.model}`,
        xLabel: 'swaps',
        yLabel: 'private MB',
        series: first.pids.map((_, i) => ({
          label: processName(i),
          points: readings.map((reading) => [reading.swap, (reading.privateBytes[i] ?? 0) / 1e6] as const),
        })),
      },
    ],
    setting: { ...settings, generations: files },
    raw: { ...measured, answers: tally.answers, failures: tally.failures },
  }
}
