/** Converts SMILES to token ids and an attention mask, for models that read molecules as text. */
import * as z from 'zod'
import type { NumericData } from '../tensor.js'
import type { InputTransform, RowEncoder } from './transform.js'

/**
 * Bracket atoms, two-letter elements, two-digit ring numbers, then single characters. Source: the OpenSMILES
 * grammar, http://opensmiles.org/opensmiles.html
 */
const TOKEN = /\[[^\]]{1,64}\]|Br|Cl|%\d{2}|[BCNOPSFIbcnops*()\-=#$:/\\.+0-9@~]/y

const id = z.int().min(0)

export const SmilesTokensOptionsSchema = z.strictObject({
  /** Id of every token. */
  vocabulary: z.record(z.string(), id).refine((words) => Object.keys(words).length > 0, 'expected tokens'),
  /** Length of a row; molecules with more tokens are rejected. */
  length: z.int().min(1).max(8192),
  padding: id.default(0),
  /** Id for tokens outside the vocabulary; without it such molecules are rejected. */
  unknown: id.optional(),
  begin: id.optional(),
  end: id.optional(),
  datatype: z.enum(['INT64', 'INT32']).default('INT64'),
  /** Whether a second tensor marks the positions with tokens. */
  mask: z.boolean().default(true),
})

export type SmilesTokensOptions = z.output<typeof SmilesTokensOptionsSchema>

/** The tokens of a SMILES; null if a part is not a valid token. */
export function tokenize(smiles: string, most: number): string[] | null {
  const tokens: string[] = []
  TOKEN.lastIndex = 0
  while (TOKEN.lastIndex < smiles.length) {
    const token = TOKEN.exec(smiles)?.[0]
    if (token === undefined || tokens.length === most) return null
    tokens.push(token)
  }
  return tokens
}

function encoder(options: SmilesTokensOptions): RowEncoder {
  const { vocabulary, length, padding, unknown, begin, end } = options
  const ids = new Map(Object.entries(vocabulary))
  const before = begin === undefined ? [] : [begin]
  const after = end === undefined ? [] : [end]
  return {
    encode(item: unknown, [row, mask]: readonly NumericData[]): boolean {
      if (typeof item !== 'string' || item === '') return false
      const tokens = tokenize(item, length - before.length - after.length)
      if (tokens === null) return false
      const known = tokens.map((token) => ids.get(token) ?? unknown)
      if (known.includes(undefined)) return false
      const all = [...before, ...(known as number[]), ...after]
      for (let place = 0; place < length; place++) {
        put(row as NumericData, place, all[place] ?? padding)
        if (mask !== undefined && place < all.length) put(mask, place, 1)
      }
      return true
    },
  }
}

function put(row: NumericData, place: number, value: number): void {
  row[place] = (row instanceof BigInt64Array ? BigInt(value) : value) as never
}

export const smilesTokens: InputTransform<SmilesTokensOptions> = {
  options: SmilesTokensOptionsSchema,
  rows: ({ length, datatype, mask }) => {
    const row = { datatype, shape: [length] }
    return mask ? [row, row] : [row]
  },
  open: async (options) => encoder(options),
}
