/**
 * Decodes a ModelInferRequest to checked tensors in the model's order, and encodes tensors to a
 * ModelInferResponse. The code that checks a REST request checks names, datatypes, shapes and
 * outputs here too. Only the location of the elements differs.
 */
import { create } from '@bufbuild/protobuf'
import {
  binarySize,
  checkByteSize,
  decodeBinaryData,
  decodeText,
  encodeBinaryData,
} from '../protocol/v2/binary.js'
import { type ExpectedData, JSON_RULES, newStorage } from '../protocol/v2/datatypes.js'
import { bodyMalformed, quoted, requestInvalid, tensorInvalid } from '../protocol/v2/faults.js'
import {
  checkParameters,
  checkSequence,
  type InputPlan,
  type ModelSpec,
  planInputs,
  planOutputs,
} from '../protocol/v2/plan.js'
import type { InferRequest } from '../protocol/v2/request.js'
import { responseTooLarge } from '../protocol/v2/response-size.js'
import type { RequestParameters, SkeletonInput } from '../protocol/v2/schema.js'
import type { ReadShared, SharedPlace } from '../protocol/v2/shared-place.js'
import type { Datatype, Tensor, TensorData } from '../tensor.js'
import { PREFIX_BYTES } from './message-frames.js'
import {
  type InferParameter,
  InferParameterSchema,
  type InferTensorContents,
  type ModelInferRequest,
  type ModelInferResponse,
  ModelInferResponse_InferOutputTensorSchema,
  ModelInferResponseSchema,
} from './schema/inference_pb.js'

const MAX_TENSORS = 4096
const MAX_RANK = 64
const MAX_PARAMETERS = 256

/** Requests a mark on the last response to a request, which is every response here. */
const EMPTY_FINAL = 'triton_enable_empty_final_response'
const FINAL = 'triton_final_response'

type Parameters = Readonly<Record<string, InferParameter>>

/** The parameters as REST has them. Code that uses one refuses numbers beyond 2^53. */
function plainParameters(parameters: Parameters): RequestParameters {
  const entries = Object.entries(parameters)
  if (entries.length > MAX_PARAMETERS)
    throw requestInvalid(`more than ${MAX_PARAMETERS} parameters in one place`)
  return Object.fromEntries(
    entries.flatMap(([name, { parameterChoice }]) => {
      const { value } = parameterChoice
      if (value === undefined) return []
      return [[name, typeof value === 'bigint' ? Number(value) : value]]
    }),
  )
}

function shapeOf(shape: readonly bigint[], label: string): number[] {
  if (shape.length > MAX_RANK) throw requestInvalid(`more than ${MAX_RANK} dimensions of one tensor`)
  return shape.map((size) => {
    if (size >= 0n && size <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(size)
    throw tensorInvalid(label, `expected dimensions that are non-negative integers, got ${size}`)
  })
}

/** The field of typed contents for each datatype; null for those that need raw contents. */
const FIELDS = {
  BOOL: 'boolContents',
  UINT8: 'uintContents',
  UINT16: 'uintContents',
  UINT32: 'uintContents',
  UINT64: 'uint64Contents',
  INT8: 'intContents',
  INT16: 'intContents',
  INT32: 'intContents',
  INT64: 'int64Contents',
  FP16: null,
  BF16: null,
  FP32: 'fp32Contents',
  FP64: 'fp64Contents',
  BYTES: 'bytesContents',
} as const satisfies Record<Datatype, Exclude<keyof InferTensorContents, '$typeName' | '$unknown'> | null>

function checkRange(value: number, { label, datatype }: ExpectedData, index: number): void {
  const rule = JSON_RULES[datatype]
  if (rule.kind === 'integer' && (value < rule.min || value > rule.max))
    throw tensorInvalid(label, `element ${index}: ${value} is out of range for ${datatype}`)
}

/** Elements of typed contents. Values are copied into the datatype's storage. */
export function decodeContents(
  contents: InferTensorContents | undefined,
  expected: ExpectedData,
): TensorData {
  const { label, datatype, count } = expected
  const field = FIELDS[datatype]
  if (field === null)
    throw tensorInvalid(
      label,
      `expected ${datatype} in raw_input_contents: typed contents have no field for it`,
    )
  const values = contents?.[field] ?? []
  if (values.length !== count)
    throw tensorInvalid(label, `expected ${count} elements in ${field}, got ${values.length}`)
  for (const other of Object.values(FIELDS))
    if (other !== null && other !== field && (contents?.[other].length ?? 0) > 0)
      throw tensorInvalid(label, `expected ${datatype} in ${field} alone, got ${other} too`)
  if (datatype === 'BYTES')
    return (values as Uint8Array<ArrayBuffer>[]).map((bytes, i) => decodeText(bytes, label, i))
  const data = newStorage(datatype as Exclude<Datatype, 'BYTES'>, count)
  for (const [i, value] of values.entries()) {
    if (typeof value === 'number') checkRange(value, expected, i)
    data[i] = (typeof value === 'boolean' ? Number(value) : value) as never
  }
  return data
}

/** The location of each input's elements: its typed contents, or the next raw contents. */
function skeletonsOf({ inputs, rawInputContents }: ModelInferRequest): {
  readonly skeletons: SkeletonInput[]
  readonly raw: Map<string, Uint8Array>
} {
  const isRaw = rawInputContents.length > 0
  const raw = new Map<string, Uint8Array>()
  let next = 0
  const skeletons = inputs.map((input, index): SkeletonInput => {
    const { name, datatype } = input
    const label = `input ${quoted(name)}`
    const shape = shapeOf(input.shape, label)
    // A parameter of REST without a meaning here.
    const { binary_data_size: _size, ...parameters } = plainParameters(input.parameters)
    const common = { name, shape, datatype: datatype as Datatype, data: undefined }
    if (Object.hasOwn(parameters, 'shared_memory_region')) return { ...common, parameters }
    if (!isRaw) return { ...common, parameters, data: index }
    if (input.contents !== undefined)
      throw requestInvalid(`${label}: expected contents or raw_input_contents, got both`)
    const bytes = rawInputContents[next++]
    if (bytes === undefined)
      throw bodyMalformed(
        `${label}: expected raw_input_contents for it, got ${rawInputContents.length} of them`,
      )
    raw.set(name, bytes)
    return { ...common, parameters: { ...parameters, binary_data_size: bytes.length } }
  })
  if (next < rawInputContents.length)
    throw bodyMalformed(`expected raw_input_contents for ${next} inputs, got ${rawInputContents.length}`)
  return { skeletons, raw }
}

export interface GrpcInferRequest extends InferRequest {
  /** Whether the request wants a mark on the last response. */
  readonly marksFinal: boolean
}

/**
 * Decodes a ModelInferRequest. Numeric tensors that are aligned are views of the message.
 * @throws OnecopyError as decodeInferRequest does.
 */
export function decodeInferMessage(
  message: ModelInferRequest,
  { model, readShared }: { readonly model: ModelSpec; readonly readShared?: ReadShared | undefined },
): GrpcInferRequest {
  if (message.inputs.length > MAX_TENSORS || message.outputs.length > MAX_TENSORS)
    throw requestInvalid(`more than ${MAX_TENSORS} tensors in one request`)
  const { [EMPTY_FINAL]: marksFinal, ...parameters } = plainParameters(message.parameters)
  checkParameters(parameters, 'the request')
  checkSequence(parameters)
  const features = { isSharedMemoryEnabled: readShared !== undefined }
  const { skeletons, raw } = skeletonsOf(message)
  const plans = planInputs(skeletons, { model, features })
  const requested = message.outputs.map((output) => {
    const { binary_data: _binary, ...rest } = plainParameters(output.parameters)
    return { name: output.name, parameters: rest }
  })
  const outputs = planOutputs(requested, { binary_data_output: true }, { model, features })
  const inputs: Tensor[] = []
  for (const plan of plans) {
    const { name, datatype, shape, position } = plan
    const data = dataOf(plan, { message, raw, readShared })
    inputs[position] = { name, datatype, shape, data }
  }
  return {
    ...(message.id === '' ? {} : { id: message.id }),
    ...{ parameters, outputs, marksFinal: marksFinal === true },
    // Optional inputs that are absent leave holes.
    inputs: inputs.filter((tensor) => tensor !== undefined),
  }
}

function dataOf(
  plan: InputPlan,
  {
    message,
    raw,
    readShared,
  }: {
    readonly message: ModelInferRequest
    readonly raw: ReadonlyMap<string, Uint8Array>
    readonly readShared: ReadShared | undefined
  },
): TensorData {
  const { source, name, label, datatype, shape, count } = plan
  const expected = { label, datatype, shape, count }
  if ('valueIndex' in source) return decodeContents(message.inputs[source.valueIndex]?.contents, expected)
  if ('place' in source) {
    checkByteSize(source.place.bytes, expected)
    if (readShared === undefined) throw new Error('expected a reader of shared memory')
    return decodeBinaryData(readShared(source.place), expected)
  }
  const bytes = raw.get(name) as Uint8Array<ArrayBuffer>
  return decodeBinaryData(datatype === 'BYTES' ? bytes : ownBytes(bytes), expected)
}

/**
 * Buffers that hold one message and nothing else, and may be transferred to the inference thread.
 */
const owned = new WeakSet<ArrayBuffer>()

/**
 * Records whether a message owns its buffer. A large message does, possibly together with the head
 * of its frame. Small messages share a pool.
 */
export function noteOwner(wire: Uint8Array): void {
  const { buffer, byteOffset, byteLength } = wire
  const isAlone = byteOffset === 0 || byteOffset === PREFIX_BYTES
  if (isAlone && buffer.byteLength === byteOffset + byteLength) owned.add(buffer as ArrayBuffer)
}

function ownBytes(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return owned.has(bytes.buffer) ? bytes : new Uint8Array(bytes)
}

const EMPTY = new Uint8Array()

/**
 * The response, with raw contents for every output. Those of an output in shared memory are empty,
 * as Triton has it.
 * @throws OnecopyError RESPONSE_TOO_LARGE.
 */
export function encodeInferMessage(options: {
  readonly model: { readonly name: string; readonly version: string }
  readonly id: string
  readonly outputs: readonly Tensor[]
  readonly places: readonly (SharedPlace | null)[]
  readonly maxBytes: number
  readonly marksFinal: boolean
}): ModelInferResponse {
  const { model, id, outputs, places, maxBytes, marksFinal } = options
  const bytes = outputs.reduce((sum, output, i) => sum + (places[i] == null ? binarySize(output) : 0), 0)
  if (bytes > maxBytes) throw responseTooLarge({ maxBytes, bytes, isExact: false, outputs })
  const final = create(InferParameterSchema, { parameterChoice: { case: 'boolParam', value: true } })
  return create(ModelInferResponseSchema, {
    ...{ modelName: model.name, modelVersion: model.version, id },
    parameters: marksFinal ? { [FINAL]: final } : {},
    outputs: outputs.map(({ name, datatype, shape }) =>
      create(ModelInferResponse_InferOutputTensorSchema, { name, datatype, shape: shape.map(BigInt) }),
    ),
    rawOutputContents: outputs.map((output, i) => (places[i] == null ? encodeBinaryData(output) : EMPTY)),
  })
}
