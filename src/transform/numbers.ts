/** Converts numbers to a tensor, for models that take descriptors: one line of a CSV file per row. */
import * as z from 'zod'
import type { NumericData } from '../tensor.js'
import type { InputTransform } from './transform.js'

export const NumbersOptionsSchema = z.strictObject({
  /** Numbers per row. */
  length: z.int().min(1).max(1_000_000),
  datatype: z.enum(['FP32', 'FP64', 'INT32', 'INT64', 'UINT8']).default('FP32'),
})

export type NumbersOptions = z.output<typeof NumbersOptionsSchema>

/** Digits alone are an integer of any size; other numbers need decimal notation. NaN is a missing value. */
const INTEGER = /^\s*[+-]?\d+\s*$/
const DECIMAL = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i
const INFINITE = /^\s*[+-]?inf(inity)?\s*$/i

/** The value of a cell; null if it is not a number. */
function numberIn(cell: unknown): number | bigint | null {
  if (typeof cell === 'number') return cell
  if (typeof cell !== 'string') return null
  if (INTEGER.test(cell) && !Number.isSafeInteger(Number(cell))) return BigInt(cell.trim().replace('+', ''))
  if (DECIMAL.test(cell)) return Number.isFinite(Number(cell)) ? Number(cell) : null
  if (!INFINITE.test(cell)) return null
  return cell.trim().startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
}

/**
 * Stores a value; false if the datatype cannot represent it. Typed arrays truncate fractions, wrap integers
 * and turn large floats into infinity.
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
      // A single number can be sent without a list.
      const cells = Array.isArray(item) ? item : [item]
      if (cells.length !== length) return false
      return cells.every((cell, place) => {
        const value = numberIn(cell)
        return value !== null && store(row as NumericData, place, value)
      })
    },
  }),
}
