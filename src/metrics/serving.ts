/**
 * What a serving process counts. Each metric says how it adds up over workers: counters and histograms
 * by their sum, the gauges as their `aggregator` says. Names follow
 * https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** How a request ended. */
export type Outcome = 'success' | 'client_error' | 'rejected' | 'timeout' | 'server_error' | 'cancelled'

/** From a fraction of a millisecond (a small model) to half a minute (a large batch), in seconds. */
const DURATION_BUCKETS_SECONDS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
]
const LOOP_SAMPLE_MS = 10
const BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]

const MODEL_LABELS = ['model', 'version'] as const

export interface ServingMetrics {
  readonly registry: Registry
  readonly requests: Counter<'model' | 'version' | 'outcome'>
  readonly requestDuration: Histogram<'model' | 'version'>
  readonly queueDuration: Histogram<'model' | 'version'>
  readonly computeDuration: Histogram<'model' | 'version'>
  readonly batchSize: Histogram<'model' | 'version'>
}

/** Creates the metrics in a registry of their own; `queueDepth` is read at each scrape. */
export function createServingMetrics(queueDepth: () => number): ServingMetrics {
  const registry = new Registry()
  const registers = [registry]
  new Gauge({
    name: 'onecopy_queue_depth',
    help: 'Requests that wait in the queues of all workers.',
    registers,
    aggregator: 'sum',
    collect() {
      this.set(queueDepth())
    },
  })
  const loopDelay = monitorEventLoopDelay({ resolution: LOOP_SAMPLE_MS })
  loopDelay.enable()
  new Gauge({
    name: 'onecopy_event_loop_lag_seconds',
    help: 'How late the HTTP event loop was since the last scrape, 99th percentile, of the worst worker.',
    registers,
    aggregator: 'max',
    collect() {
      // A sample is the time between two ticks of a timer: what is beyond its interval is lag.
      const lagMs = loopDelay.percentile(99) / 1e6 - LOOP_SAMPLE_MS
      this.set(Number.isFinite(lagMs) ? Math.max(0, lagMs) / 1000 : 0)
      loopDelay.reset()
    },
  })
  const duration = (name: string, help: string) =>
    new Histogram({ name, help, labelNames: MODEL_LABELS, buckets: DURATION_BUCKETS_SECONDS, registers })
  return {
    registry,
    requests: new Counter({
      name: 'onecopy_requests_total',
      help: 'Inference requests by model, version and outcome.',
      labelNames: [...MODEL_LABELS, 'outcome'],
      registers,
    }),
    requestDuration: duration(
      'onecopy_request_duration_seconds',
      'Time from the first byte of a request handled to the last byte of its answer written.',
    ),
    queueDuration: duration(
      'onecopy_queue_duration_seconds',
      'Time a request waited for the inference thread.',
    ),
    computeDuration: duration('onecopy_compute_duration_seconds', 'Time inside the runtime, per execution.'),
    batchSize: new Histogram({
      name: 'onecopy_batch_size',
      help: 'Rows that were computed together in one execution.',
      labelNames: MODEL_LABELS,
      buckets: BATCH_BUCKETS,
      registers,
    }),
  }
}
