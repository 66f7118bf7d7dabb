/**
 * The gRPC front end of a serving process. The sockets are this module's own, so that TLS is renewed, connections are limited and
 * given up one by one as for REST; grpc-js speaks the protocol on each of them.
 *
 * HTTP/2 keeps one connection for many calls. A connection is given up by GOAWAY: its calls are answered, its client connects
 * anew and is dealt to the next worker in turn, and calls that had not begun are repeated by the client's library.
 * Workers give up connections as the primary asks them to, by the same measure as connections of REST, and every
 * connection after some minutes, so that clients find servers that have been added.
 */
import { createServer, Server as NetServer, type Server as PlainServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { listen } from '../http/listen.js'
import { secureContextOptions, type TlsMaterial } from '../http/tls.js'
import type { GrpcContext } from './call.js'
import { allMethods } from './methods.js'

/** With a spread of a tenth, so that clients do not come all at once. */
const MAX_CONNECTION_AGE_MS = 5 * 60_000
/** Streams of one connection that may be open at once. */
const MAX_CONCURRENT_STREAMS = 1024
/** How much of a connection's streams may be on its way: less makes large tensors slow. */
const FLOW_CONTROL_WINDOW_BYTES = 1024 * 1024
/** Calls are waited for by whoever drains, and it has a deadline of its own. */
const DRAIN_GRACE_MS = 2 ** 31 - 1
/** Between the end of listening and the first GOAWAY: a connection that was accepted just before has its first call on its way. */
const LAST_ACCEPTED_MS = 100

export interface GrpcFrontOptions {
  readonly context: GrpcContext
  readonly tls: TlsMaterial | null
  readonly maxConnections: number
  readonly handshakeTimeoutMs: number
  /** How long streams of requests may go on once the server drains. */
  readonly streamGraceMs: number
}

type Injector = ReturnType<Server['createConnectionInjector']>

interface Connection {
  readonly socket: Socket
  readonly injector: Injector
  isGivenUp: boolean
}

function peerOf(socket: Socket): string {
  return `${socket.remoteAddress}:${socket.remotePort}`
}

export class GrpcFront {
  readonly #server: Server
  readonly #listener: PlainServer
  readonly #context: GrpcContext
  readonly #maxConnections: number
  readonly #connections = new Map<string, Connection>()
  readonly #isTls: boolean
  readonly #draining = new AbortController()

  constructor(options: GrpcFrontOptions) {
    const { context, tls, maxConnections, handshakeTimeoutMs, streamGraceMs } = options
    this.#context = context
    this.#maxConnections = maxConnections
    this.#isTls = tls !== null
    this.#server = new Server({
      'grpc.max_receive_message_length': context.maxBodyBytes,
      // What is too long is refused before it is made into a message.
      'grpc.max_send_message_length': -1,
      'grpc.max_connection_age_ms': MAX_CONNECTION_AGE_MS,
      'grpc.max_concurrent_streams': MAX_CONCURRENT_STREAMS,
      'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
      'grpc.enable_channelz': 0,
    })
    const methods = allMethods({
      context,
      socketOf: (peer) => this.#connections.get(peer)?.socket,
      giveUp: (socket) => this.#giveUp(peerOf(socket)),
      ...{ draining: this.#draining.signal, streamGraceMs },
    })
    for (const { definition, handler } of methods) {
      const { path, requestStream, responseStream } = definition
      const type = requestStream ? 'bidi' : responseStream ? 'serverStream' : 'unary'
      this.#server.register(path, handler, definition.responseSerialize, definition.requestDeserialize, type)
    }
    if (tls === null) this.#listener = createServer({ noDelay: true }, (socket) => this.#take(socket))
    else {
      const certificates = tls.ca === null ? {} : { requestCert: true, rejectUnauthorized: true }
      this.#listener = createTlsServer(
        {
          ...{ ...secureContextOptions(tls), ...certificates, ALPNProtocols: ['h2'] },
          ...{ handshakeTimeout: handshakeTimeoutMs, noDelay: true },
        },
        (socket: TLSSocket) => this.#take(socket),
      )
      this.#listener.on('tlsClientError', (thrown: Error) =>
        context.log.debug({ reason: thrown.message }, 'a TLS handshake failed'),
      )
    }
  }

  /** @throws OnecopyError ADDRESS_UNAVAILABLE. */
  async listen(address: { readonly host: string; readonly port: number }): Promise<void> {
    await listen(this.#listener, address, 'gRPC')
  }

  #take(socket: Socket): void {
    const { log } = this.#context
    const peer = peerOf(socket)
    if (this.#maxConnections > 0 && this.#connections.size >= this.#maxConnections) {
      log.debug(
        { maxConnections: this.#maxConnections },
        'a gRPC connection is closed: as many are open as may be',
      )
      socket.destroy()
      return
    }
    // One for each, so that one can be drained.
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure())
    this.#connections.set(peer, { socket, injector, isGivenUp: false })
    socket.on('error', (thrown) => log.debug({ reason: thrown.message }, 'gRPC connection error'))
    socket.once('close', () => {
      this.#connections.delete(peer)
      injector.destroy()
    })
    injector.injectConnection(socket)
    if (this.#draining.signal.aborted) this.#giveUp(peer)
  }

  #giveUp(peer: string): void {
    const connection = this.#connections.get(peer)
    if (connection === undefined || connection.isGivenUp) return
    connection.isGivenUp = true
    // After the answer that is on its way.
    setImmediate(() => connection.injector.drain(DRAIN_GRACE_MS))
  }

  /** From here on new connections are made with other material. For a front that was made with TLS. */
  renew(material: TlsMaterial): void {
    if (this.#isTls) (this.#listener as TlsServer).setSecureContext(secureContextOptions(material))
  }

  /** Accepts no more; resolves when the last call is answered and its connection closed. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => {
      if (!this.#listener.listening) resolve(undefined)
      else NetServer.prototype.close.call(this.#listener, resolve)
    })
    await delay(LAST_ACCEPTED_MS)
    // GOAWAY first: a client that opens its stream again then uses another connection.
    for (const peer of this.#connections.keys()) this.#giveUp(peer)
    setImmediate(() => this.#draining.abort())
    await closed
  }
}
