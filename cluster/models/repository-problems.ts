/** The problems of a repository from look to look: said in the log when they come, change or go, and counted. */
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

/** What is wrong with one version, or with a whole entry, in one text. */
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
  readonly #said = new Map<string, Group>()
  #current: ReadonlyMap<string, Group> = new Map()

  constructor(log: Log) {
    this.#log = log
  }

  /** As of the last look: `NAME@VERSION`, `NAME@` for a whole entry. */
  get keys(): string[] {
    return [...this.#current.keys()]
  }

  /**
   * Takes what a look found. With `isPatient` it is said once it has been so for a while: a model that is being copied has a
   * problem until it is whole.
   */
  take(problems: readonly RepositoryProblem[], { isPatient }: { readonly isPatient: boolean }): void {
    this.#current = grouped(problems)
    for (const [key, group] of this.#current) {
      const isSettled = this.#stability.isStable(key, group.reason) || !isPatient
      if (!isSettled || this.#said.get(key)?.reason === group.reason) continue
      this.#said.set(key, group)
      this.#log.error(factsOf(group), 'an entry of the repository cannot be served as it stands')
    }
    for (const [key, group] of this.#said) {
      if (this.#current.has(key)) continue
      this.#said.delete(key)
      const { reason: _, ...facts } = factsOf(group)
      this.#log.info(facts, 'an entry of the repository has no problem any more')
    }
    this.#stability.keep(new Set(this.#current.keys()))
  }

  /** Whether there is any that has not been so for a while: of these models, or of all. */
  isPending(name?: string): boolean {
    return [...this.#current].some(
      ([key, group]) =>
        (name === undefined || group.name === name) && this.#said.get(key)?.reason !== group.reason,
    )
  }
}

function factsOf({ name, version, code, reason }: Group) {
  return { model: name, ...(version === null ? {} : { version }), code, reason }
}
