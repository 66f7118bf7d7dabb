/** Every server that the benches compare, by name: how it is started, and what is missing where it cannot be. */
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { namesOption, type Option } from './options.js'
import { PACKAGE_ROOT } from './paths.js'
import { peerNames, peerVariants } from './peers.js'
import type { Encoding } from './requests.js'
import {
  type RunningServer,
  type ServerOptions,
  startOnecopy,
  startPm2,
  startSingle,
  startVariant,
} from './servers.js'
import { wasStopped } from './stage.js'

export interface Variant {
  readonly name: string
  readonly about: string
  /** What it lacks on this machine, in a sentence; null where it can be started. */
  readonly missing: string | null
  readonly encodings: readonly Encoding[]
  /** Which process answers a connection can be found out: each worker can be asked. */
  readonly hasKnownWorkers: boolean
  start(options: StartOptions): Promise<RunningServer>
}

export interface StartOptions extends ServerOptions {
  readonly model: ServerOptions['model'] & { readonly name: string; readonly path: string }
  /** Workers that die are replaced, as in production; without, a variant that lost one ends. */
  readonly isSupervised?: boolean
}

/** Stands for all that are there. */
const PEERS = 'peers'

/** Without looking whether they are installed. */
export function variantNames(): string[] {
  const node = ['onecopy', 'plain-koa', 'pm2-koa', 'thread-pool', 'reload-per-request', 'process-per-request']
  return [...node, ...peerNames(), PEERS]
}

/** Servers on a bench's command line; a name that none has is refused before anything starts. */
export function variantsOption(words: {
  readonly default: string
  readonly quick?: string
}): Option<readonly string[]> {
  const option = namesOption({ help: `Servers; ${PEERS} are those in other languages`, ...words })
  return {
    ...option,
    parse: (text) => {
      const names = option.parse(text)
      const unknown = names.find((name) => !variantNames().includes(name))
      if (unknown === undefined) return names
      throw new Error(`expected names out of ${variantNames().join(', ')}, got ${JSON.stringify(unknown)}`)
    },
  }
}

const OURS = { missing: null, encodings: ['json', 'binary'], hasKnownWorkers: true } as const

/** pm2 of the project's own folder or on the PATH: it is not installed with the project, being 25 MB under the AGPL. */
function findPm2(): string | null {
  const folders = [join(PACKAGE_ROOT, 'node_modules', '.bin'), ...(process.env.PATH ?? '').split(delimiter)]
  return folders.map((folder) => join(folder, 'pm2-runtime')).find((path) => existsSync(path)) ?? null
}

/** Where every variant is, skipped ones included. */
export function allVariants(): Variant[] {
  const pm2 = findPm2()
  return [
    { ...OURS, name: 'onecopy', about: 'one copy of the weights for all workers', start: startOnecopy },
    {
      ...OURS,
      name: 'plain-koa',
      about: 'node:cluster and Koa, a session in every worker',
      start: ({ isSupervised = false, ...options }) =>
        startVariant('plain-koa', { ...options, flags: isSupervised ? ['--supervised'] : [] }),
    },
    {
      ...OURS,
      name: 'pm2-koa',
      about: 'the same under pm2 in cluster mode',
      missing: pm2 === null ? 'pm2-runtime is not on the PATH (npm install --global pm2)' : null,
      start: (options) => startPm2(pm2 ?? 'pm2-runtime', options),
    },
    {
      ...OURS,
      name: 'thread-pool',
      about: 'one process, a session in every thread of a pool (piscina)',
      start: (options) => startSingle('thread-pool', options),
    },
    {
      ...OURS,
      name: 'reload-per-request',
      about: 'plain-koa that loads the model for every request',
      start: (options) => startVariant('reload-per-request', options),
    },
    {
      ...OURS,
      name: 'process-per-request',
      about: 'a process for every request',
      start: (options) => startSingle('process-per-request', options),
    },
    ...peerVariants(),
  ]
}

export interface Chosen {
  /** onecopy first, where it was named. */
  readonly variants: readonly Variant[]
  /** For the notes: who is not in the table, and why. */
  readonly notes: string[]
}

/** One that cannot be started here is left out, and said. */
export function chooseVariants(names: readonly string[], encoding?: Encoding): Chosen {
  const all = allVariants()
  const wanted = names.flatMap((name) => (name === PEERS ? peerNames() : [name]))
  const chosen = all.filter(({ name }) => wanted.includes(name))
  const reasonOf = ({ missing, encodings }: Variant) =>
    missing ??
    (encoding === undefined || encodings.includes(encoding) ? null : `it does not speak ${encoding} tensors`)
  return {
    variants: chosen.filter((variant) => reasonOf(variant) === null),
    notes: [
      ...chosen.filter((variant) => reasonOf(variant) === null).map(({ name, about }) => `${name}: ${about}`),
      ...chosen.flatMap((variant) => {
        const reason = reasonOf(variant)
        return reason === null ? [] : [`${variant.name}: **skipped**, ${reason}`]
      }),
    ],
  }
}

/** A peer that does not start is left out and said: what the reader has installed is no part of the project. */
export async function orNote<Result>(
  { variant, notes }: { readonly variant: Variant; readonly notes: string[] },
  start: () => Promise<Result>,
): Promise<Result | null> {
  try {
    return await start()
  } catch (thrown) {
    if (!peerNames().includes(variant.name) || wasStopped()) throw thrown
    const lines = (thrown as Error).message.trim().split('\n')
    notes.push(`${variant.name}: **skipped**, ${lines[0]} ${lines.length > 1 ? lines.at(-1) : ''}`.trim())
    process.stderr.write(`${lines.join('\n')}\n`)
    return null
  }
}
