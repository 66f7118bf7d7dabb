/**
 * What a host pays for more workers: `node dist/bench/workers.js`.
 *
 * onecopy and plain Koa serve the same model from more and more workers, one server at a time; every worker
 * is asked, and then each page that any process of the server maps is counted once (proportional set size),
 * together with what of the segment nobody maps.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { sendToEach } from './harness/connections.js'
import { type HostMemory, hostMemory, untilReleased } from './harness/footprint.js'
import { count } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import { type BenchReport, type Check, runBenches } from './harness/report.js'
import { type InferRequest, inferRequests } from './harness/requests.js'
import { type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatNumber, quantile } from './harness/statistics.js'
import { verifySameAnswers } from './harness/verify.js'
import type { GeneratedModel } from './models/store.js'
import { benchModel } from './rows/row.js'

const REQUESTS_PER_ENCODING = 8
/** Idle time before memory is read: what requests left behind is collected. */
const SETTLE_MS = 2000
const SHARED_RATIO_BAR = { min: 1, max: 1.1 }
/** Of the memory that is free, what a start may be expected to take. */
const MEMORY_SHARE = 0.8

const USAGE = `Usage: node dist/bench/workers.js [options]

Options:
  --workers LIST   Numbers of workers, rising, separated by commas (1,2,4,8,16)
  --requests N     Requests to each worker before memory is read (16)
  --model NAME     An mlp (mlp-12x2048)

Exit code 1 when workers of onecopy share more than one copy of the weights, or less.
`

interface WorkersOptions {
  readonly workers: readonly number[]
  readonly requests: number
  readonly model: string
}

interface Measured extends HostMemory {
  readonly workers: number
}

type StartServer = (workers: number) => Promise<RunningServer>

async function measure(options: {
  readonly stage: Stage
  readonly start: StartServer
  readonly workers: number
  readonly requests: readonly InferRequest[]
  readonly count: number
}): Promise<Measured> {
  const { stage, start, workers, requests, count: requestCount } = options
  const server = await start(workers)
  await sendToEach(server, { requests, count: requestCount })
  await untilReleased(server.segmentDir)
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  server.child.assertAlive()
  const memory = await hostMemory(server)
  await stage.stop(server.child)
  return { workers, ...memory }
}

/** What the kernel could give without swapping. Source: proc_meminfo(5). */
function availableBytes(): number {
  const text = readFileSync('/proc/meminfo', 'latin1')
  return Number(text.match(/^MemAvailable:\s+(\d+) kB/m)?.[1] ?? 0) * 1024
}

/** What a start with more workers will take, by the last two that were measured. */
function expectedBytes(measured: readonly Measured[], workers: number): number {
  const [before, last] = measured.slice(-2)
  if (before === undefined || last === undefined) return 0
  const perWorker = (last.totalBytes - before.totalBytes) / (last.workers - before.workers)
  return last.totalBytes + perWorker * (workers - last.workers)
}

const mb = (bytes: number) => formatNumber(bytes / 1e6)

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

/** What of a server's memory is neither private to one process nor a program's: the copies that are shared. */
function sharedBytes({ totalBytes, ownBytes, programBytes }: HostMemory): number {
  return totalBytes - sum(ownBytes) - programBytes
}

/** For each further worker, from the fewest to the most. */
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
  const beyond = `what is neither private to a process nor a program's`
  return [
    {
      claim: `${beyond}, with ${last.workers} workers`,
      got: `${ratio.toFixed(3)}x the weights`,
      bar: `${min}x to ${max}x`,
      // Kernel pages and their rounding are in both numbers.
      isMet: Number(ratio.toFixed(2)) >= min && ratio <= max,
    },
    {
      claim: `growth of that from ${first.workers} to ${last.workers} workers`,
      got: `${grown.toFixed(3)}x the weights`,
      bar: `at most ${(max - min).toFixed(1)}x`,
      isMet: grown <= max - min,
    },
  ]
}

function rowOf(name: string, measured: Measured): string[] {
  const { workers, proportionalBytes, totalBytes, ownBytes, programBytes, segmentFolderBytes } = measured
  return [
    `${name}, ${workers}`,
    mb(totalBytes),
    mb(proportionalBytes),
    mb(sum(ownBytes)),
    mb(programBytes),
    segmentFolderBytes === 0 ? '-' : mb(segmentFolderBytes),
    mb(quantile(ownBytes.slice(1), 0.5)),
  ]
}

async function workersBench({
  workers: steps,
  requests: requestCount,
  model: modelName,
}: WorkersOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const progress = createProgress('workers', 2 * steps.length + 1)
  try {
    progress.step('making the model, and comparing the answers')
    const model: GeneratedModel = await benchModel(modelName)
    const requests = (['json', 'binary'] as const).flatMap((encoding) =>
      inferRequests(model.recipe, { encoding, count: REQUESTS_PER_ENCODING }),
    )
    const startOne: StartServer = (workers) => startOnecopy({ stage, model, workers })
    const startPlain: StartServer = (workers) => startVariant('plain-koa', { stage, model, workers })
    const compared = [await startPlain(1), await startOne(1)]
    await verifySameAnswers(compared, requests)
    for (const { child } of compared) await stage.stop(child)
    const onecopy: Measured[] = []
    const plain: Measured[] = []
    const leftOut: string[][] = []
    for (const workers of steps) {
      progress.step(`onecopy, ${workers} workers`)
      onecopy.push(await measure({ stage, start: startOne, workers, requests, count: requestCount }))
      progress.step(`plain Koa, ${workers} workers`)
      const expected = expectedBytes(plain, workers)
      if (leftOut.length > 0 || expected > availableBytes() * MEMORY_SHARE) {
        leftOut.push([`plain-koa, ${workers}`, `not started: some ${mb(expected)}`, ...Array(5).fill('-')])
        continue
      }
      plain.push(await measure({ stage, start: startPlain, workers, requests, count: requestCount }))
    }
    const title = `${modelName} (${mb(model.bytes)} MB), host memory by workers`
    const series = [
      { label: 'onecopy', measured: onecopy },
      { label: 'plain Koa', measured: plain },
    ]
    return {
      name: 'workers',
      title,
      table: {
        head: [
          'server, workers',
          'host memory in all MB',
          'sum of proportional set sizes MB',
          'private MB',
          'programs MB',
          'segment folder MB',
          'private MB of a worker, median',
        ],
        rows: [
          ...onecopy.map((measured) => rowOf('onecopy', measured)),
          ...plain.map((measured) => rowOf('plain-koa', measured)),
          ...leftOut,
        ],
      },
      checks: checksOf(onecopy, model.bytes),
      notes: [
        ...series.map(
          ({ label, measured }) =>
            `${label}: each further worker costs ${mb(perWorkerBytes(measured))} MB of host memory`,
        ),
        'private: pages of one process alone, neither of the segment nor of programs and libraries; the primary is in the sums',
        'programs: whatever else runs on this host from the same files takes its share of them',
        ...(leftOut.length === 0
          ? []
          : ['plain Koa was stopped where it would have taken most of the memory that is free']),
      ],
      charts: [
        {
          kind: 'lines',
          title,
          xLabel: 'workers',
          yLabel: 'host memory MB',
          series: series.map(({ label, measured }) => ({
            label,
            points: measured.map(({ workers, totalBytes }) => [workers, totalBytes / 1e6] as const),
          })),
        },
      ],
      setting: { workers: steps, requests: requestCount, model },
      raw: { onecopy, plain },
    }
  } finally {
    progress.end()
  }
}

async function main(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      workers: { type: 'string', default: '1,2,4,8,16' },
      requests: { type: 'string', default: '16' },
      model: { type: 'string', default: 'mlp-12x2048' },
      help: { type: 'boolean' },
    },
  })
  if (values.help === true) {
    process.stderr.write(USAGE)
    return 0
  }
  const workers = values.workers.split(',').map((text) => count('workers', text))
  if (workers.some((number, index) => number <= (workers[index - 1] ?? 0)))
    throw new Error(`expected --workers to rise, got ${values.workers}`)
  const options: WorkersOptions = {
    workers,
    requests: count('requests', values.requests),
    model: values.model,
  }
  return await runBenches([() => workersBench(options)])
}

process.exitCode = await main(process.argv.slice(2))
