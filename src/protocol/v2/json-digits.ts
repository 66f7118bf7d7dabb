/** Scans the bytes of integers again, for differences that parsed numbers have lost. */

import type { ExpectedData } from './datatypes.js'
import { tensorInvalid } from './faults.js'
import { type JsonValueBytes, textOf } from './json.js'

const MINUS = 0x2d
const ZERO = 0x30
const NINE = 0x39

/** Characters of a bad number that a message repeats, before and after the mark. */
const SHOWN = 30

/** The parsed numbers are whole; this is for `1.0` and `1e0`, which are not written as integers. */
export function checkWholeNumbers(bytes: JsonValueBytes, { label, datatype }: ExpectedData): void {
  for (const mark of '.eE') {
    const at = bytes.indexOf(mark.charCodeAt(0))
    if (at < 0) continue
    const before = textOf(bytes.subarray(Math.max(0, at - SHOWN), at), label).match(/[^[,\s]*$/)?.[0]
    const after = textOf(bytes.subarray(at, at + SHOWN), label).match(/^[^\],\s]*/)?.[0]
    throw tensorInvalid(label, `${datatype} elements have no fraction or exponent, got ${before}${after}`)
  }
}

/**
 * Reads the elements beyond 2^53 from their digits. The bytes are known to be JSON and to hold integers only.
 */
export function storeLongIntegers(
  bytes: JsonValueBytes,
  data: BigInt64Array | BigUint64Array,
  { min, max }: { min: bigint; max: bigint },
  { label, datatype }: ExpectedData,
): void {
  const safeDigits = 15
  let index = 0
  for (let at = 0; at < bytes.length; index++) {
    while (at < bytes.length && !isOfInteger(bytes[at] as number)) at++
    const start = at
    while (at < bytes.length && isOfInteger(bytes[at] as number)) at++
    const length = at - start
    if (length <= safeDigits) continue
    const value = integerAt(bytes, start, at)
    if (value < min || value > max) {
      throw tensorInvalid(label, `element ${index} is outside ${datatype}, ${min} to ${max}`)
    }
    data[index] = value
  }
}

/** A digit or a minus sign. */
function isOfInteger(byte: number): boolean {
  return (byte >= ZERO && byte <= NINE) || byte === MINUS
}

/**
 * The last nine digits and the up to eleven before them fit a number each, exactly. JSON has no leading
 * zeros, so a longer integer is out of every range, rounded or not. It is finite, or JSON.parse would have
 * failed.
 */
function integerAt(bytes: JsonValueBytes, start: number, end: number): bigint {
  const negative = bytes[start] === MINUS
  const split = end - 9
  const high = digitsAt(bytes, negative ? start + 1 : start, split)
  const value = BigInt(high) * 1_000_000_000n + BigInt(digitsAt(bytes, split, end))
  return negative ? -value : value
}

function digitsAt(bytes: JsonValueBytes, start: number, end: number): number {
  let value = 0
  for (let i = start; i < end; i++) value = value * 10 + (bytes[i] as number) - ZERO
  return value
}
