/** Combines failures into one error. */
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { ModelSource, RepositoryProblem } from '../../src/repository/repository.js'

/** A model version that could not be published at startup. */
export interface FailedModel {
  readonly source: ModelSource
  readonly failure: unknown
}

export function problemError({ code, reason }: RepositoryProblem): OnecopyError {
  return new OnecopyError(code, reason)
}

/**
 * A single failure stays as it is. Several become one error with the code of the first and the text of all.
 */
export function combineFailures(failures: readonly unknown[]): unknown {
  // One invalid config can affect many versions.
  const distinct = [...new Map(failures.map((failure) => [messageOf(failure), failure])).values()]
  const [first] = distinct
  if (distinct.length === 1) return first
  const texts = distinct.map((failure, i) => {
    const code = failure instanceof OnecopyError ? `${failure.code}: ` : ''
    return `(${i + 1}) ${code}${messageOf(failure)}`
  })
  return new OnecopyError(
    first instanceof OnecopyError ? first.code : 'INTERNAL',
    `${distinct.length} problems: ${texts.join('; ')}`,
  )
}
