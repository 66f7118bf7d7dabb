/** The requests of a bench: prebuilt, from a seed, the same bytes for every variant. */
import { createRandom } from '../models/random.js'
import { type Recipe, recipeName, recipeSeed, rowShape } from '../models/recipes.js'

const FLOAT_BYTES = 4

export type Encoding = 'json' | 'binary'

export interface InputTensor {
  readonly shape: readonly number[]
  readonly data: Float32Array<ArrayBuffer>
}

export interface InferRequest {
  readonly method: 'POST' | 'GET'
  readonly path: string
  readonly headers: Record<string, string>
  readonly body: Buffer
}

/** `count` inputs of `rows` rows each, uniform in [-1, 1). */
export function inputTensors(recipe: Recipe, count: number, rows: number): InputTensor[] {
  const shape = [rows, ...rowShape(recipe)]
  const elements = shape.reduce((product, dim) => product * dim, 1)
  return Array.from({ length: count }, (_, index) => {
    const random = createRandom(`${recipeSeed(recipe)}/input/${rows}/${index}`)
    return { shape, data: Float32Array.from({ length: elements }, () => random() * 2 - 1) }
  })
}

export function encodeRequest(
  recipe: Recipe,
  { shape, data }: InputTensor,
  encoding: Encoding,
): InferRequest {
  const path = `/v2/models/${recipeName(recipe)}/infer`
  const input = { name: 'input', shape, datatype: 'FP32' }
  if (encoding === 'json') {
    // Every digit of each float, as the usual clients print them.
    const body = Buffer.from(JSON.stringify({ inputs: [{ ...input, data: Array.from(data) }] }))
    return { method: 'POST', path, headers: { 'Content-Type': 'application/json' }, body }
  }
  const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
  const json = Buffer.from(
    JSON.stringify({
      inputs: [{ ...input, parameters: { binary_data_size: data.length * FLOAT_BYTES } }],
      outputs: [{ name: 'output', parameters: { binary_data: true } }],
    }),
  )
  return {
    method: 'POST',
    path,
    headers: {
      'Content-Type': 'application/octet-stream',
      'Inference-Header-Content-Length': String(json.length),
    },
    body: Buffer.concat([json, raw]),
  }
}

export interface RequestSet {
  readonly encoding: Encoding
  readonly count: number
  readonly rows?: number
}

export function inferRequests(recipe: Recipe, { encoding, count, rows = 1 }: RequestSet): InferRequest[] {
  return inputTensors(recipe, count, rows).map((tensor) => encodeRequest(recipe, tensor, encoding))
}

/** The same request to another model, or to one version of it. */
export function addressedTo(
  request: InferRequest,
  { name, version }: { readonly name: string; readonly version?: number },
): InferRequest {
  const path = `/v2/models/${name}${version === undefined ? '' : `/versions/${version}`}/infer`
  return { ...request, path }
}
