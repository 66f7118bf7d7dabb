/**
 * Processes killed at random under load, for minutes: `node dist/bench/chaos.js`. Whoever was not at the
 * killed worker must not notice, counts must stay exact, and nothing may be left behind.
 */
import { parseArgs } from 'node:util'
import { chaosChecks, recoveriesMs, recoveryCheck } from './chaos/checks.js'
import { FAULTS, type Fault, isFault } from './chaos/faults.js'
import { type ChaosResult, runChaos } from './chaos/run.js'
import { createProgress } from './harness/progress.js'
import { type BenchReport, runBenches } from './harness/report.js'
import { Stage } from './harness/stage.js'
import { formatNumber, quantile } from './harness/statistics.js'
import { benchModel } from './rows/row.js'

const USAGE = `Usage: node dist/bench/chaos.js [options]

Options:
  --seconds S     How long (600)
  --every S       Seconds between two faults; the next one waits until all workers are ready (2)
  --pause MS      Between an answer and a client's next request; 0 takes all CPUs there are, also those
                  that a worker needs to boot (150)
  --workers N     Workers (4)
  --model NAME    Any model of the benches (mlp-12x2048)
  --seed TEXT     Draws the faults (1)
  --faults LIST   Which faults, separated by commas (${FAULTS.join(',')})

Exit code 1 when a bar is missed.
`

interface Options {
  readonly seconds: number
  readonly everyMs: number
  readonly pauseMs: number
  readonly workers: number
  readonly model: string
  readonly seed: string
  readonly faults: readonly Fault[]
}

function recoveryRows({ faults }: ChaosResult): string[][] {
  return FAULTS.flatMap((fault) => {
    const own = faults.filter((one) => one.fault === fault)
    if (own.length === 0) return []
    const times = own.flatMap(({ recoveryMs }) => recoveryMs ?? [])
    const text = [quantile(times, 0.5), Math.max(...times)].map((ms) => `${formatNumber(ms)} ms`)
    return [[`${fault}, ${own.length} times: back after, median / max`, text.join(' / ')]]
  })
}

async function chaosBench(options: Options): Promise<BenchReport> {
  const { seconds, everyMs, workers, model: name } = options
  const model = await benchModel(name)
  await using stage = new Stage()
  const progress = createProgress('chaos', Math.ceil((seconds * 1000) / everyMs))
  let result: ChaosResult
  try {
    result = await runChaos({ ...options, stage, model, onFault: (note) => progress.step(note) })
  } finally {
    progress.end()
  }
  const { tally, watch } = result
  const times = recoveriesMs(result)
  return {
    name: 'chaos',
    title: `${name}, ${workers} workers, ${seconds} s under load, a fault every ${everyMs / 1000} s`,
    table: {
      head: ['what', 'count'],
      rows: [
        ['requests sent', String(tally.sent)],
        ['answered', String(tally.answered)],
        ['refused (503)', String(tally.refused)],
        ['cut off at a killed worker', String(tally.cutOff.length)],
        ['cut off on the way to one', String(tally.cutOffOnTheWay.length)],
        ['lost otherwise', String(tally.unexplained.length)],
        ['wrong answers', String(tally.wrong.length)],
        ['scrapes', String(watch.scrapes)],
        ...recoveryRows(result),
        [
          'after every kill: back after, median / max',
          `${formatNumber(quantile(times, 0.5))} / ${formatNumber(Math.max(...times))} ms`,
        ],
      ],
    },
    checks: [...chaosChecks(result), recoveryCheck(result)],
    notes: [],
    charts: [],
    setting: { ...options, model },
    raw: result,
  }
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (value > 0 && Number.isFinite(value)) return value
  throw new Error(`expected --${name} to be a positive number, got ${JSON.stringify(text)}`)
}

async function main(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      seconds: { type: 'string', default: '600' },
      every: { type: 'string', default: '2' },
      pause: { type: 'string', default: '150' },
      workers: { type: 'string', default: '4' },
      model: { type: 'string', default: 'mlp-12x2048' },
      seed: { type: 'string', default: '1' },
      faults: { type: 'string', default: FAULTS.join(',') },
      help: { type: 'boolean' },
    },
  })
  if (values.help === true) {
    process.stderr.write(USAGE)
    return 0
  }
  const names = values.faults.split(',')
  const unknown = names.find((name) => !isFault(name))
  if (unknown !== undefined) throw new Error(`expected faults out of ${FAULTS.join(', ')}, got ${unknown}`)
  const options: Options = {
    seconds: positive('seconds', values.seconds),
    everyMs: positive('every', values.every) * 1000,
    pauseMs: Number(values.pause),
    workers: positive('workers', values.workers),
    model: values.model,
    seed: values.seed,
    faults: names.filter(isFault),
  }
  return await runBenches([() => chaosBench(options)])
}

process.exitCode = await main(process.argv.slice(2))
