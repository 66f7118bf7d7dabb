/** How texts are computed together. */
import { integer, option } from './option.js'

export const TEXT_OPTIONS = {
  maxBatchTokens: option({
    schema: integer(16, 100_000_000),
    value: 'N',
    group: 'Limits',
    help: 'Maximum number of tokens in a batch of texts, including padding. The server measures which size pays off.',
    default: () => 16_384,
  }),
} as const
