/** Request ids, and one log line per request at level debug. */
import { randomUUID } from 'node:crypto'
import type { Context, Next } from 'koa'
import type { HttpContext } from './context.js'
import type { RequestState } from './request-state.js'

/** Ids of clients are accepted if they are safe in a log line and a header. */
const REQUEST_ID_PATTERN = /^[A-Za-z0-9._:/+=-]{1,128}$/

export function requestLog({ log, observation }: Pick<HttpContext, 'log' | 'observation'>) {
  const logRequest = async (ctx: Context, next: Next): Promise<void> => {
    const startedMs = performance.now()
    const state = ctx.state as RequestState
    await next()
    log.debug(
      {
        requestId: state.requestId,
        method: ctx.method,
        path: ctx.path,
        status: ctx.status,
        durationMs: Math.round((performance.now() - startedMs) * 1000) / 1000,
        ...(state.model === undefined ? {} : { model: state.model.name, version: state.model.version }),
        ...(state.errorCode === undefined ? {} : { code: state.errorCode }),
      },
      'request',
    )
  }
  return (ctx: Context, next: Next): Promise<void> => {
    const given = ctx.req.headers['x-request-id']
    const requestId = typeof given === 'string' && REQUEST_ID_PATTERN.test(given) ? given : randomUUID()
    ;(ctx.state as RequestState).requestId = requestId
    ctx.res.setHeader('X-Request-Id', requestId)
    // The access log contains more.
    return observation.isAccessLogOn || !log.isLevelEnabled('debug') ? next() : logRequest(ctx, next)
  }
}
