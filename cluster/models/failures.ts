/** Several failures in one error. */
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { ModelSource, RepositoryProblem } from '../../src/repository/repository.js'

/** A model version that could not be published at the start. */
export interface FailedModel {
  readonly source: ModelSource
  readonly failure: unknown
}

export function problemError({ code, reason }: RepositoryProblem): OnecopyError {
  return new OnecopyError(code, reason)
}

/** One failure as it is; several in one text, each with its code, under the code of the first. */
export function allInOne(failures: readonly unknown[]): unknown {
  // One config can be the problem of many versions.
  const unlike = [...new Map(failures.map((failure) => [messageOf(failure), failure])).values()]
  const [first] = unlike
  if (unlike.length === 1) return first
  const texts = unlike.map((failure, i) => {
    const code = failure instanceof OnecopyError ? `${failure.code}: ` : ''
    return `(${i + 1}) ${code}${messageOf(failure)}`
  })
  return new OnecopyError(
    first instanceof OnecopyError ? first.code : 'INTERNAL',
    `${unlike.length} problems: ${texts.join('; ')}`,
  )
}
