/** Counted models, and metrics in the form that prom-client's aggregator accepts. */
import type { StatsPage } from './page.js'

export interface CountedModel {
  readonly labels: { readonly model: string; readonly version: string }
  readonly page: StatsPage
}

export type Labels = Record<string, string | number>

export interface Value {
  readonly value: number
  readonly labels: Labels
  readonly metricName?: string
}

/** prom-client's JSON form of a metric, which its aggregator accepts and which can express histograms. */
export interface Metric {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'histogram'
  readonly aggregator: 'sum'
  readonly values: readonly Value[]
}
