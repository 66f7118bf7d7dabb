/**
 * Host memory by number of workers. Each variant serves the same model with more and more workers, one server
 * at a time. After requests to every worker, each page mapped by the server counts once (proportional set
 * size), plus unmapped parts of the segment.
 */
import { readFileSync } from 'node:fs'
import { defineBench } from './harness/bench.js'
import { type HostMemory, hostMemory, settle } from './harness/footprint.js'
import { countOption, risingOption } from './harness/options.js'
import { createProgress, type Progress } from './harness/progress.js'
import type { BenchReport, Check } from './harness/report.js'
import { ENCODINGS, type InferRequest } from './harness/requests.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber } from './harness/statistics.js'
import { chooseVariants, startOrSkip, type Variant, variantsOption } from './harness/variants.js'
import { sendToWorkers } from './harness/warm-up.js'
import { findSubject, modelsOption, requestsTo, type Subject } from './models/subject.js'

const REQUESTS_PER_ENCODING = 8
const SHARED_RATIO_BAR = { min: 1, max: 1.1 }
/** Share of the available memory that a start may take. */
const MEMORY_SHARE = 0.8

interface MemoryOptions {
  readonly workers: readonly number[]
  readonly requests: number
  readonly variants: readonly string[]
}

interface Measured extends HostMemory {
  readonly workers: number
}

async function measure(options: {
  readonly stage: Stage
  readonly variant: Variant
  readonly model: Subject
  readonly workers: number
  readonly requests: readonly InferRequest[]
  readonly count: number
  readonly notes: string[]
}): Promise<Measured | null> {
  const { stage, variant, model, workers, requests, count, notes } = options
  const server = await startOrSkip({ variant, notes }, () => variant.start({ stage, model, workers }))
  if (server === null) return null
  await sendToWorkers(variant, server, { requests, count, workers })
  await settle(server)
  const memory = await hostMemory(server)
  await stage.stop(server.child)
  return { workers, ...memory }
}

/** Available memory without swapping. Source: proc_meminfo(5). */
function availableBytes(): number {
  const text = readFileSync('/proc/meminfo', 'latin1')
  return Number(text.match(/^MemAvailable:\s+(\d+) kB/m)?.[1] ?? 0) * 1024
}

/** Memory that a start with more workers will take, extrapolated from the last two measurements. */
function expectedBytes(measured: readonly Measured[], workers: number): number {
  const [before, last] = measured.slice(-2)
  if (before === undefined || last === undefined) return 0
  const perWorker = (last.totalBytes - before.totalBytes) / (last.workers - before.workers)
  return last.totalBytes + perWorker * (workers - last.workers)
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

/** Memory that is neither private to one process nor part of a program: the shared copies. */
function sharedBytes({ totalBytes, ownBytes, programBytes }: HostMemory): number {
  return totalBytes - sum(ownBytes) - programBytes
}

/** Memory per additional worker, between the fewest and the most workers. */
function perWorkerBytes(measured: readonly Measured[]): number {
  const [first, last] = [measured[0], measured.at(-1)]
  if (first === undefined || last === undefined || first === last) return Number.NaN
  return (last.totalBytes - first.totalBytes) / (last.workers - first.workers)
}

function checksOf(measured: readonly Measured[], weightsBytes: number): Check[] {
  const [first, last] = [measured[0], measured.at(-1)] as [Measured, Measured]
  const { min, max } = SHARED_RATIO_BAR
  const ratio = sharedBytes(last) / weightsBytes
  const grown = (sharedBytes(last) - sharedBytes(first)) / weightsBytes
  const shared = `memory that is neither private nor part of a program`
  return [
    {
      claim: `${shared}, with ${last.workers} workers`,
      got: `${ratio.toFixed(3)}x the weights`,
      bar: `${min}x to ${max}x`,
      // Both numbers include the rounding to pages.
      isMet: Number(ratio.toFixed(2)) >= min && ratio <= max,
    },
    {
      claim: `growth of this memory from ${first.workers} to ${last.workers} workers`,
      got: `${grown.toFixed(3)}x the weights`,
      bar: `at most ${(max - min).toFixed(1)}x`,
      isMet: grown <= max - min,
    },
  ]
}

/** One variant with increasing numbers of workers, as far as memory allows. */
interface Series {
  readonly name: string
  readonly measured: readonly Measured[]
  /** Starts left out because they would have taken most of the available memory. */
  readonly leftOut: readonly { readonly workers: number; readonly bytes: number }[]
}

async function measureSeries(options: {
  readonly stage: Stage
  readonly progress: Progress
  readonly variant: Variant
  readonly model: Subject
  readonly settings: MemoryOptions
  readonly notes: string[]
}): Promise<Series | null> {
  const { stage, progress, variant, model, settings, notes } = options
  const requests = ENCODINGS.filter((encoding) => variant.encodings.includes(encoding)).flatMap((encoding) =>
    requestsTo(model, { encoding, count: REQUESTS_PER_ENCODING }),
  )
  const measured: Measured[] = []
  const leftOut: { workers: number; bytes: number }[] = []
  for (const workers of settings.workers) {
    progress.step(`${variant.name}, ${workers} workers`)
    const bytes = expectedBytes(measured, workers)
    if (leftOut.length > 0 || bytes > availableBytes() * MEMORY_SHARE) leftOut.push({ workers, bytes })
    else {
      const { requests: count } = settings
      const found = await measure({ stage, variant, model, workers, requests, count, notes })
      if (found === null) return null
      measured.push(found)
    }
  }
  return { name: variant.name, measured, leftOut }
}

/** Above 1, onecopy takes less memory. */
function lessCell(series: Series, onecopy: Series | undefined): string {
  const last = series.measured.at(-1)
  const ours = onecopy?.measured.find(({ workers }) => workers === last?.workers)
  if (series === onecopy || last === undefined || ours === undefined) return '-'
  const ratio = last.totalBytes / ours.totalBytes
  return `${ratio > 1 ? 'ahead' : '**behind**'} ${formatNumber(ratio)}x at ${last.workers}`
}

function tableOf(all: readonly Series[], steps: readonly number[]): BenchReport['table'] {
  const onecopy = all.find(({ name }) => name === 'onecopy')
  return {
    head: [
      'total host memory, MB',
      ...steps.map((workers) => (workers === 1 ? '1 worker' : `${workers} workers`)),
      'each additional worker',
      'private MB, largest process',
      'onecopy compared',
    ],
    rows: all.map((series) => [
      series.name,
      ...steps.map((workers) => {
        const found = series.measured.find((measured) => measured.workers === workers)
        const skipped = series.leftOut.find((one) => one.workers === workers)
        return found === undefined
          ? `not started: about ${formatMb(skipped?.bytes ?? Number.NaN)}`
          : formatMb(found.totalBytes)
      }),
      series.measured.length > 1 ? formatMb(perWorkerBytes(series.measured)) : '-',
      formatMb(Math.max(...(series.measured.at(-1)?.ownBytes ?? []))),
      lessCell(series, onecopy),
    ]),
  }
}

async function memoryBench(modelName: string, settings: MemoryOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { workers: steps } = settings
  const { variants, notes } = chooseVariants(settings.variants)
  using progress = createProgress(`memory ${modelName}`, variants.length * steps.length + 1)
  progress.step('generating the model')
  const model = await findSubject(modelName)
  const all: Series[] = []
  for (const variant of variants) {
    const series = await measureSeries({ stage, progress, variant, model, settings, notes })
    if (series !== null) all.push(series)
  }
  const title = `${model.name} (${formatMb(model.bytes)} MB), host memory by workers`
  const onecopy = all.find(({ name }) => name === 'onecopy')
  return {
    name: `memory-${model.name}`,
    title,
    table: tableOf(all, steps),
    checks: onecopy === undefined ? [] : checksOf(onecopy.measured, model.bytes),
    notes: [
      ...notes,
      'each page counts once: proportional set sizes of all processes, plus unmapped parts of the segments',
      'a worker of thread-pool is a thread: all share one event loop, and a crash ends all of them',
      ...(all.some(({ leftOut }) => leftOut.length > 0)
        ? ['not started: it would have taken most of the available memory']
        : []),
    ],
    charts: [
      {
        kind: 'lines',
        title,
        xLabel: 'workers',
        yLabel: 'host memory MB',
        series: all.map(({ name: label, measured }) => ({
          label,
          points: measured.map(({ workers, totalBytes }) => [workers, totalBytes / 1e6] as const),
        })),
      },
    ],
    setting: { ...settings, model },
    raw: all,
  }
}

export const memory = defineBench({
  name: 'memory',
  summary: 'Total host memory by number of workers, each page counted once.',
  options: {
    models: modelsOption({ default: '200MB,1GB', quick: '200MB' }),
    workers: risingOption({ help: 'Numbers of workers', default: '1,2,4,8,16', quick: '1,2,4' }),
    requests: countOption({ help: 'Requests to each worker before memory is read', default: '16' }),
    variants: variantsOption({
      default: 'onecopy,plain-koa,pm2-koa,thread-pool,peers',
      quick: 'onecopy,plain-koa,thread-pool,peers',
    }),
  },
  failsWhen: 'workers of onecopy do not share exactly one copy of the weights',
  reports: ({ models, ...settings }) => models.map((model) => () => memoryBench(model, settings)),
})
