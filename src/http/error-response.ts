/**
 * The only place where an error becomes a status and a body: `{"error": "..."}`, without stacks, source
 * locations and paths.
 */
import type { Context, Next } from 'koa'
import type { ErrorBody } from '../api/schemas.js'
import { messageOf, OnecopyError } from '../errors.js'
import { quoted } from '../protocol/v2/faults.js'
import type { HttpContext } from './context.js'
import { publicText } from './public-text.js'
import type { RequestState } from './request-state.js'

/** The error as clients see it. Errors of the client keep their text, which quotes its own input. */
function asPublic(error: OnecopyError, folders: readonly string[]): OnecopyError {
  if (error.fault === 'client') return error
  const message = publicText(error.message, folders)
  if (message === error.message) return error
  const { code, headers, cause } = error
  return new OnecopyError(code, message, { headers, cause })
}

function respond(ctx: Context, error: OnecopyError, deadlineStatus: number | undefined): void {
  const { errorBody } = ctx.state as RequestState
  ctx.status = error.code === 'DEADLINE_EXCEEDED' ? (deadlineStatus ?? error.status) : error.status
  ctx.set(error.headers)
  ctx.set('X-Error-Code', error.code)
  ctx.body = errorBody?.(error) ?? ({ error: error.message } satisfies ErrorBody)
}

function isClientGone(thrown: unknown): boolean {
  const code = (thrown as NodeJS.ErrnoException | null)?.code
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'ERR_STREAM_PREMATURE_CLOSE'
}

/** The error for the client. An unexpected error is a bug; its details are not disclosed. */
function asOnecopyError(thrown: unknown): OnecopyError {
  if (thrown instanceof OnecopyError) return thrown
  if (isClientGone(thrown)) return new OnecopyError('REQUEST_CANCELLED', 'the client disconnected')
  if (thrown instanceof URIError)
    return new OnecopyError('ROUTE_NOT_FOUND', 'the path is not valid percent-encoding')
  return new OnecopyError('INTERNAL', 'internal error', { cause: thrown })
}

/** Outermost middleware: turns thrown errors into responses, and answers paths without a route. */
export function errorResponses(
  context: Pick<HttpContext, 'onBug' | 'log' | 'localFolders' | 'routeHint'> &
    Partial<Pick<HttpContext, 'deadlineStatus' | 'errorBodyOf'>>,
) {
  return async (ctx: Context, next: Next): Promise<void> => {
    const state = ctx.state as RequestState
    try {
      await next()
      if (ctx.status === 404 && ctx.body === undefined) {
        const hint = context.routeHint(ctx.path)
        throw new OnecopyError('ROUTE_NOT_FOUND', `no route ${ctx.method} ${quoted(ctx.path)}${hint}`)
      }
      if (ctx.status === 405 || ctx.status === 501) {
        const allow = ctx.response.get('Allow')
        throw new OnecopyError(
          'METHOD_NOT_ALLOWED',
          `expected ${allow} for ${quoted(ctx.path)}, got ${ctx.method}`,
        )
      }
    } catch (thrown) {
      const error = asOnecopyError(thrown)
      const shown = asPublic(error, context.localFolders)
      state.errorCode = error.code
      state.errorBody ??= (one) => context.errorBodyOf?.(ctx.path, one)
      respond(ctx, shown, context.deadlineStatus)
      if (shown !== error) {
        const { requestId, model } = state
        context.log.info(
          { requestId, code: error.code, model: model?.name, version: model?.version, reason: error.message },
          'request failed',
        )
      }
      if (error.fault === 'bug') {
        context.log.error({ requestId: state.requestId, err: thrown }, messageOf(thrown))
        context.onBug(thrown)
      }
    }
  }
}
