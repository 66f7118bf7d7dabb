/** How large requests, answers and the compile cache may be. */
import { z } from 'zod'
import { option } from './option.js'
import { sizeBytes } from './quantities.js'

/** Numbers take more room as JSON than as binary, but few answers are larger than what was asked with. */
export const RESPONSE_PER_BODY = 2

export const SIZE_OPTIONS = {
  maxBody: option({
    schema: sizeBytes,
    value: 'SIZE',
    group: 'Limits',
    help: 'Largest request body, also after decompression.',
    default: () => '64MiB',
  }),
  maxResponse: option({
    schema: z.union(
      [z.literal('').transform(() => null), sizeBytes],
      'expected a size such as 64KiB, 16MiB or 2GiB',
    ),
    value: 'SIZE',
    group: 'Limits',
    help: 'Largest answer to an inference request, before compression; outputs in shared memory do not count.',
    default: () => '',
    defaultHelp: `${RESPONSE_PER_BODY} x --max-body`,
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
    help: 'Compiled models beyond this are removed, those used least recently first, never one that a living server uses; 0 is unlimited.',
    default: () => '16GiB',
  }),
} as const
