/**
 * Problems of the repository across scans. Logs each when it appears, changes or disappears, and counts them.
 */
import type { Log } from '../../src/log.js'
import type { RepositoryProblem } from '../../src/repository/repository.js'
import { versionKey } from './repository-index.js'
import { Stability } from './stability.js'

interface Group {
  readonly name: string
  readonly version: string | null
  readonly code: string
  readonly reason: string
}

/** Merges the problems of a version, or of a whole entry, into one text. */
function grouped(problems: readonly RepositoryProblem[]): Map<string, Group> {
  const groups = new Map<string, Group>()
  for (const { name, version, code, reason } of problems) {
    const key = versionKey({ name, version: version ?? '' })
    const before = groups.get(key)
    groups.set(key, {
      ...{ name, version, code },
      reason: before === undefined ? reason : `${before.reason}; ${reason}`,
    })
  }
  return groups
}

export class RepositoryProblems {
  readonly #log: Log
  readonly #stability = new Stability()
  readonly #logged = new Map<string, Group>()
  #current: ReadonlyMap<string, Group> = new Map()

  constructor(log: Log) {
    this.#log = log
  }

  /** Keys of the last scan: `NAME@VERSION`, or `NAME@` for a whole entry. */
  get keys(): string[] {
    return [...this.#current.keys()]
  }

  /**
   * Records the problems of a scan. With `isPatient`, a problem is logged only after it has persisted for a
   * while: a model that is still being copied is incomplete.
   */
  take(problems: readonly RepositoryProblem[], { isPatient }: { readonly isPatient: boolean }): void {
    this.#current = grouped(problems)
    for (const [key, group] of this.#current) {
      const isSettled = this.#stability.isStable(key, group.reason) || !isPatient
      if (!isSettled || this.#logged.get(key)?.reason === group.reason) continue
      this.#logged.set(key, group)
      this.#log.error(factsOf(group), 'a repository entry is invalid')
    }
    for (const [key, group] of this.#logged) {
      if (this.#current.has(key)) continue
      this.#logged.delete(key)
      const { reason: _, ...facts } = factsOf(group)
      this.#log.info(facts, 'a repository entry is valid again')
    }
    this.#stability.keep(new Set(this.#current.keys()))
  }

  /** Whether there is a problem that has not persisted long enough: of this model, or of any. */
  isPending(name?: string): boolean {
    return [...this.#current].some(
      ([key, group]) =>
        (name === undefined || group.name === name) && this.#logged.get(key)?.reason !== group.reason,
    )
  }
}

function factsOf({ name, version, code, reason }: Group) {
  return { model: name, ...(version === null ? {} : { version }), code, reason }
}
