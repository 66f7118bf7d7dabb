/** A worker's metrics as they cross to the primary: prom-client's JSON form. */
import { AggregatorRegistry, type Registry } from 'prom-client'
import { z } from 'zod'

export const MetricsSnapshotSchema = z.array(
  z.looseObject({
    name: z.string(),
    help: z.string(),
    type: z.enum(['counter', 'gauge', 'histogram', 'summary']),
    aggregator: z.enum(['sum', 'first', 'min', 'max', 'average', 'omit']),
    values: z.array(
      z.looseObject({
        // Number of JSON: an infinite bucket bound is a label, never a value.
        value: z.number(),
        labels: z.record(z.string(), z.union([z.string(), z.number()])),
        metricName: z.string().optional(),
      }),
    ),
  }),
)

export type MetricsSnapshot = z.infer<typeof MetricsSnapshotSchema>

export async function snapshotOf(registry: Registry): Promise<MetricsSnapshot> {
  return MetricsSnapshotSchema.parse(await registry.getMetricsAsJSON())
}

/** Merges snapshots as each metric's aggregator says. */
export function mergeSnapshots(snapshots: readonly MetricsSnapshot[]): Registry {
  return AggregatorRegistry.aggregate(
    snapshots as unknown as Parameters<typeof AggregatorRegistry.aggregate>[0],
  )
}

/** What stays true of a worker after its death: what it counted, not what it held. */
export function lastingPart(snapshot: MetricsSnapshot): MetricsSnapshot {
  return snapshot.filter((metric) => metric.type === 'counter' || metric.type === 'histogram')
}
