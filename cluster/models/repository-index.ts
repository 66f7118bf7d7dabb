/** The repository index: known versions, other entries of the repository, and their problems. */
import type { IndexEntry } from '../../src/api/schemas.js'
import type { RepositoryScan } from '../../src/repository/repository.js'

export function versionKey({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name}@${version}`
}

/**
 * Creates one entry per version. A problem of a version precedes the other reasons in its entry. A problem of
 * a whole entry appears in each known version, or in an entry without a version. The state is that of the
 * served generation.
 */
export function mergeIndex(
  known: readonly IndexEntry[],
  { sources, problems }: RepositoryScan,
): IndexEntry[] {
  const entries = new Map(known.map((entry) => [versionKey(entry), entry]))
  const keys = new Set(entries.keys())
  const unavailable = { state: 'UNAVAILABLE' as const, reason: '' }
  for (const { name, version } of sources)
    if (!keys.has(versionKey({ name, version })))
      entries.set(versionKey({ name, version }), { name, version, ...unavailable, reason: 'not loaded' })
  const reasons = new Map<string, string[]>()
  for (const { name, version, reason } of problems) {
    const ofName = known.filter((entry) => entry.name === name).map((entry) => entry.version)
    for (const one of version !== null ? [version] : ofName.length > 0 ? ofName : ['']) {
      const key = versionKey({ name, version: one })
      if (!entries.has(key)) entries.set(key, { name, version: one, ...unavailable })
      reasons.set(key, [...(reasons.get(key) ?? []), reason])
    }
  }
  return [...entries]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, entry]) => {
      const all = [...(reasons.get(key) ?? []), entry.reason].filter((reason) => reason !== '')
      return { ...entry, reason: [...new Set(all)].join('; ') }
    })
}
