/** How texts are computed together. */
import { integer, option } from './option.js'

export const TEXT_OPTIONS = {
  maxBatchTokens: option({
    schema: integer(16, 100_000_000),
    value: 'N',
    group: 'Limits',
    help: 'Tokens of texts that are computed together, padding included. The server learns how many pay.',
    default: () => 16_384,
  }),
} as const
