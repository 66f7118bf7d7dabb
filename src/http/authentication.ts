/** Asks for a key before a route is reached. */
import type { Context, Next } from 'koa'
import type { Keyring, Scope } from '../access/api-keys.js'
import type { RequestState } from './request-state.js'

/** Probes have no keys, and learn no more than that the server is there. */
const OPEN_PATHS: ReadonlySet<string> = new Set(['/v2/health/live', '/v2/health/ready'])

/** The page on which the API can be tried, and its document: they hold nothing of this server's, and a browser asks for them without a key. */
const DOCUMENTATION = /^\/(openapi\.json|docs(\/.*)?)$/

export function isOpenPath(path: string): boolean {
  return OPEN_PATHS.has(path) || DOCUMENTATION.test(path)
}

/**
 * Middleware for routes that ask for `scope`.
 * @throws OnecopyError UNAUTHORIZED, FORBIDDEN.
 */
export function requireScope(keyring: Keyring, scope: Scope) {
  return async (ctx: Context, next: Next): Promise<void> => {
    const name = keyring.authorize(ctx.req.headers, scope)
    if (name !== null) (ctx.state as RequestState).keyName = name
    await next()
  }
}

/** Their routes ask for another scope: a key of those who load models need not be good for inference. */
const CONTROL_PATH = /^\/v2\/repository\//

/** The same for everything but probes and the documentation: what is not listed is not open. */
export function requireScopeButForProbes(keyring: Keyring, scope: Scope) {
  const guarded = requireScope(keyring, scope)
  return (ctx: Context, next: Next): Promise<void> =>
    isOpenPath(ctx.path) || CONTROL_PATH.test(ctx.path) ? next() : guarded(ctx, next)
}
