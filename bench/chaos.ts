/**
 * Kills random processes under load, for minutes. Requests on other workers must succeed, counts
 * must stay exact, and nothing may be left behind.
 */
import { chaosChecks, recoveriesMs, recoveryCheck } from './chaos/checks.js'
import { FAULTS, type Fault, isFault } from './chaos/faults.js'
import { type ChaosResult, runChaos } from './chaos/run.js'
import { defineBench } from './harness/bench.js'
import { countOption, namesOption, positiveOption, textOption, UsageError } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { Stage } from './harness/stage.js'
import { formatNumber, quantile } from './harness/statistics.js'
import { modelOption } from './models/subject.js'
import { benchModel } from './rows/row.js'

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
    const injected = faults.filter((one) => one.fault === fault)
    if (injected.length === 0) return []
    const times = injected.flatMap(({ recoveryMs }) => recoveryMs ?? [])
    const text = [quantile(times, 0.5), Math.max(...times)].map((ms) => `${formatNumber(ms)} ms`)
    return [[`${fault}, ${injected.length} times: recovery, median / max`, text.join(' / ')]]
  })
}

async function chaosBench(options: Options): Promise<BenchReport> {
  const { seconds, everyMs, workers, model: name } = options
  const model = await benchModel(name)
  await using stage = new Stage()
  using progress = createProgress('chaos', Math.ceil((seconds * 1000) / everyMs))
  const result = await runChaos({ ...options, stage, model, onFault: (note) => progress.step(note) })
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
        ['lost with a killed worker', String(tally.lostWithWorker.length)],
        ['lost before reaching a killed worker', String(tally.lostBeforeWorker.length)],
        ['lost otherwise', String(tally.unexplained.length)],
        ['wrong answers', String(tally.wrong.length)],
        ['scrapes', String(watch.scrapes)],
        ...recoveryRows(result),
        [
          'recovery after every kill, median / max',
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

function parseFaults(names: readonly string[]): Fault[] {
  const unknown = names.find((name) => !isFault(name))
  if (unknown !== undefined) throw new UsageError(`expected faults from ${FAULTS.join(', ')}, got ${unknown}`)
  return names.filter(isFault)
}

export const chaos = defineBench({
  name: 'chaos',
  summary: 'A process is killed every few seconds under load: other requests succeed, and counts stay exact.',
  options: {
    seconds: positiveOption({ help: 'Duration', default: '600', quick: '20' }),
    every: positiveOption({
      help: 'Seconds between faults; the next one waits until all workers are ready',
      default: '2',
    }),
    pause: countOption({
      ...{ placeholder: 'MS', minimum: 0, default: '150' },
      help: "Pause between a response and a client's next request; 0 takes all CPUs, including those that booting workers need",
    }),
    workers: countOption({ help: 'Workers', default: '4' }),
    model: modelOption({ help: 'A generated model', default: 'mlp-12x2048' }),
    seed: textOption({ placeholder: 'TEXT', help: 'Seed of the random faults', default: '1' }),
    faults: namesOption({ help: 'Faults to inject', default: FAULTS.join(',') }),
  },
  failsWhen: 'a bar is missed',
  reports: ({ every, pause, faults, ...rest }) => {
    const options: Options = { ...rest, everyMs: every * 1000, pauseMs: pause, faults: parseFaults(faults) }
    return [() => chaosBench(options)]
  },
})
