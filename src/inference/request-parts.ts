/**
 * The parts of a request that all front ends share, besides tensors: deadline, priority, outcome and outputs.
 */
import { OnecopyError } from '../errors.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import type { Outcome } from '../metrics/series.js'
import { classify } from '../protocol/v2/classification.js'
import type { InferRequest } from '../protocol/v2/request.js'
import type { Tensor } from '../tensor.js'
import type { ServedModel } from './service.js'

/** A longer timer fires immediately, so a deadline of 24 days or more counts as none. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

function outcomeOf(thrown: unknown): Outcome {
  if (!(thrown instanceof OnecopyError)) return 'server_error'
  if (thrown.code === 'REQUEST_CANCELLED') return 'cancelled'
  if (thrown.code === 'DEADLINE_EXCEEDED') return 'timeout'
  if (thrown.status === 503) return 'rejected'
  return thrown.fault === 'client' ? 'client_error' : 'server_error'
}

/**
 * Counts a request and its outcome, even if `work` throws. The model becomes known during the work, so
 * `recorder` is called at the end. A request without a known model is counted by `unknown`.
 */
export async function counted<T>(
  { recorder, unknown }: { recorder: () => ModelRecorder | undefined; unknown: ModelRecorder },
  work: () => Promise<T>,
): Promise<T> {
  const startedMs = performance.now()
  let outcome: Outcome = 'success'
  try {
    return await work()
  } catch (thrown) {
    outcome = outcomeOf(thrown)
    throw thrown
  } finally {
    const counts = recorder()
    const durationMs = performance.now() - startedMs
    ;(counts ?? unknown).countRequest(outcome, durationMs)
    counts?.observe('requestDuration', durationMs / 1000)
  }
}

/** A non-negative integer in the request's parameters; `fallback` if absent. */
function countOf(parameters: InferRequest['parameters'], name: string, fallback: number): number {
  const value = parameters[name] ?? fallback
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new OnecopyError(
    'REQUEST_INVALID',
    `parameter ${name}: expected a non-negative integer, got ${JSON.stringify(value)}`,
  )
}

/**
 * Triton's schedule policy: `priority` (1 is the highest, 0 the default) and `timeout` in microseconds (0 is
 * none).
 */
export function schedulingOf({ parameters }: InferRequest): { priority: number; timeoutMs: number | null } {
  const timeoutMs = countOf(parameters, 'timeout', 0) / 1000
  return {
    priority: countOf(parameters, 'priority', 0),
    timeoutMs: timeoutMs === 0 || timeoutMs > LONGEST_TIMER_MS ? null : timeoutMs,
  }
}

/** Memory of outputs outside the heap. */
export function heldIn(outputs: readonly Tensor[]): number {
  return outputs.reduce((sum, { data }) => sum + (ArrayBuffer.isView(data) ? data.byteLength : 0), 0)
}

/** The outputs as requested: complete, or the highest values with their labels. */
export function answered(
  outputs: readonly Tensor[],
  { outputs: asked }: InferRequest,
  model: ServedModel,
): Tensor[] {
  const isBatched = model.configuration.max_batch_size > 0
  return outputs.map((output, i) => {
    const classes = asked[i]?.classes
    if (classes === undefined) return output
    return classify(output, { classes, isBatched, labels: model.labels[output.name] ?? [] })
  })
}
