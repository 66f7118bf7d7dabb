/** Tensors in the client API: typed arrays by datatype. */
import { DATATYPES, type Datatype } from '../tensor.js'

/** Elements in row-major order. FP16 and BF16 elements are their 16 bits; a BOOL is 0 or 1. */
export interface ElementsOf {
  BOOL: Uint8Array
  UINT8: Uint8Array
  UINT16: Uint16Array
  UINT32: Uint32Array
  UINT64: BigUint64Array
  INT8: Int8Array
  INT16: Int16Array
  INT32: Int32Array
  INT64: BigInt64Array
  FP16: Uint16Array
  BF16: Uint16Array
  FP32: Float32Array
  FP64: Float64Array
  /** Text, or UTF-8 bytes. */
  BYTES: readonly (string | Uint8Array)[]
}

interface Head<Type extends Datatype> {
  readonly name: string
  readonly datatype: Type
  /** Sizes of the dimensions; `[]` is a scalar. */
  readonly shape: readonly number[]
}

export type InputTensor = {
  [Type in Datatype]: Head<Type> & { readonly data: ElementsOf[Type] }
}[Datatype]

type NumericOutput = {
  [Type in Exclude<Datatype, 'BYTES'>]: Head<Type> & { readonly data: ElementsOf[Type] }
}[Exclude<Datatype, 'BYTES'>]

/** `data` is text; `bytes` are the same elements as received. */
export type BytesOutput = Head<'BYTES'> & {
  readonly data: readonly string[]
  readonly bytes: readonly Uint8Array[]
}

export type OutputTensor = NumericOutput | BytesOutput

/** The output type of a datatype. */
export type OutputOf<Type extends Datatype> = Extract<OutputTensor, { datatype: Type }>

export type NumericElements = Exclude<ElementsOf[Datatype], readonly unknown[]>

/** @throws TypeError for elements of another type, whose bytes would be misinterpreted. */
export function checkElements({ name, datatype, data }: InputTensor): void {
  const storage = DATATYPES[datatype]?.storage
  if (storage === undefined) throw new TypeError(`input ${name}: unknown datatype ${datatype}`)
  if (storage === null) {
    if (!Array.isArray(data) || !data.every((one) => typeof one === 'string' || one instanceof Uint8Array))
      throw new TypeError(`input ${name}: expected an array of strings or Uint8Arrays for BYTES`)
    // Unpaired surrogates have no UTF-8 form: encoders replace them with U+FFFD.
    const halved = data.findIndex((one) => typeof one === 'string' && /\p{Surrogate}/u.test(one))
    if (halved >= 0)
      throw new TypeError(
        `input ${name}, element ${halved}: expected Unicode text, got an unpaired surrogate`,
      )
    return
  }
  // Compared by name, so that arrays of other realms and Node.js Buffers are accepted.
  const got = (data as { readonly [Symbol.toStringTag]?: string })?.[Symbol.toStringTag] ?? typeof data
  if (got !== storage.name)
    throw new TypeError(`input ${name}: expected a ${storage.name} for ${datatype}, got ${got}`)
}

/** Elements over `bytes`, which must be aligned to the element size. */
export function numericElements(
  datatype: Exclude<Datatype, 'BYTES'>,
  bytes: Uint8Array<ArrayBuffer>,
): NumericElements {
  const { storage } = DATATYPES[datatype]
  return new storage(bytes.buffer, bytes.byteOffset, bytes.byteLength / storage.BYTES_PER_ELEMENT)
}
