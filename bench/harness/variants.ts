/** Every server that the benches compare: how to start it, and why it cannot be started. */
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
  /** Why it cannot be started on this machine; null if it can. */
  readonly missing: string | null
  readonly encodings: readonly Encoding[]
  /** Whether the worker behind a connection can be identified, so that each can be reached. */
  readonly hasKnownWorkers: boolean
  start(options: StartOptions): Promise<RunningServer>
}

export interface StartOptions extends ServerOptions {
  readonly model: ServerOptions['model'] & { readonly name: string; readonly path: string }
  /** Dead workers are replaced, as in production. Otherwise a variant ends when it loses one. */
  readonly isSupervised?: boolean
}

/** Means all installed peers. */
const PEERS = 'peers'

/** Does not check whether they are installed. */
export function variantNames(): string[] {
  const node = ['onecopy', 'plain-koa', 'pm2-koa', 'thread-pool', 'reload-per-request', 'process-per-request']
  return [...node, ...peerNames(), PEERS]
}

/** The variants option of a bench; rejects unknown names. */
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
      throw new Error(`expected names from ${variantNames().join(', ')}, got ${JSON.stringify(unknown)}`)
    },
  }
}

const OURS = { missing: null, encodings: ['json', 'binary'], hasKnownWorkers: true } as const

/** pm2 in the project folder or on the PATH. It is not a dependency, because it has 25 MB and the AGPL. */
function findPm2(): string | null {
  const folders = [join(PACKAGE_ROOT, 'node_modules', '.bin'), ...(process.env.PATH ?? '').split(delimiter)]
  return folders.map((folder) => join(folder, 'pm2-runtime')).find((path) => existsSync(path)) ?? null
}

/** All variants, including those that cannot be started. */
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
  /** onecopy first, if selected. */
  readonly variants: readonly Variant[]
  /** Notes for the report: what is left out, and why. */
  readonly notes: string[]
}

/** Selects variants. Those that cannot be started are left out, with a note. */
export function chooseVariants(names: readonly string[], encoding?: Encoding): Chosen {
  const all = allVariants()
  const wanted = names.flatMap((name) => (name === PEERS ? peerNames() : [name]))
  const chosen = all.filter(({ name }) => wanted.includes(name))
  const reasonOf = ({ missing, encodings }: Variant) =>
    missing ??
    (encoding === undefined || encodings.includes(encoding)
      ? null
      : `it does not support ${encoding} tensors`)
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

/**
 * A peer that fails to start is left out with a note: the installation of a peer is not part of the project.
 */
export async function startOrSkip<Result>(
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
