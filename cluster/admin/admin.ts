/** The admin port, served by the primary: metrics, and probes that do not wait for inference. */
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import Router from '@koa/router'
import Koa, { type Middleware } from 'koa'
import type { Keyring } from '../../src/access/api-keys.js'
import type { RestartAnswer, ServerLive, ServerMetadata, ServerReadiness } from '../../src/api/schemas.js'
import type { ServerControl } from '../../src/api/server-control.js'
import type { Config } from '../../src/config/config.js'
import { messageOf } from '../../src/errors.js'
import { requireScope } from '../../src/http/authentication.js'
import { guardAgainstPages } from '../../src/http/cross-origin.js'
import { errorResponses } from '../../src/http/error-response.js'
import {
  type ConnectionLimits,
  checkHeaders,
  createHttpServer,
  renewTls,
} from '../../src/http/http-server.js'
import { plainJsonType } from '../../src/http/json-type.js'
import { listen } from '../../src/http/listen.js'
import { publicText } from '../../src/http/public-text.js'
import { adminRouteHint } from '../../src/http/route-hint.js'
import { documentationRoutes } from '../../src/http/routes/documentation.js'
import type { ServerIdentity } from '../../src/http/routes/health.js'
import { modelRoutes } from '../../src/http/routes/models.js'
import { repositoryRoutes } from '../../src/http/routes/repository.js'
import { settingsRoutes } from '../../src/http/routes/settings.js'
import { statisticsRoutes } from '../../src/http/routes/statistics.js'
import { securityHeaders, setHeaders } from '../../src/http/security-headers.js'
import type { TlsMaterial } from '../../src/http/tls.js'
import type { ModelDirectory } from '../../src/inference/service.js'
import type { Log } from '../../src/log.js'
import type { ServerFolder } from '../../src/segment/folder.js'

/** Probes and scrapers are few and fast, so the primary limits other connections tightly. */
const LIMITS: ConnectionLimits = {
  headersTimeoutMs: 5000,
  requestTimeoutMs: 10_000,
  // Longer than the usual scrape interval of one minute.
  keepAliveTimeoutMs: 65_000,
  maxConnections: 256,
}

export interface AdminOptions {
  readonly host: string
  readonly port: number
  /** Host names, besides the address, that clients use for this server. */
  readonly allowedHosts: readonly string[]
  readonly log: Log
  readonly identity: ServerIdentity
  /** Null if ready, else the reason. */
  readonly notReadyReason: () => string | null
  /** Authenticates requests for metrics and changes. */
  readonly keyring: Keyring
  /** Null for plain HTTP. */
  readonly tls: TlsMaterial | null
  readonly control: ServerControl
  readonly repositoryApi: Config['repositoryApi']
  readonly models: ModelDirectory
  readonly isTracing: boolean
  readonly isDraining: () => boolean
  /** The public port, once there is one. */
  readonly publicPort: () => number | null
  /** Starts to replace every worker. Returns the reason if it cannot, else null. */
  readonly restart: () => string | null
  /** Version of the server; null if the API document and page are not served. */
  readonly docsVersion: string | null
  /** Folders of this server, to be removed from responses. */
  readonly localFolders: readonly string[]
  readonly metrics: () => Promise<{ readonly contentType: string; readonly text: string }>
}

/** Folders that appear in messages for operators but not in responses. */
export function localFolders(config: Config, server: ServerFolder | undefined): string[] {
  const { modelPaths, cacheDir, segmentDir, only } = config
  const folders = [...modelPaths, cacheDir, segmentDir]
  return [...folders, ...(only === null ? [] : [only.path]), ...(server === undefined ? [] : [server.path])]
}

/** The model routes of the public port, for clients that know only the admin address. */
function modelInformation(router: Router, { models, isDraining }: AdminOptions, guard: Middleware): void {
  router.use('/v2/models', guard)
  statisticsRoutes(router, { models })
  modelRoutes(router, { models, isDraining })
}

/** Every route of the admin port. */
export function adminRouter(options: AdminOptions): Router {
  const { notReadyReason, docsVersion, keyring, localFolders } = options
  const forAdmins = requireScope(keyring, 'admin')
  const router = new Router()
  const metadata: ServerMetadata = {
    ...options.identity,
    extensions: [
      ...(['logging', 'model_configuration'] as const),
      ...(options.repositoryApi === 'off' ? [] : (['model_repository'] as const)),
      ...(['statistics', 'trace'] as const),
    ],
  }
  router.get('/v2', (ctx) => {
    ctx.body = metadata
  })
  router.get('/v2/health/live', (ctx) => {
    ctx.body = { live: true } satisfies ServerLive
  })
  router.get('/v2/health/ready', (ctx) => {
    const reason = notReadyReason()
    ctx.status = reason === null ? 200 : 503
    if (reason !== null) ctx.set('Retry-After', '1')
    const answer: ServerReadiness =
      reason === null
        ? { live: true, ready: true }
        : { live: true, ready: false, error: publicText(reason, localFolders) }
    ctx.body = answer
  })
  router.get('/metrics', requireScope(keyring, 'metrics'), async (ctx) => {
    const { contentType, text } = await options.metrics()
    ctx.set('Content-Type', contentType)
    ctx.body = text
  })
  modelInformation(router, options, forAdmins)
  const { control, models, isTracing, log } = options
  const hasRepository = options.repositoryApi !== 'off'
  const guard = [forAdmins]
  settingsRoutes(router, { models, log, isTracing, control: hasRepository ? control : null, guard })
  if (hasRepository) repositoryRoutes(router, { repository: control, guard, localFolders })
  router.post('/restart', forAdmins, (ctx) => {
    const reason = options.restart()
    ctx.status = reason === null ? 202 : 503
    const answer: RestartAnswer =
      reason === null ? { restarting: true } : { restarting: false, error: reason }
    ctx.body = answer
  })
  if (docsVersion !== null) {
    const facts = { hasBundle: false, hasSharedMemory: false, hasRepository }
    documentationRoutes(router, { port: 'admin', version: docsVersion, ...facts })
  }
  return router
}

export class AdminServer {
  readonly #http: Server

  private constructor(http: Server) {
    this.#http = http
  }

  /** @throws OnecopyError ADDRESS_UNAVAILABLE. */
  static async start(options: AdminOptions): Promise<AdminServer> {
    const { host, port, log, tls, localFolders } = options
    const headers = securityHeaders({ isTls: tls !== null })
    const router = adminRouter(options)
    const app = new Koa()
    app.use(setHeaders(headers))
    app.use(plainJsonType)
    // A failed probe does not affect the models: the primary logs it and continues.
    const routeHint = (path: string) => adminRouteHint(path, { ...options, port: options.publicPort() })
    app.use(errorResponses({ log, localFolders, routeHint, onBug: () => {} }))
    app.use(checkHeaders)
    app.use(guardAgainstPages({ host, allowedHosts: options.allowedHosts }, options.keyring))
    app.use(router.routes())
    app.use(router.allowedMethods())
    app.on('error', (thrown) => log.debug({ reason: messageOf(thrown) }, 'admin connection error'))
    const http = createHttpServer({ limits: LIMITS, handler: app.callback(), log, headers, tls })
    await listen(http, { host, port }, 'the admin port')
    return new AdminServer(http)
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port
  }

  /** Renews the certificate; open connections stay. Only for a server started with TLS. */
  renew(tls: TlsMaterial): void {
    renewTls(this.#http, tls)
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#http.close(resolve))
    this.#http.closeAllConnections()
    await closed
  }
}
