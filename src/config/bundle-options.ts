/** Options of Ersilia bundles and of the Unix socket for clients on the same machine. */
import * as z from 'zod'
import { option, optionalPath } from './option.js'

export const BUNDLE_OPTIONS = {
  bundle: option({
    schema: optionalPath,
    value: 'DIR',
    group: 'Models',
    help: 'Ersilia bundle to serve instead of a repository. Adds POST /run, which takes SMILES.',
    default: () => '',
    defaultHelp: 'the bundle in the repository, if any',
  }),
  redisUrl: option({
    schema: z.union([z.literal(''), z.url({ protocol: /^rediss?$/, error: 'expected redis://HOST:PORT' })]),
    value: 'URL',
    group: 'Models',
    help: 'Redis that caches the rows of POST /run for requests with fetch_cache.',
    default: () => '',
    defaultHelp: 'each worker caches in its own memory',
  }),
  socket: option({
    schema: optionalPath,
    value: 'PATH',
    group: 'Network',
    help: 'Unix socket on which inference is also served.',
    default: () => '',
    defaultHelp: 'for a bundle, one beside its segment (used by onecopy run); otherwise none',
  }),
} as const
