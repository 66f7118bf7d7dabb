/** Size limits of requests, responses and the compile cache. */
import * as z from 'zod'
import { option } from './option.js'
import { sizeBytes } from './quantities.js'

/** JSON numbers take more bytes than binary, but few responses are larger than their requests. */
export const RESPONSE_PER_BODY = 2
/** With the default sizes 128 messages of 4 MB, twice what the queue of a model may hold. */
export const RECEIVING_PER_BODY = 8
/** A message in frames of any size fits, with others beside it. */
export const MIN_RECEIVING_PER_BODY = 2

const SIZE_OR_DEFAULT = z.union(
  [z.literal('').transform(() => null), sizeBytes],
  'expected a size such as 64KiB, 16MiB or 2GiB',
)

export const SIZE_OPTIONS = {
  maxBody: option({
    schema: sizeBytes,
    value: 'SIZE',
    group: 'Limits',
    help: 'Largest request body, before and after decompression.',
    default: () => '64MiB',
  }),
  maxResponse: option({
    schema: SIZE_OR_DEFAULT,
    value: 'SIZE',
    group: 'Limits',
    help: 'Largest inference response before compression. Outputs in shared memory do not count.',
    default: () => '',
    defaultHelp: `${RESPONSE_PER_BODY} x --max-body`,
  }),
  maxReceiving: option({
    schema: SIZE_OR_DEFAULT,
    value: 'SIZE',
    group: 'Limits',
    help: 'Bytes of gRPC messages that a worker holds before they have arrived completely; at least twice --max-body.',
    default: () => '',
    defaultHelp: `${RECEIVING_PER_BODY} x --max-body`,
  }),
} as const

export const CACHE_SIZE_OPTIONS = {
  cacheMaxSize: option({
    schema: z.union(
      [z.literal('0').transform(() => 0), sizeBytes],
      'expected a size such as 64KiB, 16MiB or 2GiB, or 0',
    ),
    value: 'SIZE',
    group: 'Models',
    help: 'Size limit of the compile cache. Least recently used models are removed first, never one that a running server uses; 0 is unlimited.',
    default: () => '16GiB',
  }),
} as const
