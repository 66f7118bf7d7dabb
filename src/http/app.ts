/** The Koa application of a serving process. */
import Router from '@koa/router'
import Koa from 'koa'
import { messageOf } from '../errors.js'
import { requireScope } from './authentication.js'
import { compressResponses } from './compression.js'
import { keptConnections } from './connections.js'
import type { HttpContext } from './context.js'
import { guardAgainstPages } from './cross-origin.js'
import { innerDefences, outerDefences } from './defences.js'
import { errorResponses } from './error-response.js'
import { checkHeaders } from './http-server.js'
import { plainJsonType } from './json-type.js'
import { observed } from './observe/observed.js'
import { requestLog } from './request-log.js'
import { cudaSharedMemoryRoutes } from './routes/cuda-shared-memory.js'
import { documentationRoutes } from './routes/documentation.js'
import { healthRoutes, type ServerIdentity } from './routes/health.js'
import { inferRoutes } from './routes/infer.js'
import { modelRoutes } from './routes/models.js'
import { repositoryRoutes } from './routes/repository.js'
import { settingsRoutes } from './routes/settings.js'
import { sharedMemoryRoutes } from './routes/shared-memory.js'
import { statisticsRoutes } from './routes/statistics.js'
import { openAiRoutes } from './routes/text/openai.js'
import { textErrorBodies } from './routes/text/shared.js'
import { textRoutes } from './routes/text/text-routes.js'

/** Routes that change the server, which require the scope `admin`. */
function controlRoutes(router: Router, context: HttpContext): void {
  const { models, log, control, localFolders, defences, observation } = context
  const guard = [
    guardAgainstPages(context.hostPolicy, defences.keyring),
    requireScope(defences.keyring, 'admin'),
  ]
  settingsRoutes(router, { models, log, isTracing: observation.tracing !== null, control, guard })
  if (control !== null) repositoryRoutes(router, { repository: control, guard, localFolders })
}

/** Every route of the public port. */
export function publicRouter(context: HttpContext, server: ServerIdentity): Router {
  const router = new Router()
  healthRoutes(router, context, server)
  statisticsRoutes(router, context)
  modelRoutes(router, context)
  inferRoutes(router, context)
  openAiRoutes(router, context)
  textRoutes(router, context, server)
  if (context.regions !== null) {
    const { corsOrigins } = context.defences
    sharedMemoryRoutes(router, context.regions, corsOrigins)
    cudaSharedMemoryRoutes(router, corsOrigins)
  }
  controlRoutes(router, context)
  if (context.hasDocs) {
    documentationRoutes(router, {
      port: 'public',
      version: server.version,
      hasBundle: context.hasBundle,
      hasSharedMemory: context.regions !== null,
      hasRepository: context.control !== null,
    })
  }
  return router
}

/** The routes of nearly all requests, matched before all others; `publicRouter` answers other methods. */
function inferRouter(context: HttpContext): Router {
  const router = new Router()
  inferRoutes(router, context)
  return router
}

/** `addRoutes` adds the routes of modules that this one does not import. */
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
  app.use(plainJsonType)
  app.use(errorResponses(context))
  app.use(textErrorBodies)
  app.use(checkHeaders)
  for (const middleware of innerDefences(context.defences, context.unknownModel)) app.use(middleware)
  app.use(compressResponses)
  app.use(inferRouter(context).routes())
  app.use(router.routes())
  app.use(router.allowedMethods())
  // Koa would print errors that reach it; all errors were answered above.
  app.on('error', (thrown, ctx) =>
    context.log.debug({ path: ctx?.path, reason: messageOf(thrown) }, 'connection error'),
  )
  return app
}
