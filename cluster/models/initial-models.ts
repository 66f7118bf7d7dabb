/**
 * Publishes the models that a server starts with. Fails the start if one cannot be served and all are
 * required.
 */
import type { PublishedModel } from '../../src/compile/publish.js'
import type { RepositoryProblem } from '../../src/repository/repository.js'
import type { Leftover } from '../../src/segment/adopt.js'
import type { ServerFolder } from '../../src/segment/folder.js'
import type { InitialModels } from './bundles.js'
import type { Catalogue } from './catalogue.js'
import { combineFailures, type FailedModel, problemError } from './failures.js'
import type { Publisher } from './publisher.js'
import type { RepositoryControl } from './repository-control.js'

export interface InitialModelsOptions {
  readonly publisher: Publisher
  readonly server: ServerFolder
  readonly leftovers: readonly Leftover[]
  readonly repository: RepositoryControl
  readonly catalogue: Catalogue
  /** Workers can start, and no failure so far fails the start. May be called several times. */
  readonly onRoomForWorkers: () => void
}

/**
 * Fails the start if anything cannot be served.
 * @throws OnecopyError with all problems and failures; everything published is closed.
 */
async function throwFailures(
  published: readonly PublishedModel[],
  { problems, failed }: { problems: readonly RepositoryProblem[]; failed: readonly FailedModel[] },
): Promise<void> {
  const failures = [...problems.map(problemError), ...failed.map(({ failure }) => failure)]
  if (failures.length === 0) return
  for (const { image } of published) await image?.close()
  throw combineFailures(failures)
}

/**
 * Publishes the initial models and registers them in the catalogue. All are tried before the start fails, so
 * that one error names every problem and the compiled models are cached.
 * @throws OnecopyError of Publisher.publishAll, or with all problems if they are not tolerated.
 */
export async function publishInitialModels(
  { sources, problems, otherProblems, isTolerant }: InitialModels,
  { publisher, server, leftovers, repository, catalogue, onRoomForWorkers }: InitialModelsOptions,
): Promise<void> {
  await repository.initialize({ sources, problems: [...problems, ...otherProblems] })
  const failed: FailedModel[] = []
  const published = await publisher.publishAll(sources, server, {
    leftovers,
    onFailed: (source, failure) => failed.push({ source, failure }),
    onRoomForWorkers: () => {
      if (isTolerant || problems.length + failed.length === 0) onRoomForWorkers()
    },
  })
  if (!isTolerant) await throwFailures(published, { problems, failed })
  await catalogue.initialize(published, failed)
  for (const { source } of failed) repository.noteFailed(source)
}
