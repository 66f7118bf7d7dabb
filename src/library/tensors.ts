/** Tensors as a caller of the library writes and gets them. */
import { checkNoNul, quoted, requestInvalid, tensorInvalid } from '../protocol/v2/faults.js'
import { checkShape } from '../protocol/v2/plan.js'
import {
  DATATYPES,
  type Datatype,
  elementCount,
  type NumericData,
  type Tensor,
  type TensorData,
  type TensorSpec,
} from '../tensor.js'

/** Any typed array; a Node.js Buffer is a Uint8Array. */
export type Elements =
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Float32Array
  | Float64Array
  | readonly string[]

/**
 * An input: row-major elements in the typed array of the model's datatype (FP16 and BF16 as the bits in a
 * Uint16Array, BOOL as a Uint8Array of 0 and 1, BYTES as an array of strings), with the shape. The shape may
 * be left out where at most one dimension is variable. A tensor of onnxruntime-node is fine as it is.
 */
export type InputValue =
  | Elements
  | { readonly data: Elements; readonly shape?: readonly number[] }
  | { readonly data: Elements; readonly dims: readonly number[] }

export interface OutputValue {
  readonly datatype: Datatype
  readonly shape: readonly number[]
  /** Memory of its own, which nothing else uses. */
  readonly data: TensorData
}

function isElements(value: unknown): value is Elements {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))
}

/** The shape that fits the model, if at most one dimension is variable; null otherwise. */
function inferredShape(spec: TensorSpec, count: number): number[] | null {
  if (spec.shape === null) return null
  const variable = spec.shape.filter((size) => size < 0).length
  if (variable > 1) return null
  const known = elementCount(spec.shape.map((size) => (size < 0 ? 1 : size)))
  const open = variable === 0 || known === 0 ? 0 : count / known
  return spec.shape.map((size) => (size < 0 ? open : size))
}

function partsOf(value: InputValue, label: string): { data: Elements; shape: readonly number[] | undefined } {
  if (isElements(value)) return { data: value, shape: undefined }
  if (typeof value !== 'object' || value === null || !isElements(value.data))
    throw tensorInvalid(label, 'expected a typed array, or an object with data and shape')
  return { data: value.data, shape: 'dims' in value ? value.dims : value.shape }
}

function isSizes(shape: readonly number[]): boolean {
  return Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0)
}

/** A copy, which the inference thread takes over. */
function ownData(data: Elements, { datatype }: TensorSpec, label: string): TensorData {
  const { storage } = DATATYPES[datatype]
  if (storage === null) {
    if (!Array.isArray(data)) throw tensorInvalid(label, 'expected an array of strings for BYTES')
    data.forEach((text, i) => {
      if (typeof text !== 'string') throw tensorInvalid(label, `element ${i}: expected a string`)
      if (/\p{Surrogate}/u.test(text)) throw tensorInvalid(label, `element ${i}: half a surrogate pair`)
      checkNoNul(text, label, i)
    })
    return [...data]
  }
  // By name: an array of another realm, or a Node.js Buffer, is as good.
  const got = (data as { readonly [Symbol.toStringTag]?: string })[Symbol.toStringTag] ?? 'an array'
  if (got !== storage.name)
    throw tensorInvalid(
      label,
      `expected a ${storage.name} for ${datatype}, got ${got === 'Array' ? 'an array' : got}`,
    )
  const copy = new storage(data as never) as NumericData
  if (datatype === 'BOOL') {
    const at = (copy as Uint8Array).findIndex((byte) => byte > 1)
    if (at >= 0) throw tensorInvalid(label, `element ${at}: a BOOL is 0 or 1, got ${copy[at]}`)
  }
  return copy
}

function inputOf(spec: TensorSpec, value: InputValue): Tensor {
  const label = `input ${quoted(spec.name)}`
  const { data, shape: given } = partsOf(value, label)
  const shape = given ?? inferredShape(spec, data.length)
  if (shape === null) throw tensorInvalid(label, 'expected a shape: several of its dimensions are variable')
  if (!isSizes(shape)) throw tensorInvalid(label, `expected a shape of non-negative integers, got [${shape}]`)
  const count = checkShape(shape, spec, label)
  if (count !== data.length)
    throw tensorInvalid(label, `shape [${shape.join(', ')}] needs ${count} elements, got ${data.length}`)
  const { name, datatype } = spec
  return { name, datatype, shape: [...shape], data: ownData(data, spec, label) }
}

/**
 * The inputs of one run, in the model's order.
 * @throws OnecopyError TENSOR_INVALID naming the input.
 */
export function readInputs(
  feeds: Readonly<Record<string, InputValue>>,
  specs: readonly TensorSpec[],
): Tensor[] {
  for (const name of Object.keys(feeds)) {
    if (specs.some((spec) => spec.name === name)) continue
    const known = specs.map((spec) => quoted(spec.name)).join(', ')
    throw tensorInvalid(`input ${quoted(name)}`, `the model has no such input; its inputs are ${known}`)
  }
  return specs.flatMap((spec) => {
    const value = feeds[spec.name]
    if (value !== undefined) return [inputOf(spec, value)]
    if (spec.optional === true) return []
    throw tensorInvalid(
      `input ${quoted(spec.name)}`,
      `missing; the model expects ${spec.datatype} [${spec.shape}]`,
    )
  })
}

/** @throws OnecopyError REQUEST_INVALID. */
export function checkOutputNames(
  asked: readonly string[] | undefined,
  specs: readonly TensorSpec[],
): readonly string[] {
  const known = specs.map(({ name }) => name)
  if (asked === undefined) return known
  for (const [i, name] of asked.entries()) {
    if (!known.includes(name))
      throw requestInvalid(
        `output ${quoted(name)}: the model has no such output; its outputs are ${known.map(quoted).join(', ')}`,
      )
    if (asked.indexOf(name) !== i) throw requestInvalid(`output ${quoted(name)}: named more than once`)
  }
  if (asked.length === 0) throw requestInvalid('outputs: expected at least one name, got none')
  return [...asked]
}

export function outputValues(outputs: readonly Tensor[]): Record<string, OutputValue> {
  return Object.fromEntries(
    outputs.map(({ name, datatype, shape, data }) => {
      // A part of a batch is a view; its neighbours are other callers'.
      const isPart = ArrayBuffer.isView(data) && data.byteLength !== data.buffer.byteLength
      return [name, { datatype, shape, data: isPart ? (data.slice() as NumericData) : data }]
    }),
  )
}
