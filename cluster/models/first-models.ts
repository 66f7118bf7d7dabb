/** The models that a server begins with: published, and the start refused where that is not possible and not tolerated. */
import type { PublishedModel } from '../../src/compile/publish.js'
import type { RepositoryProblem } from '../../src/repository/repository.js'
import type { Leftover } from '../../src/segment/adopt.js'
import type { ServerFolder } from '../../src/segment/folder.js'
import type { Beginning } from './bundles.js'
import type { Catalogue } from './catalogue.js'
import { allInOne, type FailedModel, problemError } from './failures.js'
import type { Publisher } from './publisher.js'
import type { RepositoryControl } from './repository-control.js'

export interface FirstModelsOptions {
  readonly publisher: Publisher
  readonly server: ServerFolder
  readonly leftovers: readonly Leftover[]
  readonly repository: RepositoryControl
  readonly catalogue: Catalogue
  /** Nothing compiles any more, and the start is not refused: as far as is known by then. */
  readonly onAllCompiled: () => void
}

/**
 * Holds a start to serving everything that it was asked for.
 * @throws every problem and every failure in one error; nothing that was published stays open then.
 */
async function refuseFailures(
  published: readonly PublishedModel[],
  { problems, failed }: { problems: readonly RepositoryProblem[]; failed: readonly FailedModel[] },
): Promise<void> {
  const failures = [...problems.map(problemError), ...failed.map(({ failure }) => failure)]
  if (failures.length === 0) return
  for (const { image } of published) await image?.close()
  throw allInOne(failures)
}

/**
 * Publishes what a server begins with and hands it to the catalogue. All of it is tried before a start is refused: who mends
 * the repository wants to know of everything at once, and what is compiled by then is in the cache.
 * @throws OnecopyError of Publisher.publishAll; every problem in one where they are not tolerated.
 */
export async function publishFirst(
  { sources, problems, otherProblems, isTolerant }: Beginning,
  { publisher, server, leftovers, repository, catalogue, onAllCompiled }: FirstModelsOptions,
): Promise<void> {
  await repository.begin({ sources, problems: [...problems, ...otherProblems] })
  const failed: FailedModel[] = []
  const published = await publisher.publishAll(sources, server, {
    leftovers,
    onFailed: (source, failure) => failed.push({ source, failure }),
    onAllCompiled: () => {
      if (isTolerant || problems.length + failed.length === 0) onAllCompiled()
    },
  })
  if (!isTolerant) await refuseFailures(published, { problems, failed })
  await catalogue.begin(published, failed)
  for (const { source } of failed) repository.noteFailed(source)
}
