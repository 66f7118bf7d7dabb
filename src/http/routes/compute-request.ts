/** What a decoded infer request calls for, tensors or texts, computed alike for every front end. */

import { schedulingOf } from '../../inference/request-parts.js'
import type { ServedModel } from '../../inference/service.js'
import type { InferRequest } from '../../protocol/v2/request.js'
import { leastAnswered } from '../../protocol/v2/response-size.js'
import type { HttpContext } from '../context.js'
import { inferTexts, type textSpecOf } from './text/infer-texts.js'

export interface DecodedRequest {
  readonly model: ServedModel
  /** The interface for texts; null if the request has tensors. */
  readonly texts: ReturnType<typeof textSpecOf>
  readonly request: InferRequest
  readonly isCancelled: () => boolean
  /** Time limit of the front end, from now to the result; null is no limit. */
  readonly frontTimeoutMs: number | null
}

/**
 * Runs the model. The earlier of the request's own timeout and the front end's applies.
 * @throws OnecopyError as `submit` and `inferTexts`.
 */
export async function computeRequest(
  { model, texts, request, isCancelled, frontTimeoutMs }: DecodedRequest,
  { submit, maxResponseBytes }: Pick<HttpContext, 'submit' | 'maxResponseBytes'>,
) {
  const { priority, timeoutMs: ownTimeoutMs } = schedulingOf(request)
  const timeoutMs = earliest(ownTimeoutMs, frontTimeoutMs)
  if (texts !== null) {
    const isTruncated = request.parameters.truncate === true
    const outputs = await inferTexts(texts, request.inputs, { isTruncated, isCancelled, timeoutMs })
    return { outputs, queueNs: 0, placement: 'thread' as const }
  }
  const { outputs, queueNs, times } = await submit({
    model,
    inputs: request.inputs,
    outputNames: request.outputs.map(({ name }) => name),
    outputLimit: {
      bytes: maxResponseBytes,
      leastElementBytes: leastAnswered(request.outputs, model.outputs),
    },
    priority,
    timeoutMs,
    isCancelled,
  })
  return { outputs, queueNs, placement: times.placement }
}

function earliest(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b)
}
