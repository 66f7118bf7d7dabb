/** Turns the samples of a comparison into a table, ratios and a chart. */
import type { Check, Table } from './report.js'
import type { MeasuredArm, Sample } from './rounds.js'
import { formatNumber, formatSpread, ratios, spread } from './statistics.js'
import { type BarChart, spreadChart } from './svg.js'

export type Metric = 'requestsPerSecond' | 'p50Ms' | 'p99Ms'

export function valuesOf({ samples }: MeasuredArm, metric: Metric): number[] {
  return samples.map((sample) => sample[metric])
}

export function comparisonTable(arms: readonly MeasuredArm[]): Table {
  return {
    head: ['variant', 'req/s, median (min-max)', 'p50 ms', 'p99 ms', 'failures'],
    rows: arms.map((arm) => [
      arm.name,
      formatSpread(spread(valuesOf(arm, 'requestsPerSecond'))),
      formatSpread(spread(valuesOf(arm, 'p50Ms'))),
      formatSpread(spread(valuesOf(arm, 'p99Ms'))),
      String(failuresOf(arm.samples)),
    ]),
  }
}

export function failuresOf(samples: readonly Sample[]): number {
  return samples.reduce((sum, { failures }) => sum + failures, 0)
}

export function comparisonChart(title: string, arms: readonly MeasuredArm[], metric: Metric): BarChart {
  const unit = metric === 'requestsPerSecond' ? 'requests per second' : 'milliseconds'
  return spreadChart(
    { title, unit },
    arms.map((arm) => [arm.name, valuesOf(arm, metric)]),
  )
}

export interface RatioBar {
  readonly over: MeasuredArm
  readonly under: MeasuredArm
  readonly metric: Metric
  readonly bar: number
  readonly isMetWhen: 'at least' | 'at most' | 'below'
}

/** Compares the median of the ratios of all rounds with the bar. */
export function ratioCheck({ over, under, metric, bar, isMetWhen }: RatioBar): Check {
  const ratio = ratios(valuesOf(over, metric), valuesOf(under, metric))
  const { median } = ratio
  const isMet =
    isMetWhen === 'at least' ? median >= bar : isMetWhen === 'at most' ? median <= bar : median < bar
  const unit = metric === 'requestsPerSecond' ? 'req/s' : metric === 'p50Ms' ? 'p50' : 'p99'
  return {
    claim: `${unit}, ${over.name} / ${under.name}`,
    got: `${formatSpread(ratio)}x`,
    bar: `${isMetWhen} ${formatNumber(bar)}x`,
    isMet,
  }
}

/** A variant with failed requests has not done the work, so its numbers are invalid. */
export function noFailures(arms: readonly MeasuredArm[]): Check {
  const failed = arms.filter(({ samples }) => failuresOf(samples) > 0)
  return {
    claim: 'every response has status 200',
    got:
      failed.length === 0
        ? 'yes'
        : failed.map(({ name, samples }) => `${name} ${failuresOf(samples)} failures`).join(', '),
    bar: 'no failure',
    isMet: failed.length === 0,
  }
}
