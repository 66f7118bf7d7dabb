/** Server liveness, readiness and metadata: the core of the Open Inference Protocol V2. */
import type Router from '@koa/router'
import type { Extension, ServerLive, ServerMetadata, ServerReadiness } from '../../api/schemas.js'
import type { HttpContext } from '../context.js'

/** Lists only extensions that are implemented and on this port. */
const EXTENSIONS: Extension[] = [
  'binary_tensor_data',
  'classification',
  'logging',
  'model_configuration',
  'parameters',
  'schedule_policy',
  'statistics',
  'trace',
]

export interface ServerIdentity {
  readonly name: string
  readonly version: string
}

export function extensionsOf({ control, regions }: Pick<HttpContext, 'control' | 'regions'>): Extension[] {
  return [
    ...EXTENSIONS,
    ...(control === null ? [] : ['model_repository' as const]),
    ...(regions === null ? [] : ['system_shared_memory' as const]),
  ]
}

export function healthRoutes(
  router: Router,
  context: Pick<HttpContext, 'isReady' | 'regions' | 'control'>,
  server: ServerIdentity,
): void {
  const extensions = extensionsOf(context)
  router.get('/v2', (ctx) => {
    ctx.body = {
      name: server.name,
      version: server.version,
      extensions,
    } satisfies ServerMetadata
  })
  router.get('/v2/health/live', (ctx) => {
    ctx.body = { live: true } satisfies ServerLive
  })
  router.get('/v2/health/ready', (ctx) => {
    const ready = context.isReady()
    ctx.status = ready ? 200 : 503
    if (!ready) ctx.set('Retry-After', '1')
    const answer: ServerReadiness = ready
      ? { live: true, ready }
      : { live: true, ready, error: 'the server is not ready' }
    ctx.body = answer
  })
}
