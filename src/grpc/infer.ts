/** ModelInfer and ModelStreamInfer: message -> codec -> submit -> codec -> message. */
import { create } from '@bufbuild/protobuf'
import { areTexts, inferTexts, textSpecOf } from '../http/routes/text/infer-texts.js'
import { placeOutputs, sharedReader } from '../http/shared-tensors.js'
import { requireModel } from '../inference/model-facts.js'
import { answered, counted, heldIn, schedulingOf } from '../inference/request-parts.js'
import type { ServedModel } from '../inference/service.js'
import { leastAnswered } from '../protocol/v2/response-size.js'
import { type Call, type GrpcContext, publicFailure } from './call.js'
import { decodeInferMessage, encodeInferMessage } from './infer-codec.js'
import { requireMessage } from './malformed.js'
import {
  type ModelInferRequest,
  type ModelInferResponse,
  ModelInferResponseSchema,
  type ModelStreamInferResponse,
  ModelStreamInferResponseSchema,
} from './schema/inference_pb.js'
import { asOnecopyError } from './status.js'

/** Size of a request: its raw contents, which are by far the largest part. */
function bytesOf({ rawInputContents }: ModelInferRequest): number {
  return rawInputContents.reduce((sum, { length }) => sum + length, 0)
}

/** The earlier of the request's own timeout and the call's deadline. */
function earliest(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b)
}

async function inferOn(
  model: ServedModel,
  message: ModelInferRequest,
  { call, context }: { readonly call: Call; readonly context: GrpcContext },
): Promise<ModelInferResponse> {
  const { maxBodyBytes, maxResponseBytes, regions } = context
  const { timings } = call
  const messageBytes = bytesOf(message)
  call.heldBytes = 2 * messageBytes
  timings?.begin()
  const readShared = regions === null ? undefined : sharedReader(regions, maxBodyBytes - messageBytes)
  const texts = textSpecOf(model, () => areTexts(message.inputs))
  const request = decodeInferMessage(message, { model: texts ?? model, readShared })
  timings?.end('decode')
  if (timings !== undefined) timings.rows = request.inputs[0]?.shape[0] ?? 1
  const { priority, timeoutMs: ownTimeoutMs } = schedulingOf(request)
  const timeoutMs = earliest(ownTimeoutMs, call.timeoutMs())
  const isCancelled = () => call.isCancelled()
  const isTruncated = request.parameters.truncate === true
  const { outputs, queueNs, times } =
    texts !== null
      ? {
          outputs: await inferTexts(texts, request.inputs, { isTruncated, isCancelled, timeoutMs }),
          queueNs: 0,
          times: null,
        }
      : await context.submit({
          model,
          inputs: request.inputs,
          outputNames: request.outputs.map(({ name }) => name),
          outputLimit: {
            bytes: maxResponseBytes,
            leastElementBytes: leastAnswered(request.outputs, model.outputs),
          },
          ...{ isCancelled, priority, timeoutMs },
        })
  timings?.computed(queueNs, times?.placement ?? 'thread')
  call.heldBytes += heldIn(outputs)
  const response = encodeInferMessage({
    model: { name: model.name, version: model.version },
    id: message.id,
    outputs: answered(outputs, request, model),
    places: regions === null ? [] : placeOutputs(regions, outputs, request.outputs),
    maxBytes: maxResponseBytes,
    marksFinal: request.marksFinal,
  })
  timings?.end('encode')
  return response
}

/** Counts the request as REST does. */
export async function modelInfer(
  message: ModelInferRequest,
  { call, context }: { readonly call: Call; readonly context: GrpcContext },
): Promise<ModelInferResponse> {
  return await counted({ recorder: () => call.model?.counts, unknown: context.unknownModel }, async () => {
    const name = message.modelName
    const version = message.modelVersion === '' ? undefined : message.modelVersion
    call.model = context.models.outOfService(name, version) ?? undefined
    const model = requireModel(context.models, { name, version }, { isForInference: true })
    call.model = model
    context.checkCapacity(model, bytesOf(message))
    return await model.use(() => inferOn(model, message, { call, context }))
  })
}

/** Requests of one stream in flight. Further ones wait at the client. */
export const MAX_STREAMED = 64

/** One request of a stream. A failure becomes a response, and the stream continues. */
export async function streamedInfer(
  message: ModelInferRequest,
  options: { readonly call: Call; readonly context: GrpcContext },
): Promise<ModelStreamInferResponse> {
  try {
    const inferResponse = await modelInfer(requireMessage(message), options)
    return create(ModelStreamInferResponseSchema, { inferResponse })
  } catch (thrown) {
    const failure = asOnecopyError(thrown)
    if (failure.fault === 'bug') {
      options.context.log.error({ requestId: options.call.requestId, err: thrown }, failure.message)
      options.context.onBug(thrown)
    }
    // The id names the request that failed.
    const inferResponse = create(ModelInferResponseSchema, { id: message.id ?? '' })
    return create(ModelStreamInferResponseSchema, {
      ...{ errorMessage: publicFailure(failure, options.context).message, inferResponse },
    })
  }
}
