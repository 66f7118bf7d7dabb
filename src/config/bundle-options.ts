/** Options of Ersilia bundles, and of the socket that neighbours on the machine ask. */
import { z } from 'zod'
import { option, optionalPath } from './option.js'

export const BUNDLE_OPTIONS = {
  bundle: option({
    schema: optionalPath,
    value: 'DIR',
    group: 'Models',
    help: 'Ersilia bundle to serve instead of a repository: POST /run, from SMILES.',
    default: () => '',
    defaultHelp: 'the one in the repository, where there is one',
  }),
  redisUrl: option({
    schema: z.union([z.literal(''), z.url({ protocol: /^rediss?$/, error: 'expected redis://HOST:PORT' })]),
    value: 'URL',
    group: 'Models',
    help: 'Redis that keeps the rows of POST /run for requests with fetch_cache.',
    default: () => '',
    defaultHelp: 'each worker keeps its own in memory',
  }),
  socket: option({
    schema: optionalPath,
    value: 'PATH',
    group: 'Network',
    help: 'Unix socket to serve inference on as well.',
    default: () => '',
    defaultHelp: 'for a bundle one beside its segment, for onecopy run; else none',
  }),
} as const
