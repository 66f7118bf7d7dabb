/**
 * Middleware between a connection and the routes. Except for headers, each part is installed only if an
 * option enables it, so disabled parts cost nothing.
 */
import cors from '@koa/cors'
import type { Context, Middleware } from 'koa'
import type { Keyring } from '../access/api-keys.js'
import type { ClientCounts } from '../access/client-page.js'
import { OnecopyError } from '../errors.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import { requireScopeButForProbes } from './authentication.js'
import { type ClientLimits, limitClients } from './client-limits.js'
import { setHeaders } from './security-headers.js'

/** Response headers that pages may read. */
const EXPOSED_HEADERS = [
  'Inference-Header-Content-Length',
  'X-Error-Code',
  'X-Request-Id',
  'Retry-After',
  'Content-Encoding',
  'Server-Timing',
  'traceresponse',
]
const PREFLIGHT_SECONDS = 600

export interface Defences {
  readonly headers: Readonly<Record<string, string>>
  /** Origins of pages that may send requests; `*` means all. */
  readonly corsOrigins: readonly string[]
  readonly keyring: Keyring
  readonly limits: ClientLimits
  /** Null without client limits. */
  readonly clientCounts: ClientCounts | null
}

function allowOrigins(origins: readonly string[]): Middleware {
  const isAll = origins.includes('*')
  return cors({
    origin: (ctx) => {
      const origin = ctx.get('Origin')
      return isAll ? '*' : origins.includes(origin) ? origin : ''
    },
    allowMethods: 'GET,HEAD,POST',
    exposeHeaders: EXPOSED_HEADERS,
    maxAge: PREFLIGHT_SECONDS,
  }) as unknown as Middleware
}

/** Around the error responses: errors also have these headers, and a preflight needs no key. */
export function outerDefences({ headers, corsOrigins }: Defences): Middleware[] {
  return [setHeaders(headers), ...(corsOrigins.length === 0 ? [] : [allowOrigins(corsOrigins)])]
}

/** Inside the error responses. */
export function innerDefences(defences: Defences, unknownModel: ModelRecorder): Middleware[] {
  const { keyring, limits, clientCounts } = defences
  const inner: Middleware[] = []
  if (!keyring.isOpen('infer')) inner.push(requireScopeButForProbes(keyring, 'infer'))
  if (clientCounts !== null) inner.push(limitClients(limits, clientCounts))
  // Requests that are rejected here do not reach the route that counts.
  return inner.map((middleware) => counted(middleware, unknownModel))
}

function counted(middleware: Middleware, unknownModel: ModelRecorder): Middleware {
  return async (ctx: Context, next) => {
    let isThrough = false
    try {
      await middleware(ctx as never, () => {
        isThrough = true
        return next()
      })
    } catch (thrown) {
      if (!isThrough && thrown instanceof OnecopyError && ctx.path.endsWith('/infer'))
        unknownModel.countRequest(thrown.status === 429 ? 'rejected' : 'client_error', 0)
      throw thrown
    }
  }
}
