/**
 * The repository extension on the admin port: what is served and why not, and, where models are under
 * explicit control, load and unload. Source: Triton's model repository extension.
 */
import type Router from '@koa/router'
import type { Middleware } from 'koa'
import { z } from 'zod'
import { OnecopyError } from '../src/errors.js'
import { readJson } from '../src/http/json-body.js'
import type { IndexEntry } from './catalogue.js'

const IndexRequestSchema = z.object({ ready: z.boolean().optional() })
/** A model is loaded as it stands in the repository: one that comes with the request is not silently left out. */
const LoadRequestSchema = z.object({
  parameters: z
    .record(z.string(), z.unknown())
    .refine(
      (parameters) => !Object.keys(parameters).some((key) => key === 'config' || key.startsWith('file:')),
      'expected no config and no files: models are loaded from the repository as they are',
    )
    .optional(),
})
/** Such as `unload_dependents`: there are none. */
const UnloadRequestSchema = z.object({ parameters: z.record(z.string(), z.unknown()).optional() })

export interface RepositoryApi {
  readonly isExplicit: boolean
  index(): Promise<IndexEntry[]>
  load(name: string): Promise<void>
  unload(name: string): Promise<void>
}

export function repositoryRoutes(
  router: Router,
  { repository, guard }: { readonly repository: RepositoryApi; readonly guard: Middleware },
): void {
  router.post('/v2/repository/index', guard, async (ctx) => {
    const { ready } = await readJson(ctx, IndexRequestSchema)
    const index = await repository.index()
    ctx.body = ready === true ? index.filter(({ state }) => state === 'READY') : index
  })
  for (const [action, schema] of [
    ['load', LoadRequestSchema],
    ['unload', UnloadRequestSchema],
  ] as const) {
    router.post(`/v2/repository/models/:model/${action}`, guard, async (ctx) => {
      await readJson(ctx, schema)
      if (!repository.isExplicit) {
        throw new OnecopyError(
          'CONTROL_MODE',
          `${action} needs --model-control explicit: models follow the repository otherwise`,
        )
      }
      await repository[action]((ctx.params as { model: string }).model)
      ctx.status = 200
      ctx.body = ''
    })
  }
}
