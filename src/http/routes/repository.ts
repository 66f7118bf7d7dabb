/**
 * The repository extension: the index with reasons, and load and unload under explicit model control.
 * Source: Triton's model repository extension.
 */
import type Router from '@koa/router'
import type { Context, Middleware } from 'koa'
import { indexRequestSchema, loadRequestSchema, unloadRequestSchema } from '../../api/schemas.js'
import type { RepositoryApi } from '../../api/server-control.js'
import { OnecopyError } from '../../errors.js'
import { readJson } from '../json-body.js'
import { publicText } from '../public-text.js'

export interface RepositoryRoutesOptions {
  readonly repository: RepositoryApi
  readonly guard: readonly Middleware[]
  /** Folders of this server that no response may contain. */
  readonly localFolders: readonly string[]
}

/** @throws OnecopyError CONTROL_MODE unless models are under explicit control. */
export function requireExplicit({ isExplicit }: RepositoryApi, action: string): void {
  if (isExplicit) return
  throw new OnecopyError(
    'CONTROL_MODE',
    `${action} needs --model-control explicit: models follow the repository otherwise`,
  )
}

/** A body with a model is large: the error should name the model, not the size. */
async function readLoadRequest(ctx: Context) {
  try {
    return await readJson(ctx, loadRequestSchema)
  } catch (thrown) {
    if (!(thrown instanceof OnecopyError) || thrown.code !== 'BODY_TOO_LARGE') throw thrown
    const { headers } = thrown
    throw new OnecopyError(
      'REQUEST_INVALID',
      `${thrown.message}: models are loaded from the repository, files in the request are not taken`,
      { headers },
    )
  }
}

export function repositoryRoutes(
  router: Router,
  { repository, guard, localFolders }: RepositoryRoutesOptions,
): void {
  const post = (path: string, handler: (ctx: Context, model: string) => Promise<unknown>) => {
    router.post(path, ...guard, async (ctx: Context) => {
      const body = await handler(ctx, (ctx.params as { model?: string }).model ?? '')
      ctx.status = 200
      ctx.body = body ?? ''
    })
  }
  post('/v2/repository/index', async (ctx) => {
    const { ready } = await readJson(ctx, indexRequestSchema)
    const entries = await repository.index()
    const index = entries.map((entry) => ({ ...entry, reason: publicText(entry.reason, localFolders) }))
    return ready === true ? index.filter(({ state }) => state === 'READY') : index
  })
  post('/v2/repository/models/:model/load', async (ctx, model) => {
    const { parameters } = await readLoadRequest(ctx)
    requireExplicit(repository, 'load')
    await repository.load(model, parameters?.config ?? null)
  })
  post('/v2/repository/models/:model/unload', async (ctx, model) => {
    await readJson(ctx, unloadRequestSchema)
    requireExplicit(repository, 'unload')
    await repository.unload(model)
  })
}
