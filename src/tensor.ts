/**
 * Tensors as they travel through the server: a name, a datatype of the Open Inference Protocol V2,
 * a shape, and a view of the elements in row-major order. Nothing here copies.
 */

/**
 * Element storage by datatype. `bytes` is the size of one element on the wire; null means variable.
 */
export const DATATYPES = {
  BOOL: { bytes: 1, storage: Uint8Array },
  UINT8: { bytes: 1, storage: Uint8Array },
  UINT16: { bytes: 2, storage: Uint16Array },
  UINT32: { bytes: 4, storage: Uint32Array },
  UINT64: { bytes: 8, storage: BigUint64Array },
  INT8: { bytes: 1, storage: Int8Array },
  INT16: { bytes: 2, storage: Int16Array },
  INT32: { bytes: 4, storage: Int32Array },
  INT64: { bytes: 8, storage: BigInt64Array },
  /** The sixteen bits of each element: JavaScript has no half type on every supported Node. */
  FP16: { bytes: 2, storage: Uint16Array },
  BF16: { bytes: 2, storage: Uint16Array },
  FP32: { bytes: 4, storage: Float32Array },
  FP64: { bytes: 8, storage: Float64Array },
  /** Strings; `storage` is null because elements have no fixed size. */
  BYTES: { bytes: null, storage: null },
} as const

export type Datatype = keyof typeof DATATYPES

export type NumericData =
  | Uint8Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>
  | Int8Array<ArrayBuffer>
  | Int16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | BigInt64Array<ArrayBuffer>
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>

/**
 * Row-major elements: a typed array of the datatype's storage, or an array of strings for BYTES.
 */
export type TensorData = NumericData | readonly string[]

export interface Tensor {
  readonly name: string
  readonly datatype: Datatype
  /** Sizes of the dimensions, each a non-negative integer; `[]` is a scalar. */
  readonly shape: readonly number[]
  readonly data: TensorData
}

/** What a model declares about one input or output. */
export interface TensorSpec {
  readonly name: string
  readonly datatype: Datatype
  /** -1 is a variable dimension; null when the model declares no rank at all. */
  readonly shape: readonly number[] | null
  /** An input that has a default, and need not be sent. */
  readonly optional?: true | undefined
}

/** What must be sent. */
export function requiredOf<Spec extends TensorSpec>(inputs: readonly Spec[]): Spec[] {
  return inputs.filter(({ optional }) => optional !== true)
}

/**
 * Number of elements of a shape, or NaN where the product leaves the exact integers (2^53).
 * A zero anywhere makes it zero, however large the other dimensions are.
 */
export function elementCount(shape: readonly number[]): number {
  if (shape.includes(0)) return 0
  let count = 1
  for (const size of shape) count *= size
  return Number.isSafeInteger(count) ? count : Number.NaN
}

/**
 * The elements of an FP32 or FP16 tensor as single floats: those of FP32 themselves, those of FP16
 * widened, exactly. Source: https://en.wikipedia.org/wiki/Half-precision_floating-point_format
 */
export function floatsOf({ datatype, data }: Pick<Tensor, 'datatype' | 'data'>): Float32Array<ArrayBuffer> {
  if (datatype !== 'FP16') return data as Float32Array<ArrayBuffer>
  const halves = data as Uint16Array
  const words = new Uint32Array(halves.length)
  const floats = new Float32Array(words.buffer)
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i] as number
    const sign = (half & 0x8000) << 16
    const exponent = (half >> 10) & 0x1f
    const fraction = half & 0x3ff
    // Without an exponent it is a multiple of 2^-24; 31 is for infinities and NaN.
    if (exponent === 0) floats[i] = (sign === 0 ? fraction : -fraction) * 2 ** -24
    else words[i] = sign | ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13)
  }
  return floats
}

/** Size limit of the outputs of a run in the response, checked in the thread that computed them. */
export interface OutputLimit {
  readonly bytes: number
  /** Minimum bytes per element, by output; 0 if the output is not part of the response. */
  readonly leastElementBytes: readonly number[]
}

/** Memory that tensors take; strings count their characters. */
export function dataBytes(tensors: readonly Tensor[]): number {
  let bytes = 0
  for (const { data } of tensors) {
    if (ArrayBuffer.isView(data)) bytes += data.byteLength
    else for (const text of data) bytes += text.length
  }
  return bytes
}
