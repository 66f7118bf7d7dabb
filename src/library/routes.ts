/**
 * The V2 routes of attached models as middleware for Koa and Express and as a plugin for Fastify. None of the
 * three is imported: the parts of their interfaces that are used here are declared here. Other paths are
 * passed on.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import { collectStartupGarbage } from '../process/collect-garbage.js'
import type { Handler } from './http-handler.js'
import type { Mountable } from './mountable.js'
import { type RouteOptions, readRouteOptions } from './route-options.js'

type Request = IncomingMessage
type Response = ServerResponse

interface KoaContext {
  readonly req: Request
  readonly res: Response
  respond?: boolean
}

export type KoaMiddleware = (ctx: KoaContext, next: () => Promise<unknown>) => Promise<void>
export type ExpressMiddleware = (
  request: Request,
  response: Response,
  next: (thrown?: unknown) => void,
) => void

interface FastifyReply {
  readonly raw: Response
  hijack(): unknown
  callNotFound(): unknown
}

interface FastifyInstance {
  /** What it was registered under. */
  readonly prefix: string
  removeAllContentTypeParsers(): void
  addContentTypeParser(
    type: string,
    parser: (request: never, payload: never, done: (thrown: Error | null) => void) => void,
  ): unknown
  route(route: {
    readonly method: ('GET' | 'POST')[]
    readonly url: string
    readonly handler: (request: { readonly raw: Request }, reply: FastifyReply) => Promise<unknown>
  }): unknown
}

export type FastifyPlugin = (
  instance: FastifyInstance,
  options: object,
  done: (thrown?: Error) => void,
) => void

const require = createRequire(import.meta.url)

/** Routes of the server itself; all others name a model. */
const OWN_PATHS = new Set(['/v2', '/v2/health/live', '/v2/health/ready', '/v2/models', '/v2/models/stats'])
const MODEL_PATH = /^\/v2\/models\/([^/]+)(?:\/|$)/

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part)
  } catch {
    return null
  }
}

class Routes {
  readonly #models: readonly Mountable[]
  readonly #options: RouteOptions
  readonly #prefix: string
  readonly #code: Promise<typeof import('./http-handler.js')>
  #handler: Promise<Handler> | undefined

  constructor(model: Mountable, options: RouteOptions) {
    this.#models = [model, ...(options.beside ?? [])]
    this.#options = options
    this.#prefix = readRouteOptions(options).prefix
    // The first request does not wait for its code.
    this.#code = loadCode()
    // A request that needs it reports the error.
    this.#code.catch(() => {})
  }

  /** The path behind the prefix, with its query; null where it is none of these routes. */
  #routeOf(url: string, prefix: string): string | null {
    if (!url.startsWith(`${prefix}/`)) return null
    const route = url.slice(prefix.length)
    const [path = ''] = route.split('?')
    if (OWN_PATHS.has(path.replace(/(.)\/$/, '$1'))) return route
    const name = decoded(MODEL_PATH.exec(path)?.[1] ?? '')
    return this.#models.some((model) => !model.isClosed && model.servedName === name) ? route : null
  }

  knows({ url = '/' }: Request, prefix: string): boolean {
    return this.#routeOf(url, prefix) !== null
  }

  /** Answers, or resolves with false. */
  async answer(request: Request, response: Response, prefix = this.#prefix): Promise<boolean> {
    const { url = '/' } = request
    const route = this.#routeOf(url, prefix)
    if (route === null) return false
    if (request.method === 'POST' && request.readableDidRead) {
      refuseReadBody(response)
      return true
    }
    this.#handler ??= this.#create()
    const handler = await this.#handler
    request.url = route
    try {
      await handler(request, response)
    } finally {
      request.url = url
    }
    return true
  }

  async #create(): Promise<Handler> {
    const { createHandler } = await this.#code
    const { version: packageVersion } = require('onecopy/package.json') as { version: string }
    return createHandler(this.#models, { ...readRouteOptions(this.#options), packageVersion })
  }
}

async function loadCode(): Promise<typeof import('./http-handler.js')> {
  const code = await import('./http-handler.js')
  void collectStartupGarbage()
  return code
}

/** A body parser in front has read the body. */
function refuseReadBody(response: Response): void {
  const error = 'the body was already read: mount the model in front of body parsers'
  response.writeHead(500, { 'Content-Type': 'application/json', 'X-Error-Code': 'CONFIG_INVALID' })
  response.end(JSON.stringify({ error }))
}

export function koaMiddleware(model: Mountable, options: RouteOptions): KoaMiddleware {
  const routes = new Routes(model, options)
  return async (ctx, next) => {
    // Koa answers 404 unless a middleware answers.
    if (!(await routes.answer(ctx.req, ctx.res))) await next()
    else ctx.respond = false
  }
}

export function expressMiddleware(model: Mountable, options: RouteOptions): ExpressMiddleware {
  const routes = new Routes(model, options)
  return (request, response, next) => {
    routes.answer(request, response).then((isAnswered) => {
      if (!isAnswered) next()
    }, next)
  }
}

export function fastifyPlugin(model: Mountable, options: RouteOptions): FastifyPlugin {
  const routes = new Routes(model, options)
  return (instance, _options, done) => {
    // Bodies are read here; this is the plugin's own scope.
    instance.removeAllContentTypeParsers()
    instance.addContentTypeParser('*', (_request, _payload, parsed) => parsed(null))
    const { prefix: inside = '' } = options
    const prefix = `${instance.prefix}${inside}`
    for (const url of [`${inside}/v2`, `${inside}/v2/*`]) {
      instance.route({
        method: ['GET', 'POST'],
        url,
        handler: async (request, reply) => {
          const { raw } = request
          // From here on the answer is not Fastify's.
          if (!routes.knows(raw, prefix)) return reply.callNotFound()
          reply.hijack()
          await routes.answer(raw, reply.raw, prefix)
          return reply
        },
      })
    }
    done()
  }
}
