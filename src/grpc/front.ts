/**
 * The gRPC front end of a serving process. This module accepts the sockets, so that it can renew
 * TLS, limit connections and drain a single one, as REST does. grpc-js speaks the protocol on each
 * of them.
 *
 * HTTP/2 keeps one connection for many calls. GOAWAY drains a connection: its calls are answered,
 * its client connects again and reaches the next worker in turn, and the client's library repeats
 * calls that had not begun. Workers drain connections when the primary requests it, by the same
 * measure as for REST. They also drain each one after some minutes, so that clients find servers
 * that were added.
 */
import { setMaxListeners } from 'node:events'
import { createServer, Server as NetServer, type Server as PlainServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls'
import { Server, ServerCredentials } from '@grpc/grpc-js'
import { listen } from '../http/listen.js'
import { secureContextOptions, type TlsMaterial } from '../http/tls.js'
import type { GrpcContext } from './call.js'
import { allMethods } from './methods.js'
import { limitReceiving } from './receiving.js'

/** Varies by a tenth, so that clients do not all reconnect at the same time. */
const MAX_CONNECTION_AGE_MS = 5 * 60_000
/** Open streams of one connection. */
const MAX_CONCURRENT_STREAMS = 1024
/**
 * Bytes of a connection in flight. A smaller window slows down large tensors, a larger one gains
 * nothing.
 */
const FLOW_CONTROL_WINDOW_BYTES = 1024 * 1024
/** No limit here: the drain of the worker has its own deadline. */
const DRAIN_GRACE_MS = 2 ** 31 - 1
/**
 * Between the end of listening and the first GOAWAY: the first call of a connection accepted just
 * before is in flight.
 */
const LAST_ACCEPTED_MS = 100

export interface GrpcFrontOptions {
  readonly context: GrpcContext
  readonly tls: TlsMaterial | null
  readonly maxConnections: number
  readonly handshakeTimeoutMs: number
  /** For a message. */
  readonly requestTimeoutMs: number
  /** Of incomplete messages over all streams. */
  readonly maxReceivingBytes: number
  /** How long streams with requests may continue once the server drains. */
  readonly streamGraceMs: number
}

type Injector = ReturnType<Server['createConnectionInjector']>

interface Connection {
  readonly socket: Socket
  readonly injector: Injector
  isDraining: boolean
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
    const { context, tls, maxConnections, handshakeTimeoutMs } = options
    const { requestTimeoutMs, maxReceivingBytes, streamGraceMs } = options
    this.#context = context
    this.#maxConnections = maxConnections
    this.#isTls = tls !== null
    this.#server = new Server({
      'grpc.max_receive_message_length': context.maxBodyBytes,
      // The codec refuses larger responses before it encodes them.
      'grpc.max_send_message_length': -1,
      'grpc.max_connection_age_ms': MAX_CONNECTION_AGE_MS,
      'grpc.max_concurrent_streams': MAX_CONCURRENT_STREAMS,
      'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
      'grpc.enable_channelz': 0,
      interceptors: [
        limitReceiving({
          ...{ maxMessageBytes: context.maxBodyBytes, maxReceivingBytes },
          ...{ timeoutMs: requestTimeoutMs, log: context.log },
        }),
      ],
    })
    // Every open stream listens to it.
    setMaxListeners(0, this.#draining.signal)
    const methods = allMethods({
      context,
      socketOf: (peer) => this.#connections.get(peer)?.socket,
      drainConnection: (socket) => this.#drainConnection(peerOf(socket)),
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
      log.debug({ maxConnections: this.#maxConnections }, 'a gRPC connection is closed: the limit is reached')
      socket.destroy()
      return
    }
    // An injector drains all of its connections, so each connection has its own.
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure())
    this.#connections.set(peer, { socket, injector, isDraining: false })
    socket.on('error', (thrown) => log.debug({ reason: thrown.message }, 'gRPC connection error'))
    socket.once('close', () => {
      this.#connections.delete(peer)
      injector.destroy()
    })
    injector.injectConnection(socket)
    if (this.#draining.signal.aborted) this.#drainConnection(peer)
  }

  #drainConnection(peer: string): void {
    const connection = this.#connections.get(peer)
    if (connection === undefined || connection.isDraining) return
    connection.isDraining = true
    // After the response in flight.
    setImmediate(() => connection.injector.drain(DRAIN_GRACE_MS))
  }

  /** Uses other TLS material for new connections. Only for a front end with TLS. */
  renew(material: TlsMaterial): void {
    if (this.#isTls) (this.#listener as TlsServer).setSecureContext(secureContextOptions(material))
  }

  /** Stops accepting; resolves when the last call is answered and its connection is closed. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => {
      if (!this.#listener.listening) resolve(undefined)
      else NetServer.prototype.close.call(this.#listener, resolve)
    })
    await delay(LAST_ACCEPTED_MS)
    // GOAWAY comes first, so that a client opens its next stream on another connection.
    for (const peer of this.#connections.keys()) this.#drainConnection(peer)
    setImmediate(() => this.#draining.abort())
    await closed
  }
}
