/** The Koa application of a serving process. */
import Router from '@koa/router'
import Koa from 'koa'
import { messageOf } from '../errors.js'
import { compressResponses } from './compression.js'
import { keptConnections } from './connections.js'
import type { HttpContext } from './context.js'
import { innerDefences, outerDefences } from './defences.js'
import { errorResponses } from './error-response.js'
import { checkHeaders } from './http-server.js'
import { observed } from './observe/observed.js'
import { requestLog } from './request-log.js'
import { documentationRoutes } from './routes/documentation.js'
import { healthRoutes, type ServerIdentity } from './routes/health.js'
import { inferRoutes } from './routes/infer.js'
import { modelRoutes } from './routes/models.js'
import { sharedMemoryRoutes } from './routes/shared-memory.js'
import { statisticsRoutes } from './routes/statistics.js'
import { openAiRoutes } from './routes/text/openai.js'
import { textErrorBodies } from './routes/text/shared.js'
import { textRoutes } from './routes/text/text-routes.js'

/** Every route of the public port. */
export function publicRouter(context: HttpContext, server: ServerIdentity): Router {
  const router = new Router()
  healthRoutes(router, context, server)
  statisticsRoutes(router, context)
  modelRoutes(router, context)
  inferRoutes(router, context)
  openAiRoutes(router, context)
  textRoutes(router, context, server)
  if (context.regions !== null) sharedMemoryRoutes(router, context.regions, context.defences.corsOrigins)
  if (context.hasDocs) {
    const { hasBundle } = context
    documentationRoutes(router, { port: 'public', version: server.version, hasBundle })
  }
  return router
}

/** `addRoutes` brings the routes of rooms that this one does not know. */
export function createApp(
  context: HttpContext,
  server: ServerIdentity,
  addRoutes: (router: Router) => void = () => {},
): Koa {
  const app = new Koa()
  const router = publicRouter(context, server)
  addRoutes(router)
  app.use(keptConnections(context))
  for (const middleware of outerDefences(context.defences)) app.use(middleware)
  app.use(requestLog(context))
  for (const middleware of observed(context.observation, context.log)) app.use(middleware)
  app.use(errorResponses(context))
  app.use(textErrorBodies)
  app.use(checkHeaders)
  for (const middleware of innerDefences(context.defences, context.unknownModel)) app.use(middleware)
  app.use(compressResponses)
  app.use(router.routes())
  app.use(router.allowedMethods())
  // Koa would print what reaches it; all that can be thrown was answered above.
  app.on('error', (thrown, ctx) =>
    context.log.debug({ path: ctx?.path, reason: messageOf(thrown) }, 'connection error'),
  )
  return app
}
