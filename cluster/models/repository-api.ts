/**
 * The repository extension, answered by the primary from the catalogue and the model repository.
 */
import type { IndexEntry } from '../../src/api/schemas.js'
import type { RepositoryApi } from '../../src/api/server-control.js'
import { OnecopyError } from '../../src/errors.js'

/** The examples of Triton's clients match this prefix of the message. */
function failedToLoad(name: string, thrown: unknown): unknown {
  if (!(thrown instanceof OnecopyError) || thrown.code === 'MODEL_NOT_READY') return thrown
  const { code, headers, message } = thrown
  return new OnecopyError(code, `failed to load '${name}': ${message}`, { headers, cause: thrown })
}

interface Repository {
  index(): Promise<IndexEntry[]>
  load(name: string, config: string | null): Promise<void>
  unload(name: string): Promise<void>
}

/**
 * The repository API of a server that may not be ready yet.
 * @throws OnecopyError MODEL_NOT_READY from every method until the server is ready.
 */
export function repositoryApiOf(
  current: () => Repository | undefined,
  { isExplicit, serverState }: { readonly isExplicit: boolean; readonly serverState: () => string },
): RepositoryApi {
  const repository = () => {
    const found = current()
    if (found !== undefined) return found
    throw new OnecopyError('MODEL_NOT_READY', `the server is ${serverState()}`, { retryAfterSeconds: 1 })
  }
  return {
    isExplicit,
    index: async () => await repository().index(),
    load: async (name, config) => {
      try {
        await repository().load(name, config)
      } catch (thrown) {
        throw failedToLoad(name, thrown)
      }
    },
    unload: async (name) => await repository().unload(name),
  }
}
