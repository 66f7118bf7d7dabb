/** ModelInfer and ModelStreamInfer: message -> codec -> submit -> codec -> message. */
import { create } from '@bufbuild/protobuf'
import { computeRequest } from '../http/routes/compute-request.js'
import { areTexts, textSpecOf } from '../http/routes/text/infer-texts.js'
import { placeOutputs, sharedReader } from '../http/shared-tensors.js'
import { requireModel } from '../inference/model-facts.js'
import { answered, counted, heldIn } from '../inference/request-parts.js'
import type { ServedModel } from '../inference/service.js'
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
  const isCancelled = () => call.isCancelled()
  const { outputs, queueNs, placement } = await computeRequest(
    { model, texts, request, isCancelled, frontTimeoutMs: call.timeoutMs() },
    context,
  )
  timings?.computed(queueNs, placement)
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
