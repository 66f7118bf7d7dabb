/** The reading side of stats pages: sums over all slots, in the text format of Prometheus. */
import { AggregatorRegistry } from 'prom-client'
import type { CountedModel, Metric, Value } from './metric.js'
import { HISTOGRAMS, type HistogramSeries, OUTCOMES, REQUESTS } from './series.js'
import { tritonMetrics } from './triton.js'

function requestsOf(models: readonly CountedModel[]): Metric {
  const values = models.flatMap(({ labels, page }) =>
    OUTCOMES.map((outcome, i) => ({ labels: { ...labels, outcome }, value: page.total(REQUESTS.at + i) })),
  )
  return {
    name: REQUESTS.name,
    help: REQUESTS.help,
    type: 'counter',
    aggregator: 'sum',
    values: seen(values),
  }
}

/** A series begins with its first event. */
function seen(values: readonly Value[]): Value[] {
  return values.filter(({ value }) => value > 0)
}

function histogramValues(
  { name, bounds, at, labels: own }: HistogramSeries,
  models: readonly CountedModel[],
): Value[] {
  return models.flatMap(({ labels: ofModel, page }) => {
    const labels = { ...ofModel, ...own }
    const buckets: Value[] = []
    let count = 0
    for (let bucket = 0; bucket <= bounds.length; bucket++) {
      // Summed here, so that a bucket never exceeds the count during concurrent writes.
      count += page.total(at + bucket)
      const le = bounds[bucket] ?? '+Inf'
      buckets.push({ metricName: `${name}_bucket`, labels: { le, ...labels }, value: count })
    }
    if (count === 0) return []
    const sum = page.total(at + bounds.length + 1)
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: sum },
      { metricName: `${name}_count`, labels, value: count },
    ]
  })
}

/** Series with the same name and different labels form one metric. */
function histogramsOf(models: readonly CountedModel[]): Metric[] {
  const byName = new Map<string, Metric>()
  for (const series of Object.values(HISTOGRAMS) as HistogramSeries[]) {
    const { name, help } = series
    const values = [...(byName.get(name)?.values ?? []), ...histogramValues(series, models)]
    byName.set(name, { name, help, type: 'histogram', aggregator: 'sum', values })
  }
  return [...byName.values()]
}

/** The same numbers under the names of another server, in addition to the native ones. */
export type Aliases = 'none' | 'triton'

/** Counters and histograms of all models, in Prometheus' text format. */
export async function exposeModels(
  models: readonly CountedModel[],
  aliases: Aliases = 'none',
): Promise<string> {
  const metrics = [
    requestsOf(models),
    ...histogramsOf(models),
    ...(aliases === 'triton' ? tritonMetrics(models) : []),
  ].filter(({ values }) => values.length > 0)
  const registry = AggregatorRegistry.aggregate([
    metrics as unknown as Parameters<typeof AggregatorRegistry.aggregate>[0][number],
  ])
  return await registry.metrics()
}
