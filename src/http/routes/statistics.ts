/**
 * Statistics of models, over all processes of the server. Source: Triton's statistics extension.
 */
import type Router from '@koa/router'
import { versionsOf } from '../../inference/model-facts.js'
import type { ServedModel } from '../../inference/service.js'
import type { HttpContext } from '../context.js'
import { modelOf, onModel } from './models.js'

type Context = Pick<HttpContext, 'models'>

export function modelStatistics(model: ServedModel) {
  const { name, version, segmentBytes } = model
  return {
    name,
    version,
    ...model.statistics(),
    memory_usage: [{ type: 'CPU', id: 0, byte_size: segmentBytes }],
  }
}

/** Registered before the routes of models, which would match `stats` as a model name. */
export function statisticsRoutes(router: Router, context: Context): void {
  router.get('/v2/models/stats', (ctx) => {
    const models = context.models.names().flatMap((name) => versionsOf(context.models, name))
    ctx.body = { model_stats: models.map(modelStatistics) }
  })
  onModel(router, 'get', '/stats', (ctx) => {
    const model = modelOf(ctx, context)
    const isOne = (ctx.params as { version?: string }).version !== undefined
    const models = isOne ? [model] : versionsOf(context.models, model.name)
    ctx.body = { model_stats: models.map(modelStatistics) }
  })
}
