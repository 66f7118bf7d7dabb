/**
 * Keeps web pages away from routes that change the server. A page in a browser on the same machine can send
 * requests to loopback: cross-origin (CSRF), or under its own name that resolves to this machine (DNS
 * rebinding).
 *
 * A browser sends the origin of a request in `Sec-Fetch-Site` and `Origin`, and a page cannot change either
 * (https://www.w3.org/TR/fetch-metadata/, https://fetch.spec.whatwg.org/#origin-header). A rebinding page has
 * the same origin, and its own name in `Host`. Other clients send neither header.
 */
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import type { Context, Next } from 'koa'
import type { Keyring } from '../access/api-keys.js'
import { bareHost, isLoopbackHost } from '../config/host-names.js'
import { OnecopyError } from '../errors.js'

const SAFE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])
/** Types that a page can send without a preflight. curl and Node's fetch also send the first and the last. */
const SIMPLE_TYPES: readonly string[] = [
  'application/x-www-form-urlencoded',
  'multipart/form-data',
  'text/plain',
]

function refuse(what: string): OnecopyError {
  return new OnecopyError('CROSS_ORIGIN', what)
}

/** The name in a Host header, without port and brackets, in lower case. */
function hostOf(header: string): string {
  return bareHost(header.replace(/:\d+$/, ''))
}

function originHost(origin: string): string | null {
  return URL.canParse(origin) ? new URL(origin).host.toLowerCase() : null
}

/** Whether host and port are the same; browsers omit the default port in both. */
function isSameHost(origin: string, host: string): boolean {
  return originHost(origin) === host.toLowerCase().replace(/:(80|443)$/, '')
}

/**
 * @param allowedOrigins Origins whose pages are allowed; `*` means all.
 * @throws OnecopyError CROSS_ORIGIN for a request of a page of another origin.
 */
export function requireSameOrigin(ctx: Context, allowedOrigins: readonly string[] = []): void {
  const { headers } = ctx.req
  const { origin, referer, host = '' } = headers
  const site = headers['sec-fetch-site']
  if (allowedOrigins.includes('*') || (origin !== undefined && allowedOrigins.includes(origin))) return
  const isBrowser = origin !== undefined || site !== undefined || referer !== undefined
  if (site !== undefined && site !== 'same-origin' && site !== 'none')
    throw refuse(`expected a request of the same origin, got Sec-Fetch-Site: ${String(site)}`)
  for (const [name, value] of [
    ['Origin', origin],
    ['Referer', origin === undefined ? referer : undefined],
  ] as const) {
    if (value !== undefined && !isSameHost(value, host))
      throw refuse(`expected a request of the same origin, got ${name}: ${value.slice(0, 200)}`)
  }
  const type = (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  if (isBrowser && SIMPLE_TYPES.includes(type))
    throw refuse(`expected Content-Type: application/json, got ${type}`)
}

export interface HostPolicy {
  /** The address on which the server listens. */
  readonly host: string
  /** Additional host names. */
  readonly allowedHosts: readonly string[]
}

/**
 * Addresses cannot be rebound; names can, except those of this server. A name without a dot cannot be
 * registered: it belongs to the local network, such as the name of a service.
 */
function isAllowedHost(name: string, { host, allowedHosts }: HostPolicy): boolean {
  return (
    isIP(name) !== 0 ||
    !name.includes('.') ||
    isLoopbackHost(name) ||
    [bareHost(host), hostname().toLowerCase(), ...allowedHosts.map((one) => one.toLowerCase())].includes(name)
  )
}

/**
 * Middleware of the admin port, inside the error responses. Every request to a loopback address, and every
 * request that changes something without a key, must have a Host of this server.
 * @throws OnecopyError CROSS_ORIGIN.
 */
export function guardAgainstPages(policy: HostPolicy, keyring: Keyring) {
  return async (ctx: Context, next: Next): Promise<void> => {
    const isChange = !SAFE_METHODS.has(ctx.method)
    const { headers } = ctx.req
    const isBrowser = headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
    // A page does not have the key.
    const isChecked = isLoopbackHost(policy.host) || (isChange && isBrowser && keyring.isOpen('admin'))
    const name = hostOf(headers.host ?? '')
    // Browsers always send a Host; health checks of load balancers may omit it.
    if (isChecked && name !== '' && !isAllowedHost(name, policy))
      throw refuse(
        `expected a Host of this server, got ${JSON.stringify(name.slice(0, 200))}: --admin-allowed-hosts adds further names`,
      )
    if (isChange) requireSameOrigin(ctx)
    await next()
  }
}
