/**
 * The HTTP server below Koa, with limits on what a connection may cost: how many there are, how long a
 * request may take to arrive, how large its headers may be. Without them a client that sends a byte a
 * minute holds a connection, and what was read on it, for as long as it likes.
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

/** Node looks for late requests this often: 30 s, its default, would make a limit of 10 s one of 40. */
const CHECK_INTERVAL_MS = 500
/** Node's default, written down: it can be changed by a flag, and the errors' documentation names it. */
const MAX_HEADER_BYTES = 16 * 1024
/** Clients send a dozen and proxies add some; 16 KiB can hold four thousand. */
const MAX_HEADERS = 256
/** Below this share of the limit the next refused connection is worth a line in the log again. */
const FULL_NO_MORE = 0.9

export interface ConnectionLimits {
  readonly headersTimeoutMs: number
  /** From the first byte of a request to the last of its body. */
  readonly requestTimeoutMs: number
  /** How long a connection may be silent between two requests. */
  readonly keepAliveTimeoutMs: number
  /** 0 is unlimited. */
  readonly maxConnections: number
}

/**
 * Node's own `maxConnections` is not used: in a cluster a worker that is full passes the connection on,
 * and where all are full it goes round for ever (nodejs.org/api/net.html#serverdropmaxconnection).
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
    if (!isFull) log.warn({ maxConnections }, 'connections are closed: as many are open as may be')
    isFull = true
  })
}

export function createHttpServer(options: {
  readonly limits: ConnectionLimits
  readonly handler: RequestListener
  readonly log: Log
  /** That every answer carries. */
  readonly headers: Readonly<Record<string, string>>
  /** Null: plain HTTP. Clients are asked for a certificate where it says who signs them. */
  readonly tls: TlsMaterial | null
}): Server {
  const { limits, handler, log, headers, tls } = options
  const { requestTimeoutMs, keepAliveTimeoutMs, maxConnections } = limits
  // Headers are part of the request: Node refuses a limit for them that is the longer one.
  const headersTimeoutMs = Math.min(limits.headersTimeoutMs, requestTimeoutMs)
  const settings: ServerOptions = {
    headersTimeout: headersTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    maxHeaderSize: MAX_HEADER_BYTES,
    // Checked below, where the answer gets a body.
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
 * From here on new connections are made with other material; those that are open stay as they are. For a server
 * that was created with TLS.
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

/** Middleware inside the error responses: what Node lets through, or would answer without a body. */
export function checkHeaders(ctx: Context, next: Next): Promise<void> {
  const { headers, rawHeaders, httpVersion } = ctx.req
  // Names and values in turns. Node drops those beyond the limit without a word.
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
