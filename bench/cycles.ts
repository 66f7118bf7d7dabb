/**
 * Kills and restarts servers. Many cycles of a small model must leave nothing behind. A few cycles
 * of a large model show the time that adopting a segment saves.
 */
import { cyclesChecks, runCycles } from './cycles/cycles.js'
import { measureStarts } from './cycles/start-times.js'
import { defineBench } from './harness/bench.js'
import { countOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatSpread, ratios, spread } from './harness/statistics.js'
import { modelOption } from './models/subject.js'
import { benchModel } from './rows/row.js'

const SMALL_MODEL = 'mlp-6x512'
const BAR_TIMES_FASTER = 3
const STARTS_PER_ROUND = 3

interface Options {
  readonly cycles: number
  readonly rounds: number
  readonly workers: number
  readonly model: string
}

async function cyclesBench({ cycles, workers }: Options): Promise<BenchReport> {
  const model = await benchModel(SMALL_MODEL)
  await using stage = new Stage()
  using progress = createProgress('cycles', cycles + 1)
  const result = await runCycles({
    ...{ stage, model, workers, cycles },
    onCycle: (note) => progress.step(note),
  })
  return {
    name: 'cycles',
    title: `${SMALL_MODEL}, ${cycles} cycles of start, requests and SIGKILL, ${workers} workers`,
    table: {
      head: ['what', 'got'],
      rows: [
        ['starts', String(result.readyMs.length)],
        ['starts that adopted a segment', String(result.adopted)],
        ['time to ready, ms', formatSpread(spread(result.readyMs))],
      ],
    },
    checks: cyclesChecks(result),
    notes: [],
    charts: [],
    setting: { cycles, workers, model },
    raw: result,
  }
}

async function startsBench({ rounds, workers, model: name }: Options): Promise<BenchReport> {
  const model = await benchModel(name)
  await using stage = new Stage()
  using progress = createProgress('starts', rounds * STARTS_PER_ROUND)
  const times = await measureStarts({
    ...{ stage, model, workers, rounds },
    onStart: (note) => progress.step(note),
  })
  const cold = times.map(({ coldMs }) => coldMs)
  const cached = times.map(({ cachedMs }) => cachedMs)
  const adopting = times.map(({ adoptingMs }) => adoptingMs)
  const faster = ratios(cold, adopting)
  const adopted = times.filter(({ isAdopted }) => isAdopted).length
  return {
    name: 'starts',
    title: `${name} (${formatMb(model.bytes)} MB), ${workers} workers, time to ready in ${rounds} rounds`,
    table: {
      head: ['start', 'time to ready, ms', 'speedup over a cold start'],
      rows: [
        ['cold', formatSpread(spread(cold)), '1x'],
        ['compile cache', formatSpread(spread(cached)), `${formatSpread(ratios(cold, cached))}x`],
        ['segment of a killed server', formatSpread(spread(adopting)), `${formatSpread(faster)}x`],
      ],
    },
    checks: [
      {
        claim: 'a start that adopts a segment, compared with a cold start',
        bar: `at least ${BAR_TIMES_FASTER} times faster`,
        got: `${formatSpread(faster)} times`,
        isMet: faster.median >= BAR_TIMES_FASTER,
      },
      {
        claim: 'starts after SIGKILL that adopted',
        bar: String(rounds),
        got: String(adopted),
        isMet: adopted === rounds,
      },
    ],
    notes: [],
    charts: [],
    setting: { rounds, workers, model },
    raw: times,
  }
}

export const cycles = defineBench({
  name: 'cycles',
  summary:
    'Servers started, used and killed: nothing is left behind, and the next start adopts the segments.',
  options: {
    cycles: countOption({
      help: 'Cycles of the small model that end with SIGKILL',
      default: '200',
      quick: '5',
    }),
    rounds: countOption({
      ...{
        help: 'Cold start, start from the cache and start after SIGKILL of the large model',
        default: '4',
      },
      quick: '1',
    }),
    workers: countOption({ help: 'Workers', default: '2' }),
    model: modelOption({ help: 'The large model', default: 'mlp-12x2048' }),
  },
  failsWhen: 'a bar is missed',
  reports: (options) => [() => cyclesBench(options), () => startsBench(options)],
})
