/**
 * The HTTP server below Koa, with limits on connections: their number, the time in which a
 * request must arrive, and the size of its headers. Without limits, a client that sends one byte per minute
 * could hold a connection and its memory for ever.
 */
import { createServer, type RequestListener, type Server, type ServerOptions } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Server as TlsServer } from 'node:tls'
import type { Context, Next } from 'koa'
import { OnecopyError } from '../errors.js'
import type { Log } from '../log.js'
import { collectAfterDisconnects } from './collect-after-disconnects.js'
import { answerConnectionErrors } from './connection-errors.js'
import { secureContextOptions, type TlsMaterial } from './tls.js'

/**
 * Interval at which Node checks for late requests: with its default of 30 s a limit of 10 s could become 40
 * s.
 */
const CHECK_INTERVAL_MS = 500
/** The default of Node, set explicitly: a flag could change it, and docs/errors.md states it. */
const MAX_HEADER_BYTES = 16 * 1024
/** Clients send about a dozen and proxies add a few; 16 KiB could hold four thousand. */
const MAX_HEADERS = 256
/** Below this share of the limit the next refused connection is logged again. */
const FULL_NO_MORE = 0.9

export interface ConnectionLimits {
  readonly headersTimeoutMs: number
  /** Time limit from the first byte of a request to the last byte of its body. */
  readonly requestTimeoutMs: number
  /** Maximum idle time of a connection between two requests. */
  readonly keepAliveTimeoutMs: number
  /** 0 is unlimited. */
  readonly maxConnections: number
}

/**
 * Node's `maxConnections` is not used: in a cluster a full worker passes the connection on, and if all are
 * full it circulates for ever (nodejs.org/api/net.html#serverdropmaxconnection).
 */
function closeSurplusConnections(server: Server, maxConnections: number, log: Log): void {
  let open = 0
  let isFull = false
  server.on('connection', (socket) => {
    open++
    socket.once('close', () => {
      open--
      if (open < maxConnections * FULL_NO_MORE) isFull = false
    })
    if (open <= maxConnections) return
    socket.destroy()
    if (!isFull) log.warn({ maxConnections }, 'new connections are closed: the limit is reached')
    isFull = true
  })
}

export function createHttpServer(options: {
  readonly limits: ConnectionLimits
  readonly handler: RequestListener
  readonly log: Log
  /** Headers of every response. */
  readonly headers: Readonly<Record<string, string>>
  /** Null for plain HTTP. With a client CA, clients need a certificate. */
  readonly tls: TlsMaterial | null
}): Server {
  const { limits, handler, log, headers, tls } = options
  const { requestTimeoutMs, keepAliveTimeoutMs, maxConnections } = limits
  // Headers are part of the request: Node rejects a longer limit for them.
  const headersTimeoutMs = Math.min(limits.headersTimeoutMs, requestTimeoutMs)
  const settings: ServerOptions = {
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    // Checked below, where the response gets a body.
    requireHostHeader: false,
  }
  const server =
    tls === null
      ? createServer(settings, handler)
      : createTlsServer(
          {
            ...settings,
            ...secureContextOptions(tls),
            ...(tls.ca === null ? {} : { requestCert: true, rejectUnauthorized: true }),
            handshakeTimeout: headersTimeoutMs,
          },
          handler,
        )
  server.maxHeadersCount = MAX_HEADERS
  // Expectations but 100-continue may be ignored (RFC 9110, 10.1.1); Node's 417 has no body.
  server.on('checkExpectation', handler)
  answerConnectionErrors(server, { headersTimeoutMs, requestTimeoutMs, headers })
  collectAfterDisconnects(server)
  if (maxConnections > 0) closeSurplusConnections(server, maxConnections, log)
  return server
}

/**
 * New connections use the new certificate; open ones are unaffected. Only for a server that was created with
 * TLS.
 */
export function renewTls(server: Server, material: TlsMaterial): void {
  ;(server as Server & Pick<TlsServer, 'setSecureContext'>).setSecureContext(secureContextOptions(material))
}

/** RFC 9112, 3.2: rejected, because a proxy in front may have used the other one. */
function hasSecondHost(rawHeaders: readonly string[]): boolean {
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  return hosts > 1
}

/** Middleware inside the error responses: checks that Node omits, or would answer without a body. */
export function checkHeaders(ctx: Context, next: Next): Promise<void> {
  const { headers, rawHeaders, httpVersion } = ctx.req
  // Names and values alternate. Node silently drops those beyond the limit.
  if (rawHeaders.length >= MAX_HEADERS * 2) {
    throw new OnecopyError('HEADERS_TOO_LARGE', `expected fewer than ${MAX_HEADERS} headers`, {
      headers: { Connection: 'close' },
    })
  }
  if ((httpVersion === '1.1' && headers.host === undefined) || hasSecondHost(rawHeaders)) {
    throw new OnecopyError('REQUEST_MALFORMED', 'expected one Host header', {
      headers: { Connection: 'close' },
    })
  }
  return next()
}
