/** The requests of a bench: built from a seed, the same bytes for every variant. */
import { createRandom } from '../models/random.js'
import { type Recipe, recipeName, recipeSeed, rowShape } from '../models/recipes.js'

export type Encoding = 'json' | 'binary'
export const ENCODINGS: readonly Encoding[] = ['json', 'binary']

export type TensorElements = Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer> | Int32Array<ArrayBuffer>

export interface InputTensor {
  readonly name: string
  readonly datatype: 'FP32' | 'INT64' | 'INT32'
  readonly shape: readonly number[]
  readonly data: TensorElements
}

export interface InferRequest {
  readonly method: 'POST' | 'GET'
  readonly path: string
  readonly headers: Record<string, string>
  readonly body: Buffer
}

/** Makes `count` inputs of `rows` rows each: floats uniform in [-1, 1), ids uniform over the table. */
export function inputTensors(recipe: Recipe, count: number, rows: number): InputTensor[] {
  const shape = [rows, ...rowShape(recipe)]
  const length = shape.reduce((product, dim) => product * dim, 1)
  return Array.from({ length: count }, (_, index) => {
    const random = createRandom(`${recipeSeed(recipe)}/input/${rows}/${index}`)
    if (recipe.kind !== 'embedding') {
      const data = Float32Array.from({ length }, () => random() * 2 - 1)
      return { name: 'input', datatype: 'FP32', shape, data }
    }
    const data = BigInt64Array.from({ length }, () => BigInt(Math.floor(random() * recipe.entries)))
    return { name: 'input', datatype: 'INT64', shape, data }
  })
}

export interface RequestOptions {
  readonly modelName: string
  readonly inputs: readonly InputTensor[]
  readonly outputName: string
  readonly encoding: Encoding
}

export function buildRequest({ modelName, inputs, outputName, encoding }: RequestOptions): InferRequest {
  const path = `/v2/models/${modelName}/infer`
  if (encoding === 'json') {
    const tensors = inputs.map(({ name, shape, datatype, data }) => {
      // All digits of each float, as common clients print them.
      return { name, shape, datatype, data: Array.from<number | bigint, number>(data, Number) }
    })
    const body = Buffer.from(JSON.stringify({ inputs: tensors, outputs: [{ name: outputName }] }))
    return { method: 'POST', path, headers: { 'Content-Type': 'application/json' }, body }
  }
  const described = inputs.map(({ name, shape, datatype, data }) => ({
    ...{ name, shape, datatype, parameters: { binary_data_size: data.byteLength } },
  }))
  const outputs = [{ name: outputName, parameters: { binary_data: true } }]
  const json = Buffer.from(JSON.stringify({ inputs: described, outputs }))
  const raw = inputs.map(({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength))
  return {
    method: 'POST',
    path,
    headers: {
      'Content-Type': 'application/octet-stream',
      'Inference-Header-Content-Length': String(json.length),
    },
    body: Buffer.concat([json, ...raw]),
  }
}

export function encodeRequest(recipe: Recipe, input: InputTensor, encoding: Encoding): InferRequest {
  return buildRequest({ modelName: recipeName(recipe), inputs: [input], outputName: 'output', encoding })
}

export interface RequestSet {
  readonly encoding: Encoding
  readonly count: number
  readonly rows?: number
}

export function inferRequests(recipe: Recipe, { encoding, count, rows = 1 }: RequestSet): InferRequest[] {
  return inputTensors(recipe, count, rows).map((tensor) => encodeRequest(recipe, tensor, encoding))
}

/** The same request for another model, or for one version of it. */
export function addressedTo(
  request: InferRequest,
  { name, version }: { readonly name: string; readonly version?: number },
): InferRequest {
  const path = `/v2/models/${name}${version === undefined ? '' : `/versions/${version}`}/infer`
  return { ...request, path }
}
