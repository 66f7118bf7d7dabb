/**
 * Triton's model repository extension on the admin port: the index, and load and unload under explicit model
 * control.
 */
import type Router from '@koa/router'
import type { Middleware } from 'koa'
import {
  type IndexEntry,
  indexRequestSchema,
  loadRequestSchema,
  unloadRequestSchema,
} from '../../src/api/schemas.js'
import { OnecopyError } from '../../src/errors.js'
import { readJson } from '../../src/http/json-body.js'
import { publicText } from '../../src/http/public-text.js'

export interface RepositoryApi {
  readonly isExplicit: boolean
  index(): Promise<IndexEntry[]>
  load(name: string): Promise<void>
  unload(name: string): Promise<void>
}

/**
 * The repository API of a server that may not be ready yet.
 * @throws OnecopyError MODEL_NOT_READY from every method until the server is ready.
 */
export function repositoryApiOf(
  current: () => Omit<RepositoryApi, 'isExplicit'> | undefined,
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
    load: async (name) => await repository().load(name),
    unload: async (name) => await repository().unload(name),
  }
}

export function repositoryRoutes(
  router: Router,
  {
    repository,
    guard,
    localFolders,
  }: {
    readonly repository: RepositoryApi
    readonly guard: Middleware
    /** Folders of this server, to be removed from responses. */
    readonly localFolders: readonly string[]
  },
): void {
  router.post('/v2/repository/index', guard, async (ctx) => {
    const { ready } = await readJson(ctx, indexRequestSchema)
    const entries = await repository.index()
    const index = entries.map((entry) => ({ ...entry, reason: publicText(entry.reason, localFolders) }))
    ctx.body = ready === true ? index.filter(({ state }) => state === 'READY') : index
  })
  for (const [action, schema] of [
    ['load', loadRequestSchema],
    ['unload', unloadRequestSchema],
  ] as const) {
    router.post(`/v2/repository/models/:model/${action}`, guard, async (ctx) => {
      await readJson(ctx, schema)
      if (!repository.isExplicit) {
        throw new OnecopyError('CONTROL_MODE', `${action} requires --model-control explicit`)
      }
      await repository[action]((ctx.params as { model: string }).model)
      ctx.status = 200
      ctx.body = ''
    })
  }
}
