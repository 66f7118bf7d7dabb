/** Server liveness, readiness and metadata: the core of the Open Inference Protocol V2. */
import type Router from '@koa/router'
import type { HttpContext } from '../context.js'

/** Only what is implemented, and on this port, stands here. */
const EXTENSIONS = [
  'binary_tensor_data',
  'classification',
  'model_configuration',
  'parameters',
  'schedule_policy',
  'statistics',
]

export interface ServerIdentity {
  readonly name: string
  readonly version: string
}

export function healthRoutes(
  router: Router,
  context: Pick<HttpContext, 'isReady' | 'regions'>,
  server: ServerIdentity,
): void {
  const extensions = [...EXTENSIONS, ...(context.regions === null ? [] : ['system_shared_memory'])]
  router.get('/v2', (ctx) => {
    ctx.body = { name: server.name, version: server.version, extensions }
  })
  router.get('/v2/health/live', (ctx) => {
    ctx.body = { live: true }
  })
  router.get('/v2/health/ready', (ctx) => {
    const ready = context.isReady()
    ctx.status = ready ? 200 : 503
    if (!ready) ctx.set('Retry-After', '1')
    ctx.body = ready ? { live: true, ready } : { live: true, ready, error: 'the server is not ready' }
  })
}
