/** Encodes infer requests and decodes infer responses. */
import type { RequestParameters } from '../protocol/v2/schema.js'
import { DATATYPES, type Datatype } from '../tensor.js'
import { fromBytes, toBytes } from './binary.js'
import { InferenceError } from './error.js'
import { fromJson, parseExactly, toJsonText, travelsInJson } from './json.js'
import { checkElements, type InputTensor, type OutputOf, type OutputTensor } from './tensors.js'

export type Encoding = 'binary' | 'json'

export interface RequestedOutput {
  readonly name: string
  /** Overrides the encoding of the request for this output. */
  readonly encoding?: Encoding
  /** For example `{ classification: 3 }`. */
  readonly parameters?: RequestParameters
}

export interface InferBody {
  readonly inputs: readonly InputTensor[]
  /** All outputs of the model if omitted. */
  readonly outputs?: readonly (string | RequestedOutput)[]
  /** Returned with the response. */
  readonly id?: string
  /** For example `{ priority: 1, timeout: 50_000 }`, with the timeout in microseconds. */
  readonly parameters?: RequestParameters
}

export interface InferResult {
  readonly modelName: string
  readonly modelVersion: string
  readonly id?: string
  readonly parameters?: RequestParameters
  readonly outputs: readonly OutputTensor[]
  /**
   * The output with this name, or the first one; @throws InferenceError if it is missing or has another
   * datatype.
   */
  output(name?: string): OutputTensor
  output<Type extends Datatype>(name: string, datatype: Type): OutputOf<Type>
}

export interface EncodedRequest {
  readonly body: Uint8Array<ArrayBuffer>
  readonly headers: Record<string, string>
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function outputText(output: string | RequestedOutput, encoding: Encoding): string {
  const {
    name,
    parameters,
    encoding: own = encoding,
  } = typeof output === 'string' ? { name: output } : output
  return JSON.stringify({ name, parameters: { ...parameters, binary_data: own === 'binary' } })
}

/** @throws TypeError for elements that do not match their datatype. */
export function encodeInfer(request: InferBody, encoding: Encoding): EncodedRequest {
  const tails: Uint8Array[] = []
  const inputs = request.inputs.map((tensor) => {
    checkElements(tensor)
    const { name, datatype, shape } = tensor
    const head = JSON.stringify({ name, shape, datatype }).slice(0, -1)
    if (encoding === 'json' && travelsInJson(tensor)) return `${head},"data":${toJsonText(tensor)}}`
    const tail = toBytes(tensor)
    tails.push(tail)
    return `${head},"parameters":{"binary_data_size":${tail.length}}}`
  })
  const parameters = { ...request.parameters, binary_data_output: encoding === 'binary' }
  const members = [
    ...(request.id === undefined ? [] : [`"id":${JSON.stringify(request.id)}`]),
    `"parameters":${JSON.stringify(parameters)}`,
    `"inputs":[${inputs.join(',')}]`,
    ...(request.outputs === undefined
      ? []
      : [`"outputs":[${request.outputs.map((output) => outputText(output, encoding)).join(',')}]`]),
  ]
  const json = encoder.encode(`{${members.join(',')}}`)
  if (tails.length === 0) return { body: json, headers: { 'Content-Type': 'application/json' } }
  const body = new Uint8Array(tails.reduce((sum, { length }) => sum + length, json.length))
  body.set(json)
  let at = json.length
  for (const tail of tails) {
    body.set(tail, at)
    at += tail.length
  }
  const headers = {
    'Content-Type': 'application/octet-stream',
    'Inference-Header-Content-Length': String(json.length),
  }
  return { body, headers }
}

interface WireOutput {
  readonly name: string
  readonly datatype: Datatype
  readonly shape: readonly number[]
  readonly data?: readonly unknown[]
  readonly parameters?: { readonly binary_data_size?: number }
}

interface WireResponse {
  readonly model_name: string
  readonly model_version: string
  readonly id?: string
  readonly parameters?: RequestParameters
  readonly outputs: readonly WireOutput[]
}

function resultOf(response: WireResponse, outputs: readonly OutputTensor[]): InferResult {
  const { model_name: modelName, model_version: modelVersion, id, parameters } = response
  const output = (name?: string, datatype?: Datatype): OutputTensor => {
    const found = outputs.find((one) => name === undefined || one.name === name)
    if (found !== undefined && (datatype === undefined || found.datatype === datatype)) return found
    const wanted = [name, datatype].filter((word) => word !== undefined).join(' ')
    const names = outputs.map((one) => `${one.name} ${one.datatype}`).join(', ')
    throw new InferenceError(`expected output ${wanted}, got ${names || 'none'}`, { kind: 'answer' })
  }
  return {
    modelName,
    modelVersion,
    ...(id === undefined ? {} : { id }),
    ...(parameters === undefined ? {} : { parameters }),
    outputs,
    output: output as InferResult['output'],
  }
}

function decode(bytes: Uint8Array<ArrayBuffer>, jsonBytes: number): InferResult {
  const response = parseExactly(decoder.decode(bytes.subarray(0, jsonBytes))) as WireResponse
  let at = jsonBytes
  const outputs = response.outputs.map((output) => {
    if (!Object.hasOwn(DATATYPES, output.datatype))
      throw new RangeError(`output ${output.name}: unknown datatype ${output.datatype}`)
    const size = output.parameters?.binary_data_size
    if (size === undefined) return fromJson(output, output.data ?? [])
    if (at + size > bytes.length)
      throw new RangeError(`output ${output.name}: the response is too short for its data`)
    // The copy is aligned for all element sizes and does not keep the whole body alive.
    const own = bytes.slice(at, at + size)
    at += size
    return fromBytes(output, own)
  })
  return resultOf(response, outputs)
}

/**
 * @param jsonBytes Value of Inference-Header-Content-Length; null if the whole body is JSON.
 * @throws InferenceError of kind `answer` if the response does not follow the protocol.
 */
export function decodeInfer(bytes: Uint8Array<ArrayBuffer>, jsonBytes: string | null): InferResult {
  try {
    return decode(bytes, jsonBytes === null ? bytes.length : Number(jsonBytes))
  } catch (cause) {
    throw new InferenceError(`the response does not follow the protocol: ${cause}`, { kind: 'answer', cause })
  }
}
