/**
 * Registration of shared memory with the tensors of clients. Source: Triton's system shared memory extension.
 */
import type Router from '@koa/router'
import type { Context, Next } from 'koa'
import { type SharedMemoryRegion, sharedMemoryRequestSchema } from '../../api/schemas.js'
import { OnecopyError } from '../../errors.js'
import type { Region, Regions } from '../../regions/regions.js'
import { requireSameOrigin } from '../cross-origin.js'
import { readJson } from '../json-body.js'

const PATH = '/v2/systemsharedmemory'

function describe({ name, key, offsetBytes, bytes }: Region): SharedMemoryRegion {
  return { name, key, offset: offsetBytes, byte_size: bytes }
}

function nameOf(ctx: Context): string {
  return (ctx.params as { region: string }).region
}

/** An empty 200, as clients expect. */
function done(ctx: Context): void {
  ctx.status = 200
  ctx.body = ''
}

/** `corsOrigins` are the web pages that may change what is registered. */
export function sharedMemoryRoutes(router: Router, regions: Regions, corsOrigins: readonly string[]): void {
  const guard = async (ctx: Context, next: Next): Promise<void> => {
    requireSameOrigin(ctx, corsOrigins)
    await next()
  }
  router.get(`${PATH}/status`, (ctx) => {
    ctx.body = regions.list().map(describe)
  })
  router.get(`${PATH}/region/:region/status`, (ctx) => {
    const region = regions.find(nameOf(ctx))
    if (region === null) {
      throw new OnecopyError('REGION_NOT_FOUND', `no shared memory region ${JSON.stringify(nameOf(ctx))}`)
    }
    ctx.body = [describe(region)]
  })
  router.post(`${PATH}/region/:region/register`, guard, async (ctx) => {
    const { key, offset, byte_size: bytes } = await readJson(ctx, sharedMemoryRequestSchema)
    regions.register({ name: nameOf(ctx), key, offsetBytes: offset ?? 0, bytes })
    done(ctx)
  })
  router.post(`${PATH}/unregister`, guard, (ctx) => {
    regions.unregister(null)
    done(ctx)
  })
  router.post(`${PATH}/region/:region/unregister`, guard, (ctx) => {
    regions.unregister(nameOf(ctx))
    done(ctx)
  })
}
