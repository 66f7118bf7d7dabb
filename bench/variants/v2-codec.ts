/**
 * The Open Inference Protocol as a team would write it for its own models: JSON and binary tensors of the
 * three types in the benches, validated only so far that a session does not throw. All Node variants share
 * it, so that they differ only in where the model runs.
 */
import type { IncomingMessage } from 'node:http'

export interface PlainTensor {
  readonly datatype: string
  readonly shape: readonly number[]
  readonly data: Float32Array | BigInt64Array | Int32Array
}
export type PlainTensors = Record<string, PlainTensor>

const STORAGE = { FP32: Float32Array, INT64: BigInt64Array, INT32: Int32Array } as const
type KnownDatatype = keyof typeof STORAGE

interface InferInput {
  readonly name: string
  readonly shape: number[]
  readonly datatype: KnownDatatype
  readonly data?: number[]
  readonly parameters?: { readonly binary_data_size?: number }
}

interface InferBody {
  readonly id?: string
  readonly inputs: InferInput[]
  readonly outputs?: { readonly name: string; readonly parameters?: { readonly binary_data?: boolean } }[]
}

export interface PlainRequest {
  readonly id: string | undefined
  readonly feeds: PlainTensors
  /** Undefined means all outputs. */
  readonly outputNames: readonly string[] | undefined
  readonly wantsBinary: boolean
}

// Without koa-bodyparser, which rejects bodies over 1 MB by default and does not support binary ones.
export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function fromJson({ datatype, data = [] }: InferInput): PlainTensor['data'] {
  if (datatype === 'INT64') return BigInt64Array.from(data, BigInt)
  return datatype === 'INT32' ? Int32Array.from(data) : Float32Array.from(data)
}

/** `headerLength` is the value of Inference-Header-Content-Length, empty for a JSON body. */
export function decodeRequest(body: Buffer, headerLength: string): PlainRequest {
  const jsonBytes = headerLength === '' ? body.length : Number(headerLength)
  const { id, inputs, outputs } = JSON.parse(body.toString('utf8', 0, jsonBytes)) as InferBody
  const feeds: PlainTensors = {}
  let at = jsonBytes
  for (const input of inputs) {
    const { name, shape, datatype, parameters } = input
    const bytes = parameters?.binary_data_size
    if (bytes === undefined) {
      feeds[name] = { datatype, shape, data: fromJson(input) }
      continue
    }
    // A copy, because a typed array must be aligned to its element size, and the end of the JSON seldom is.
    const data = new STORAGE[datatype](bytes / STORAGE[datatype].BYTES_PER_ELEMENT)
    body.copy(new Uint8Array(data.buffer), 0, at, at + bytes)
    feeds[name] = { datatype, shape, data }
    at += bytes
  }
  return {
    id,
    feeds,
    outputNames: outputs?.map(({ name }) => name),
    wantsBinary: outputs?.every((output) => output.parameters?.binary_data) === true,
  }
}

export interface PlainAnswer {
  readonly modelName: string
  readonly version: string
  readonly request: PlainRequest
  readonly results: PlainTensors
}

export interface EncodedAnswer {
  readonly headers: Record<string, string>
  readonly body: Buffer
}

export function encodeAnswer({ modelName, version, request, results }: PlainAnswer): EncodedAnswer {
  const head = { model_name: modelName, model_version: version, id: request.id }
  if (!request.wantsBinary) {
    const outputs = Object.entries(results).map(([name, { datatype, shape, data }]) => {
      return { name, datatype, shape, data: Array.from<number | bigint, number>(data, Number) }
    })
    const body = Buffer.from(JSON.stringify({ ...head, outputs }))
    return { headers: { 'Content-Type': 'application/json' }, body }
  }
  const raw: Buffer[] = []
  const outputs = Object.entries(results).map(([name, { datatype, shape, data }]) => {
    raw.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength))
    return { name, datatype, shape, parameters: { binary_data_size: data.byteLength } }
  })
  const json = Buffer.from(JSON.stringify({ ...head, outputs }))
  return {
    headers: {
      'Content-Type': 'application/octet-stream',
      'Inference-Header-Content-Length': String(json.length),
    },
    body: Buffer.concat([json, ...raw]),
  }
}
