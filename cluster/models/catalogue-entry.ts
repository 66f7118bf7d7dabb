/** The catalogue's record of a model version. */
import type { IndexEntry, ModelState } from '../../src/api/schemas.js'
import type { Generation } from './generation.js'

export interface Entry {
  readonly name: string
  readonly version: string
  state: ModelState
  reason: string
  serving: Generation | null
  /** Number of shared-memory folders created so far. */
  folders: number
}

/** Number of generations of a model version in memory. */
export interface GenerationCount {
  readonly name: string
  readonly version: string
  readonly generations: number
}

export function entryKey({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name}@${version}`
}

export function newEntry(name: string, version: string): Entry {
  return { name, version, state: 'LOADING', reason: '', serving: null, folders: 0 }
}

/** The entry for the repository index; `keeps` is the number of earlier generations in memory. */
export function describeEntry(
  { name, version, state, reason }: Pick<Entry, 'name' | 'version' | 'state' | 'reason'>,
  { keeps }: { readonly keeps: number },
): IndexEntry {
  const isKept = state !== 'UNLOADING' && keeps > 0
  const kept = isKept ? 'an earlier generation still has requests in flight' : ''
  return { name, version, state, reason: [reason, kept].filter((part) => part !== '').join('; ') }
}
