/** The infer request: bytes in, checked tensors in the model's order out. */
import type { Tensor, TensorData } from '../../tensor.js'
import { checkByteSize, decodeBinaryData } from './binary.js'
import { bodyMalformed, quoted } from './faults.js'
import {
  BODY,
  isNull,
  type JsonLimits,
  type JsonValueBytes,
  parse,
  parseSkeleton,
  takeDataOutInSteps,
  textOf,
} from './json.js'
import { decodeJsonDataInSteps } from './json-decode-steps.js'
import {
  checkParameters,
  checkSequence,
  type InputPlan,
  type ModelSpec,
  type OutputRequest,
  planInputs,
  planOutputs,
} from './plan.js'
import { PlanCache, type PlanConditions, plansOf, type RequestPlan } from './plan-cache.js'
import { decodeRawInput } from './raw.js'
import type { RequestParameters, SkeletonInput } from './schema.js'
import type { ReadShared } from './shared-place.js'
import { checkSkeleton } from './skeleton.js'
import { inSlices, withoutPause } from './slices.js'

export type { JsonLimits } from './json.js'
export type { ModelSpec, OutputRequest } from './plan.js'

export interface InferRequest {
  /** Only when the request had one. */
  readonly id?: string
  /** The request's own parameters, as they came. */
  readonly parameters: RequestParameters
  /**
   * In the order of the model's inputs, without optional ones that were not sent; shapes and
   * datatypes fit the model.
   */
  readonly inputs: readonly Tensor[]
  /** What to answer, in this order. */
  readonly outputs: readonly OutputRequest[]
}

export interface InferRequestBody {
  /**
   * The decompressed body. Tensors in the result may be views of it: leave it unchanged while they
   * live.
   */
  readonly body: Uint8Array<ArrayBuffer>
  /**
   * Value of Inference-Header-Content-Length, in bytes; null when the header is absent; 0 is raw
   * mode.
   */
  readonly jsonBytes: number | null
  readonly model: ModelSpec
  readonly limits: JsonLimits
  /** Reads inputs from clients' shared memory; without it, requests that name some are refused. */
  readonly readShared?: ReadShared | undefined
}

/**
 * Decodes the body of `POST /v2/models/M/infer`.
 *
 * @throws OnecopyError BODY_MALFORMED (not JSON, lengths that do not add up), REQUEST_INVALID
 *   (wrong types, unknown outputs, features that are not enabled), TENSOR_INVALID (an input that
 *   does not fit the model or its own shape; the message names it). Nothing else, whatever the
 *   bytes; but what `readShared` throws.
 * @see Open Inference Protocol V2, "Inference Request"; Triton's binary tensor data extension.
 */
export function decodeInferRequest(request: InferRequestBody): InferRequest {
  return decodeKnownHeader(request) ?? withoutPause(decodeInSteps(request))
}

/** From this much JSON on, a request is decoded in slices. Less takes less than a millisecond. */
const SLICED_FROM_BYTES = 128 * 1024

/** Whether decoding takes so long that other requests would notice. */
export function isLongToDecode({ body, jsonBytes }: Pick<InferRequestBody, 'body' | 'jsonBytes'>): boolean {
  return (jsonBytes ?? body.length) > SLICED_FROM_BYTES
}

/**
 * The same, in slices of a few milliseconds: between two of them the event loop serves other
 * requests.
 * @throws OnecopyError as decodeInferRequest.
 */
export async function decodeInferRequestInSlices(request: InferRequestBody): Promise<InferRequest> {
  return await inSlices(decodeInSteps(request))
}

function* decodeInSteps(request: InferRequestBody): Generator<void, InferRequest> {
  const { body, jsonBytes, model, limits, readShared } = request
  if (jsonBytes === 0) {
    const outputs = model.outputs.map(({ name }) => ({ name, binary: true }))
    return { parameters: {}, inputs: [decodeRawInput(body, model)], outputs }
  }
  const jsonEnd = jsonBytes ?? body.length
  if (jsonEnd > body.length) {
    throw bodyMalformed(
      `Inference-Header-Content-Length is ${jsonEnd}, but the body has ${body.length} bytes`,
    )
  }
  const json = body.subarray(0, jsonEnd)
  const { text, values } = yield* takeDataOutInSteps(json, limits)
  const conditions = conditionsOf(request)
  const { byHeader, bySkeleton } = plansOf(model)
  const known = values.length === 0 ? null : bySkeleton.find(text, conditions)
  const plan = known ?? planRequest(text, values, { model, conditions })
  if (values.length === 0) {
    if (PlanCache.takes(jsonEnd)) byHeader.keep(latin1Of(json), plan, conditions)
  } else if (known === null && areAllUsed(values, plan)) bySkeleton.keep(text, plan, conditions)
  return yield* decodeByPlan(plan, { body, jsonEnd, values, readShared })
}

/**
 * Decodes a request without tensor data in its JSON if the same JSON came before; null otherwise.
 */
function decodeKnownHeader(request: InferRequestBody): InferRequest | null {
  const { body, jsonBytes: jsonEnd, model, readShared } = request
  if (jsonEnd === null || jsonEnd === 0 || jsonEnd > body.length || !PlanCache.takes(jsonEnd)) return null
  const plan = plansOf(model).byHeader.find(latin1Of(body.subarray(0, jsonEnd)), conditionsOf(request))
  return plan === null ? null : withoutPause(decodeByPlan(plan, { body, jsonEnd, values: [], readShared }))
}

function conditionsOf({ limits, readShared }: InferRequestBody): PlanConditions {
  return { limits, isSharedMemoryEnabled: readShared !== undefined }
}

/** One character for each byte: different bytes are different texts. */
function latin1Of(bytes: Uint8Array<ArrayBuffer>): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}

/** Parses the JSON without its tensor data, and checks it against the model. */
function planRequest(
  text: string,
  values: readonly JsonValueBytes[],
  { model, conditions }: { readonly model: ModelSpec; readonly conditions: PlanConditions },
): RequestPlan {
  const skeleton = checkSkeleton(parseSkeleton(text), conditions.limits)
  const parameters = skeleton.parameters ?? {}
  checkParameters(parameters, 'the request')
  checkSequence(parameters)
  const inputs = planInputs(withoutNullData(skeleton.inputs, values), { model, features: conditions })
  const outputs = planOutputs(skeleton.outputs, parameters, { model, features: conditions })
  checkDiscarded(values, inputs)
  const binaryBytes = inputs.reduce((sum, input) => sum + binaryBytesOf(input), 0)
  const { id } = skeleton
  return { ...(id === undefined ? {} : { id }), parameters, inputs, outputs, binaryBytes }
}

/** If not, the plan depends on the values: on which of them are null. */
function areAllUsed(values: readonly JsonValueBytes[], { inputs }: RequestPlan): boolean {
  return inputs.filter(({ source }) => 'valueIndex' in source).length === values.length
}

/**
 * Reads the Inference-Header-Content-Length header: bytes of JSON at the start of the body, or null
 * when the header is absent. Anything but digits is BODY_MALFORMED.
 */
export function parseHeaderLength(text: string | undefined): number | null {
  if (text === undefined) return null
  const length = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(length)) return length
  throw bodyMalformed(`Inference-Header-Content-Length must be a number of bytes, got ${quoted(text)}`)
}

function binaryBytesOf({ source }: InputPlan): number {
  return 'binaryBytes' in source ? source.binaryBytes : 0
}

function checkBinaryBytes(
  { inputs, binaryBytes }: RequestPlan,
  { body, jsonEnd }: { readonly body: Uint8Array; readonly jsonEnd: number },
): void {
  if (binaryBytes === body.length - jsonEnd) return
  const found = `${body.length - jsonEnd} bytes follow the JSON`
  const declared = `the inputs declare ${binaryBytes} bytes of binary data`
  const missing = inputs.find((input) => binaryBytesOf(input) > 0)
  const about = missing === undefined ? '' : `${missing.label}: `
  throw bodyMalformed(`${about}${declared}, but ${found} (Inference-Header-Content-Length)`)
}

/** Where the data of a request is. */
interface DataPlaces {
  readonly body: Uint8Array<ArrayBuffer>
  readonly jsonEnd: number
  /** The data values in its JSON. */
  readonly values: readonly JsonValueBytes[]
  readonly readShared: ReadShared | undefined
}

function* decodeByPlan(plan: RequestPlan, places: DataPlaces): Generator<void, InferRequest> {
  const { body, jsonEnd, values, readShared } = places
  checkBinaryBytes(plan, { body, jsonEnd })
  const placed: Tensor[] = []
  let at = jsonEnd
  for (const input of plan.inputs) {
    const { source, position, name, datatype, shape } = input
    let data: TensorData
    if ('valueIndex' in source) {
      data = yield* decodeJsonDataInSteps(values[source.valueIndex] as JsonValueBytes, input)
    } else if ('place' in source) {
      // Before anything is read, because the sizes that a client gives are not yet trusted.
      checkByteSize(source.place.bytes, input)
      if (readShared === undefined) throw new Error('expected a reader of shared memory')
      data = decodeBinaryData(readShared(source.place), input)
    } else {
      data = decodeBinaryData(body.subarray(at, at + source.binaryBytes), input)
      at += source.binaryBytes
    }
    placed[position] = { name, datatype, shape, data }
  }
  // Optional ones that were not sent leave their places empty.
  const inputs = placed.filter((tensor) => tensor !== undefined)
  const { id, parameters, outputs } = plan
  return id === undefined ? { parameters, inputs, outputs } : { id, parameters, inputs, outputs }
}

/** `"data": null` beside another source of data is the same as no `data`; alone it is refused. */
function withoutNullData(
  inputs: readonly SkeletonInput[],
  values: readonly JsonValueBytes[],
): readonly SkeletonInput[] {
  return inputs.map((input) => {
    const { data, parameters = {} } = input
    const isElsewhere = 'binary_data_size' in parameters || 'shared_memory_region' in parameters
    if (data === undefined || !isElsewhere || !isNull(values[data] as JsonValueBytes)) return input
    return { ...input, data: undefined }
  })
}

/**
 * Duplicate keys: the last one counts, as in JSON.parse, but the others must be JSON all the same.
 */
function checkDiscarded(values: readonly JsonValueBytes[], plans: readonly InputPlan[]): void {
  const used = new Set(plans.map(({ source }) => ('valueIndex' in source ? source.valueIndex : -1)))
  values.forEach((value, index) => {
    if (!used.has(index)) parse(textOf(value, BODY), BODY)
  })
}
