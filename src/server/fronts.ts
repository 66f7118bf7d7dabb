/**
 * The configured front ends of a serving process: REST on a port, REST on a Unix socket, and gRPC.
 */
import type { RequestListener, Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ServingConfig } from '../config/config.js'
import type { GrpcFront } from '../grpc/front.js'
import type { HttpContext } from '../http/context.js'
import { closeServers } from '../http/graceful-close.js'
import { createHttpServer, renewTls } from '../http/http-server.js'
import { listen } from '../http/listen.js'
import type { ServerIdentity } from '../http/routes/health.js'
import type { TlsMaterial } from '../http/tls.js'
import { listenOnSocket } from '../http/unix-socket.js'

export interface FrontsOptions {
  readonly config: ServingConfig
  readonly context: HttpContext
  readonly identity: ServerIdentity
  readonly handler: RequestListener
  readonly tls: TlsMaterial | null
}

export class Fronts {
  readonly #options: FrontsOptions
  readonly #http: Server
  readonly #socket: Server | null
  #grpc: GrpcFront | null = null
  #tls: TlsMaterial | null

  constructor(options: FrontsOptions) {
    const { config, context, handler, tls } = options
    this.#options = options
    this.#tls = tls
    const { headers } = context.defences
    const create = (material: TlsMaterial | null) =>
      createHttpServer({ limits: config, handler, log: context.log, headers, tls: material })
    this.#http = create(tls)
    // Clients on the same machine need no TLS.
    this.#socket = config.socketPath === '' ? null : create(null)
  }

  /** @throws OnecopyError ADDRESS_UNAVAILABLE. */
  async listen(): Promise<void> {
    const { config } = this.#options
    if (config.isHttp) await listen(this.#http, config, 'inference')
    if (config.isHttp && config.grpcPort !== null) await this.#listenForGrpc(config.grpcPort)
    if (this.#socket !== null) await listenOnSocket(this.#socket, config.socketPath)
  }

  async #listenForGrpc(port: number): Promise<void> {
    const { config, context, identity } = this.#options
    // Loads the gRPC libraries only if gRPC is enabled.
    const { GrpcFront: Front } = await import('../grpc/front.js')
    const { maxConnections, headersTimeoutMs: handshakeTimeoutMs, requestTimeoutMs } = config
    const grpc = new Front({
      context: { ...context, identity },
      tls: this.#tls,
      maxConnections,
      handshakeTimeoutMs,
      requestTimeoutMs,
      maxReceivingBytes: config.maxReceivingBytes,
      // The rest is for the answers to what was read.
      streamGraceMs: config.drainTimeoutMs / 2,
    })
    await grpc.listen({ host: config.host, port })
    this.#grpc = grpc
  }

  /** New connections use the new certificate; open ones are unaffected. */
  renew(tls: TlsMaterial): void {
    this.#tls = tls
    renewTls(this.#http, tls)
    this.#grpc?.renew(tls)
  }

  /** The port on which REST is served; 0 if it is not. */
  get port(): number {
    return (this.#http.address() as AddressInfo | null)?.port ?? 0
  }

  /** Resolves when every accepted request is answered and every connection is closed. */
  async close(options: { readonly isUrgent: boolean }): Promise<void> {
    await Promise.all([closeServers([this.#http, this.#socket], options), this.#grpc?.close()])
  }
}
