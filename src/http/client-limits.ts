/** Limits per client: request rate and requests in flight. */
import type { IncomingMessage } from 'node:http'
import { isIP, isIPv6 } from 'node:net'
import type { Context, Next } from 'koa'
import type { ClientCounts } from '../access/client-page.js'
import { OnecopyError } from '../errors.js'
import { monotonicMs } from '../process/clock.js'
import { formatMs } from '../units.js'
import { isOpenPath } from './authentication.js'
import type { RequestState } from './request-state.js'

export interface ClientLimits {
  readonly rateLimit: { readonly requests: number; readonly windowMs: number } | null
  /** 0 is no limit. */
  readonly maxClientRequests: number
  readonly trustedProxies: number
}

/**
 * The address of the client: the peer of the connection or, behind proxies, the Nth address from the end of
 * X-Forwarded-For. Earlier addresses are untrusted. A request with fewer addresses bypassed a proxy.
 */
export function clientAddress({ headers, socket }: IncomingMessage, trustedProxies: number): string {
  const direct = socket.remoteAddress ?? ''
  if (trustedProxies === 0) return direct
  const header = headers['x-forwarded-for']
  const said = (Array.isArray(header) ? header.join(',') : (header ?? ''))
    .split(',')
    .at(-trustedProxies)
    ?.trim()
  return said !== undefined && isIP(said) !== 0 ? said : direct
}

/** The first 64 bits of an IPv6 address: a client with one address controls its whole /64 network. */
export function networkOf(address: string): string {
  if (!isIPv6(address)) return address
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return mapped
  const [head = '', tail] = address.replace(/%.*$/, '').toLowerCase().split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':'))
  const front = groups(head)
  const back = tail === undefined ? [] : groups(tail)
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length
  const all = [...front, ...Array.from({ length: Math.max(0, zeros) }, () => '0'), ...back]
  return `${all
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`
}

/** The client for which a request counts: its key, or else its address. */
export function clientOf(ctx: Context, trustedProxies: number): string {
  const { keyName } = ctx.state as RequestState
  return keyName === undefined ? `ip ${networkOf(clientAddress(ctx.req, trustedProxies))}` : `key ${keyName}`
}

/**
 * Runs `work` for a client within its limits.
 * @throws OnecopyError RATE_LIMITED, CONCURRENCY_LIMITED, and the errors of `work`.
 */
export async function withinLimits<T>(
  client: string,
  { limits, counts }: { readonly limits: ClientLimits; readonly counts: ClientCounts },
  work: () => Promise<T>,
): Promise<T> {
  const { rateLimit, maxClientRequests } = limits
  if (maxClientRequests > 0 && !counts.enter(client, maxClientRequests)) {
    throw new OnecopyError(
      'CONCURRENCY_LIMITED',
      `expected at most ${maxClientRequests} concurrent requests per client: wait for a response`,
      { retryAfterSeconds: 1 },
    )
  }
  try {
    const waitMs = rateLimit === null ? null : counts.admit(client, rateLimit, monotonicMs())
    if (rateLimit !== null && waitMs !== null) {
      throw new OnecopyError(
        'RATE_LIMITED',
        `expected at most ${rateLimit.requests} requests per client in ${formatMs(rateLimit.windowMs)}`,
        { retryAfterSeconds: Math.ceil(waitMs / 1000) },
      )
    }
    return await work()
  } finally {
    if (maxClientRequests > 0) counts.leave(client)
  }
}

/** Middleware after authentication. Probes are not counted. */
export function limitClients(limits: ClientLimits, counts: ClientCounts) {
  return async (ctx: Context, next: Next): Promise<void> => {
    if (isOpenPath(ctx.path)) return await next()
    await withinLimits(clientOf(ctx, limits.trustedProxies), { limits, counts }, next)
  }
}
