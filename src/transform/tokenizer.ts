/** The input transform of models that come with a `tokenizer.json`: token ids of one length, and an attention mask. */
import { readFile } from 'node:fs/promises'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import type { NumericData } from '../tensor.js'
import { TextTokenizer } from './tokenizer-library.js'
import type { InputTransform } from './transform.js'

export const TokenizerOptionsSchema = z.strictObject({
  /** The `tokenizer.json`; in a manifest relative to the bundle. */
  file: z.string().min(1),
  /** Length of a row; items of more tokens are refused. */
  length: z.int().min(1).max(8192),
  padding: z.int().min(0).default(0),
  datatype: z.enum(['INT64', 'INT32']).default('INT64'),
  /** Whether a second tensor says which places hold tokens. */
  mask: z.boolean().default(true),
  /** Whether a last tensor of zeros follows, for models that ask for types of tokens. */
  types: z.boolean().default(false),
  /** Longer items are refused. */
  max_characters: z.int().min(1).max(100_000).default(10_000),
})

export type TokenizerFileOptions = z.output<typeof TokenizerOptionsSchema>

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (thrown) {
    throw new OnecopyError('TRANSFORM_UNAVAILABLE', `tokenizer: ${messageOf(thrown)}`, { cause: thrown })
  }
}

function put(row: NumericData, place: number, value: number): void {
  row[place] = (row instanceof BigInt64Array ? BigInt(value) : value) as never
}

export const tokenizer: InputTransform<TokenizerFileOptions> = {
  options: TokenizerOptionsSchema,
  // The vocabulary and the library's own tables.
  privateBytes: 40e6,
  rows: ({ length, datatype, mask, types }) => {
    const row = { datatype, shape: [length] }
    return [row, ...(mask ? [row] : []), ...(types ? [row] : [])]
  },
  async open({ file, length, padding, mask, max_characters: maxCharacters }) {
    const json = await read(file)
    const library = TextTokenizer.open({ json, maxLength: length, truncationSide: 'right' })
    return {
      async encode(item: unknown, [row, second]: readonly NumericData[]): Promise<boolean> {
        if (typeof item !== 'string' || item === '' || item.length > maxCharacters) return false
        const [encoded] = await library.encode([item])
        if (encoded === undefined || encoded.isTruncated || encoded.ids.length === 0) return false
        for (let place = 0; place < length; place++)
          put(row as NumericData, place, encoded.ids[place] ?? padding)
        if (mask && second !== undefined)
          for (let place = 0; place < encoded.ids.length; place++) put(second, place, 1)
        return true
      },
    }
  },
}
