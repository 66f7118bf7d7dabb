/**
 * What each datatype of the Open Inference Protocol V2 may look like in JSON, and what a decoder must know.
 */
import { DATATYPES, type Datatype, type NumericData } from '../../tensor.js'

/** How the elements of a datatype are written in JSON, and the values that fit. */
export type JsonRule =
  | { readonly kind: 'bool' }
  | { readonly kind: 'integer'; readonly min: number; readonly max: number }
  | { readonly kind: 'integer64'; readonly min: bigint; readonly max: bigint }
  /** The smallest magnitude that no longer fits: from here on, rounding gives infinity. */
  | { readonly kind: 'float'; readonly overflow: number }
  | { readonly kind: 'text' }
  /** JSON has no form for it, in a request or in a response: binary only. */
  | { readonly kind: 'none' }

export const JSON_RULES: Readonly<Record<Datatype, JsonRule>> = {
  BOOL: { kind: 'bool' },
  UINT8: { kind: 'integer', min: 0, max: 0xff },
  UINT16: { kind: 'integer', min: 0, max: 0xffff },
  UINT32: { kind: 'integer', min: 0, max: 0xffffffff },
  UINT64: { kind: 'integer64', min: 0n, max: 2n ** 64n - 1n },
  INT8: { kind: 'integer', min: -0x80, max: 0x7f },
  INT16: { kind: 'integer', min: -0x8000, max: 0x7fff },
  INT32: { kind: 'integer', min: -0x80000000, max: 0x7fffffff },
  INT64: { kind: 'integer64', min: -(2n ** 63n), max: 2n ** 63n - 1n },
  FP16: { kind: 'none' },
  BF16: { kind: 'none' },
  // Half a unit in the last place above the largest FP32: the tie rounds to infinity.
  FP32: { kind: 'float', overflow: (2 - 2 ** -24) * 2 ** 127 },
  FP64: { kind: 'float', overflow: Number.POSITIVE_INFINITY },
  BYTES: { kind: 'text' },
}

/**
 * The strings that represent the floats without a JSON form, in requests and responses alike: the JSON
 * mapping of Protocol Buffers 3.
 */
export const SPECIAL_FLOATS: ReadonlyMap<unknown, number> = new Map([
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
])

export function travelsInJson(datatype: Datatype): boolean {
  return JSON_RULES[datatype].kind !== 'none'
}

/** Zeroed storage for `count` elements of a datatype that has a fixed element size. */
export function newStorage(datatype: Exclude<Datatype, 'BYTES'>, count: number): NumericData {
  const Storage: new (length: number) => NumericData = DATATYPES[datatype].storage
  return new Storage(count)
}

/** A tensor whose datatype and shape are already known to be the model's. */
export interface ExpectedData {
  /** How messages call it, such as `input "x"`. */
  readonly label: string
  readonly datatype: Datatype
  readonly shape: readonly number[]
  /** elementCount(shape): a safe integer. */
  readonly count: number
}
