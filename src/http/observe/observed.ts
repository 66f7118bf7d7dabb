/**
 * Observability of requests: the access log, spans, and the header Server-Timing. One middleware serves all
 * three; it is installed only if one of them is enabled.
 */
import type { Context, Middleware, Next } from 'koa'
import type { Log } from '../../log.js'
import { isOpenPath } from '../authentication.js'
import { clientAddress, clientOf } from '../client-limits.js'
import type { RequestState } from '../request-state.js'
import { RequestTimings } from './timings.js'
import { traceIdOf } from './trace-parent.js'
import type { RequestSpan, Tracing } from './tracing.js'

export interface Observation {
  readonly isAccessLogOn: boolean
  readonly isServerTimingOn: boolean
  /** Null without traces. */
  readonly tracing: Tracing | null
  readonly trustedProxies: number
}

interface Observed {
  readonly ctx: Context
  readonly timings: RequestTimings
  readonly span: RequestSpan | null
  /** Name of its API key. */
  readonly client: string
  readonly address: string
}

function roundedMs(ms: number): number {
  return Math.round(ms * 1000) / 1000
}

/** The route's pattern, which is the same for all models. */
function routeOf(ctx: Context): string | undefined {
  const { _matchedRoute: route } = ctx as { _matchedRoute?: unknown }
  return typeof route === 'string' ? route : undefined
}

function logAccess(log: Log, { ctx, timings, span, client, address }: Observed): void {
  const { requestId, model, errorCode } = ctx.state as RequestState
  const requestBytes = Number(ctx.req.headers['content-length'] ?? Number.NaN)
  const phases = timings.phases.map(({ phase, startMs, endMs }) => [`${phase}Ms`, roundedMs(endMs - startMs)])
  log.info(
    {
      requestId,
      traceId: span?.traceId ?? traceIdOf(ctx.req.headers.traceparent as string | undefined),
      client,
      address,
      method: ctx.method,
      route: routeOf(ctx),
      path: ctx.path,
      status: ctx.status,
      code: errorCode,
      model: model?.name,
      version: model?.version,
      rows: timings.rows ?? undefined,
      placement: timings.placement ?? undefined,
      requestBytes: Number.isNaN(requestBytes) ? undefined : requestBytes,
      responseBytes: ctx.length,
      durationMs: roundedMs(performance.now() - timings.startMs),
      ...Object.fromEntries(phases),
      // The client disconnected before the response was complete.
      ...(ctx.res.writableFinished ? {} : { isCut: true }),
    },
    'access',
  )
}

/** Names of attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and additional ones. */
function endSpan(span: RequestSpan, { ctx, timings, client, address }: Observed): void {
  const { requestId, model, errorCode } = ctx.state as RequestState
  const route = routeOf(ctx)
  span.end({
    name: route === undefined ? ctx.method : `${ctx.method} ${route}`,
    status: ctx.status,
    timings,
    attributes: {
      'http.request.method': ctx.method,
      'http.response.status_code': ctx.status,
      'url.path': ctx.path,
      'client.address': address,
      'onecopy.client': client,
      'onecopy.request.id': requestId,
      ...(route === undefined ? {} : { 'http.route': route }),
      ...(errorCode === undefined ? {} : { 'error.type': errorCode }),
      ...(model === undefined
        ? {}
        : { 'onecopy.model.name': model.name, 'onecopy.model.version': model.version }),
      ...(timings.rows === null ? {} : { 'onecopy.rows': timings.rows }),
    },
  })
}

/** Middleware around the error responses; none if nothing is enabled. */
export function observed(options: Observation, log: Log): Middleware[] {
  const { isAccessLogOn, isServerTimingOn, tracing, trustedProxies } = options
  if (!isAccessLogOn && !isServerTimingOn && tracing === null) return []
  return [
    async (ctx: Context, next: Next): Promise<void> => {
      const timings = new RequestTimings()
      ;(ctx.state as RequestState).timings = timings
      // Probes arrive every few seconds and carry no information.
      const span = isOpenPath(ctx.path) ? null : (tracing?.begin(ctx.req, timings.startMs) ?? null)
      if (span !== null) ctx.set('traceresponse', span.header)
      await next()
      if (isServerTimingOn) ctx.set('Server-Timing', timings.header())
      // A closed connection has no address.
      const client = clientOf(ctx, trustedProxies)
      const address = clientAddress(ctx.req, trustedProxies)
      ctx.res.once('close', () => {
        const whole = { ctx, timings, span, client, address }
        if (isAccessLogOn) logAccess(log, whole)
        if (span !== null) endSpan(span, whole)
      })
    },
  ]
}
