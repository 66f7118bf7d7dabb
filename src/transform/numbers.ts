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

function isNumber(cell: unknown): boolean {
  return (
    typeof cell === 'number' ||
    (typeof cell === 'string' && cell.trim() !== '' && !Number.isNaN(Number(cell)))
  )
}

export const numbers: InputTransform<NumbersOptions> = {
  options: NumbersOptionsSchema,
  rows: ({ length, datatype }) => [{ datatype, shape: [length] }],
  open: async ({ length, datatype }) => ({
    encode(item: unknown, [row]: readonly NumericData[]): boolean {
      // A single number needs no list around it.
      const cells = Array.isArray(item) ? item : [item]
      if (cells.length !== length || !cells.every(isNumber)) return false
      for (const [place, cell] of cells.entries()) {
        const value = Number(cell)
        if (datatype === 'INT64' && !Number.isSafeInteger(value)) return false
        ;(row as NumericData)[place] = (datatype === 'INT64' ? BigInt(value) : value) as never
      }
      return true
    },
  }),
}
