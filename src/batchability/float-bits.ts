/** Converts between numbers and the half types, which JavaScript lacks in some supported Node versions. */
import type { Datatype } from '../tensor.js'

const LARGEST_HALF = 65504
const FLOATS: ReadonlySet<Datatype> = new Set(['FP16', 'BF16', 'FP32', 'FP64'])

const word = new Float32Array(1)
const bits = new Uint32Array(word.buffer)

export function isFloat(datatype: Datatype): boolean {
  return FLOATS.has(datatype)
}

/** Numbers above the largest half become the largest half; only infinity stays infinite. */
export function halfBits(value: number): number {
  if (Number.isNaN(value)) return 0x7e00
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const magnitude = Math.abs(value)
  if (magnitude === Number.POSITIVE_INFINITY) return sign | 0x7c00
  if (magnitude < 2 ** -14) return sign | Math.floor(magnitude * 2 ** 24)
  if (magnitude >= LARGEST_HALF) return sign | 0x7bff
  const exponent = Math.floor(Math.log2(magnitude))
  const mantissa = Math.max(0, Math.floor((magnitude / 2 ** exponent - 1) * 1024))
  return sign | ((exponent + 15) << 10) | mantissa
}

export function halfValue(half: number): number {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >>> 10) & 31
  const mantissa = half & 1023
  if (exponent === 31) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1 + mantissa / 1024) * 2 ** (exponent - 15)
}

/** A bfloat16 is the upper half of a float32. */
export function bfloatBits(value: number): number {
  word[0] = value
  return (bits[0] as number) >>> 16
}

/** The array element for a number: the number itself, or its 16 bits for half types. */
export function floatBits(datatype: Datatype, value: number): number {
  if (datatype === 'FP16') return halfBits(value)
  return datatype === 'BF16' ? bfloatBits(value) : value
}
