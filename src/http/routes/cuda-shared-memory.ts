/**
 * Triton's CUDA shared memory extension on a server without a GPU: clients that use system shared memory
 * first unregister CUDA regions, and stop if that fails.
 */
import type Router from '@koa/router'
import type { Context, Next } from 'koa'
import { OnecopyError } from '../../errors.js'
import { requireSameOrigin } from '../cross-origin.js'

const PATH = '/v2/cudasharedmemory'

/** `corsOrigins` are the web pages that may change what is registered. */
export function cudaSharedMemoryRoutes(router: Router, corsOrigins: readonly string[]): void {
  const guard = async (ctx: Context, next: Next): Promise<void> => {
    requireSameOrigin(ctx, corsOrigins)
    await next()
  }
  const unregister = (ctx: Context) => {
    ctx.status = 200
    ctx.body = ''
  }
  router.get(`${PATH}/status`, (ctx) => {
    ctx.body = []
  })
  router.get(`${PATH}/region/:region/status`, (ctx) => {
    const { region } = ctx.params as { region: string }
    throw new OnecopyError('REGION_NOT_FOUND', `no CUDA shared memory region ${JSON.stringify(region)}`)
  })
  router.post(`${PATH}/region/:region/register`, guard, () => {
    throw new OnecopyError(
      'REQUEST_INVALID',
      'CUDA shared memory is not supported on this server: expected a region of system shared memory',
    )
  })
  router.post(`${PATH}/unregister`, guard, unregister)
  router.post(`${PATH}/region/:region/unregister`, guard, unregister)
}
