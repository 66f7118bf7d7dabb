/**
 * The same metrics under the names of Triton, so that its dashboards work. Source:
 * https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md.
 * Times of copying inputs and outputs and the queue length by model are not measured and have no series.
 */
import type { CountedModel, Metric, Value } from './metric.js'
import { type HistogramName, OUTCOMES, type Outcome, REQUESTS } from './series.js'
import { countAndSum } from './statistics.js'

const FAILURE_REASONS: Record<Exclude<Outcome, 'success'>, string> = {
  rejected: 'REJECTED',
  cancelled: 'CANCELED',
  server_error: 'BACKEND',
  client_error: 'OTHER',
  timeout: 'OTHER',
}

function requests({ page }: CountedModel, outcome: Outcome): number {
  return page.total(REQUESTS.at + OUTCOMES.indexOf(outcome))
}

function microseconds(model: CountedModel, name: HistogramName): number {
  return Math.round(countAndSum(model.page, name).sum * 1e6)
}

const COUNTERS: readonly { name: string; help: string; of: (model: CountedModel) => number }[] = [
  {
    name: 'nv_inference_request_success',
    help: 'Inference requests that succeeded.',
    of: (model) => requests(model, 'success'),
  },
  {
    name: 'nv_inference_count',
    help: 'Rows computed: a batch of n counts as n inferences.',
    of: ({ page }) => countAndSum(page, 'batchSize').sum,
  },
  {
    name: 'nv_inference_exec_count',
    help: 'Executions: a batch counts once.',
    of: ({ page }) => countAndSum(page, 'batchSize').count,
  },
  {
    name: 'nv_inference_request_duration_us',
    help: 'Time that requests took, summed, in microseconds.',
    of: (model) => microseconds(model, 'requestDuration'),
  },
  {
    name: 'nv_inference_queue_duration_us',
    help: 'Time that requests waited, summed, in microseconds.',
    of: (model) => microseconds(model, 'queueDuration'),
  },
  {
    name: 'nv_inference_compute_infer_duration_us',
    help: 'Time inside the runtime, summed over executions, in microseconds.',
    of: (model) => microseconds(model, 'computeInThread') + microseconds(model, 'computeOnLoop'),
  },
]

function failures(models: readonly CountedModel[]): Metric {
  const values = models.flatMap((model): Value[] => {
    const byReason = new Map<string, number>()
    for (const [outcome, reason] of Object.entries(FAILURE_REASONS))
      byReason.set(reason, (byReason.get(reason) ?? 0) + requests(model, outcome as Outcome))
    return [...byReason].map(([reason, value]) => ({ labels: { ...model.labels, reason }, value }))
  })
  const help = 'Inference requests that failed, by reason.'
  return { name: 'nv_inference_request_failure', help, type: 'counter', aggregator: 'sum', values }
}

/** Every model has all series from its start, as in Triton. */
export function tritonMetrics(models: readonly CountedModel[]): Metric[] {
  const served = models.filter(({ labels }) => labels.version !== '')
  const counters = COUNTERS.map(
    ({ name, help, of }): Metric => ({
      ...{ name, help, type: 'counter', aggregator: 'sum' },
      values: served.map((model) => ({ labels: model.labels, value: of(model) })),
    }),
  )
  return [...counters, failures(served)]
}
