/** Numbers to a tensor: for models that take descriptors as they are, a line of a CSV file each. */
import { z } from 'zod'
import type { NumericData } from '../tensor.js'
import type { InputTransform } from './transform.js'

export const NumbersOptionsSchema = z.strictObject({
  /** Numbers in a row. */
  length: z.int().min(1).max(1_000_000),
  datatype: z.enum(['FP32', 'FP64', 'INT32', 'INT64', 'UINT8']).default('FP32'),
})

export type NumbersOptions = z.output<typeof NumbersOptionsSchema>

/** Digits alone are an integer of any size; a number is what is written as one. NaN is a value that is missing. */
const INTEGER = /^\s*[+-]?\d+\s*$/
const DECIMAL = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i
const INFINITE = /^\s*[+-]?inf(inity)?\s*$/i

/** The value of a cell; null where it is no number. */
function numberIn(cell: unknown): number | bigint | null {
  if (typeof cell === 'number') return cell
  if (typeof cell !== 'string') return null
  if (INTEGER.test(cell) && !Number.isSafeInteger(Number(cell))) return BigInt(cell.trim().replace('+', ''))
  if (DECIMAL.test(cell)) return Number.isFinite(Number(cell)) ? Number(cell) : null
  if (!INFINITE.test(cell)) return null
  return cell.trim().startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
}

/**
 * Stores a value; false where its datatype cannot hold it: arrays cut off fractions, wrap integers around and make
 * infinities of large floats.
 */
function store(row: NumericData, place: number, value: number | bigint): boolean {
  if (row instanceof BigInt64Array) {
    const integer = typeof value === 'bigint' ? value : Number.isInteger(value) ? BigInt(value) : null
    if (integer === null || BigInt.asIntN(64, integer) !== integer) return false
    row[place] = integer
    return true
  }
  const number = Number(value)
  row[place] = number as never
  if (row instanceof Float32Array || row instanceof Float64Array) {
    return Number.isFinite(row[place]) || (typeof value === 'number' && !Number.isFinite(value))
  }
  return Number(row[place]) === number
}

export const numbers: InputTransform<NumbersOptions> = {
  options: NumbersOptionsSchema,
  rows: ({ length, datatype }) => [{ datatype, shape: [length] }],
  open: async ({ length }) => ({
    encode(item: unknown, [row]: readonly NumericData[]): boolean {
      // A single number needs no list around it.
      const cells = Array.isArray(item) ? item : [item]
      if (cells.length !== length) return false
      return cells.every((cell, place) => {
        const value = numberIn(cell)
        return value !== null && store(row as NumericData, place, value)
      })
    },
  }),
}
