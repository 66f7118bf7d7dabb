/** Requires an API key before a route is reached. */
import type { Context, Next } from 'koa'
import type { Keyring, Scope } from '../access/api-keys.js'
import type { RequestState } from './request-state.js'

/** Probes need no key; their responses only show that the server is running. */
const OPEN_PATHS: ReadonlySet<string> = new Set(['/v2/health/live', '/v2/health/ready'])

/**
 * The API page and its document, which contain no data of this server and are requested by browsers without a
 * key.
 */
const DOCUMENTATION = /^\/(openapi\.json|docs(\/.*)?)$/

export function isOpenPath(path: string): boolean {
  return OPEN_PATHS.has(path) || DOCUMENTATION.test(path)
}

/**
 * Middleware for routes that require `scope`.
 * @throws OnecopyError UNAUTHORIZED, FORBIDDEN.
 */
export function requireScope(keyring: Keyring, scope: Scope) {
  return async (ctx: Context, next: Next): Promise<void> => {
    const name = keyring.authorize(ctx.req.headers, scope)
    if (name !== null) (ctx.state as RequestState).keyName = name
    await next()
  }
}

/** Routes with another scope: a key that loads models need not allow inference. */
const CONTROL_PATH = /^\/v2\/repository\//

/** The same for all other routes except probes and documentation: unlisted paths require a key. */
export function requireScopeButForProbes(keyring: Keyring, scope: Scope) {
  const guarded = requireScope(keyring, scope)
  return (ctx: Context, next: Next): Promise<void> =>
    isOpenPath(ctx.path) || CONTROL_PATH.test(ctx.path) ? next() : guarded(ctx, next)
}
