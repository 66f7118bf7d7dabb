/** Tensors as callers hold them: typed arrays by datatype. */
import { DATATYPES, type Datatype } from '../tensor.js'

/** Elements in row-major order. FP16 and BF16 are the sixteen bits of each; a BOOL is 0 or 1. */
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
  /** Text, or bytes that are UTF-8. */
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

/** `data` is text; `bytes` are the same elements as they came. */
export type BytesOutput = Head<'BYTES'> & {
  readonly data: readonly string[]
  readonly bytes: readonly Uint8Array[]
}

export type OutputTensor = NumericOutput | BytesOutput

/** The output of one datatype. */
export type OutputOf<Type extends Datatype> = Extract<OutputTensor, { datatype: Type }>

export type NumericElements = Exclude<ElementsOf[Datatype], readonly unknown[]>

/** @throws TypeError for elements that are not the datatype's: their bytes would mean something else. */
export function checkElements({ name, datatype, data }: InputTensor): void {
  const storage = DATATYPES[datatype]?.storage
  if (storage === undefined) throw new TypeError(`input ${name}: unknown datatype ${datatype}`)
  if (storage === null) {
    if (!Array.isArray(data) || !data.every((one) => typeof one === 'string' || one instanceof Uint8Array))
      throw new TypeError(`input ${name}: expected an array of strings or Uint8Arrays for BYTES`)
    // Half of a surrogate pair has no UTF-8 form: encoders put U+FFFD in its place.
    const halved = data.findIndex((one) => typeof one === 'string' && /\p{Surrogate}/u.test(one))
    if (halved >= 0)
      throw new TypeError(
        `input ${name}, element ${halved}: expected Unicode text, got half a surrogate pair`,
      )
    return
  }
  // By name: an array of another realm, or a Node.js Buffer, is as good.
  const got = (data as { readonly [Symbol.toStringTag]?: string })?.[Symbol.toStringTag] ?? typeof data
  if (got !== storage.name)
    throw new TypeError(`input ${name}: expected a ${storage.name} for ${datatype}, got ${got}`)
}

/** Elements over `bytes`, which must start at a multiple of their size. */
export function numericElements(
  datatype: Exclude<Datatype, 'BYTES'>,
  bytes: Uint8Array<ArrayBuffer>,
): NumericElements {
  const { storage } = DATATYPES[datatype]
  return new storage(bytes.buffer, bytes.byteOffset, bytes.byteLength / storage.BYTES_PER_ELEMENT)
}
