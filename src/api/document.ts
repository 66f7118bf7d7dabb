/**
 * Builds the OpenAPI document of a port from its route table, the schemas and the error catalogue. Unknown
 * paths are answered with 404 and unknown methods with 405, with the common error body.
 */

import type { Scope } from '../access/api-keys.js'
import { ERROR_CATALOGUE, type ErrorCode } from '../errors.js'
import { ADMIN_ROUTES } from './admin-routes.js'
import {
  type ComponentName,
  componentReference,
  componentSchemas,
  type JsonSchema,
  withReferences,
} from './components.js'
import { ERSILIA_ROUTES } from './ersilia-routes.js'
import { CUDA_SHARED_MEMORY_ROUTES, SHARED_MEMORY_ROUTES } from './extension-routes.js'
import { PUBLIC_ROUTES } from './public-routes.js'
import { REPOSITORY_ROUTES } from './repository-routes.js'
import {
  type HeaderName,
  type OtherContent,
  PATH_PARAMETERS,
  REQUEST_HEADERS,
  RESPONSE_HEADERS,
  type Route,
  type RouteRequest,
  type RouteResponse,
  TAGS,
} from './route.js'

export type Port = 'public' | 'admin'

interface PortDescription {
  readonly title: string
  readonly description: string
  readonly routes: readonly Route[]
  /** Errors possible on every route. */
  readonly errors: readonly ErrorCode[]
  /** The scope that routes require unless they name another; null: no key is required. */
  readonly scope: Scope | null
  /** Errors of authentication and of client limits. */
  readonly clientErrors: readonly ErrorCode[]
  /** Headers of every response sent by a route. */
  readonly headers: readonly HeaderName[]
}

const COMMON_ERRORS: readonly ErrorCode[] = [
  'REQUEST_MALFORMED',
  'REQUEST_TIMEOUT',
  'HEADERS_TOO_LARGE',
  'INTERNAL',
]

const KEY_ERRORS: readonly ErrorCode[] = ['UNAUTHORIZED', 'FORBIDDEN']

const PORTS: Readonly<Record<Port, PortDescription>> = {
  public: {
    title: 'onecopy',
    description: 'ONNX models over HTTP with the Open Inference Protocol V2.',
    routes: PUBLIC_ROUTES,
    errors: COMMON_ERRORS,
    scope: 'infer',
    clientErrors: [...KEY_ERRORS, 'RATE_LIMITED', 'CONCURRENCY_LIMITED'],
    headers: ['X-Request-Id'],
  },
  admin: {
    title: 'onecopy, admin port',
    description: 'Metrics, probes that are independent of inference load, and model control.',
    routes: ADMIN_ROUTES,
    // The Host of every request is checked.
    errors: [...COMMON_ERRORS, 'CROSS_ORIGIN'],
    scope: null,
    clientErrors: KEY_ERRORS,
    headers: [],
  },
}

/** Headers of error responses, by status. */
const ERROR_HEADERS: Readonly<Record<number, readonly HeaderName[]>> = {
  401: ['WWW-Authenticate'],
  415: ['Accept-Encoding'],
  429: ['Retry-After'],
  503: ['Retry-After'],
}

const SECURITY_SCHEMES = {
  bearer: { type: 'http', scheme: 'bearer', description: 'A key with the scope that the route requires.' },
  apiKey: { type: 'apiKey', in: 'header', name: 'X-API-Key', description: 'The same key.' },
} as const

function scopeOf({ scope, isOpen }: Route, port: PortDescription): Scope | null {
  return isOpen ? null : (scope ?? port.scope)
}

export interface OpenApiResponse {
  readonly description: string
  readonly headers?: Readonly<Record<string, object>>
  readonly content?: Readonly<Record<string, { readonly schema?: JsonSchema }>>
}

export interface OpenApiOperation {
  readonly operationId: string
  readonly responses: Readonly<Record<string, OpenApiResponse>>
  readonly [key: string]: unknown
}

export interface OpenApiDocument {
  readonly openapi: string
  readonly info: { readonly title: string; readonly version: string; readonly [key: string]: unknown }
  readonly paths: Readonly<Record<string, Readonly<Record<string, OpenApiOperation>>>>
  readonly components: {
    readonly schemas: Readonly<Record<string, JsonSchema>>
    readonly [key: string]: unknown
  }
  readonly [key: string]: unknown
}

/** Converts `/v2/models/:model` to `/v2/models/{model}`. */
export function templateOf(path: string): string {
  return path.replace(/:(\w+)/g, '{$1}')
}

function headersOf(names: readonly HeaderName[]): Record<string, object> {
  return Object.fromEntries(names.map((name) => [name, RESPONSE_HEADERS[name]]))
}

function parametersOf({ path, headers = [], query = [] }: Route): object[] {
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    ...PATH_PARAMETERS[name],
  }))
  const inHeader = headers.map((name) => ({ name, in: 'header', ...REQUEST_HEADERS[name] }))
  return [...inPath, ...query.map((parameter) => ({ in: 'query', ...parameter })), ...inHeader]
}

/** Bytes, but for texts: generated clients then do not take an answer for JSON. */
function otherSchema({ type, description }: OtherContent): JsonSchema {
  const bytes = type.startsWith('text/') ? {} : { format: 'binary' }
  return { type: 'string', ...bytes, description }
}

function contentOf({ json, other }: Pick<RouteResponse, 'json' | 'other'>, example?: unknown): object {
  return {
    ...(json === undefined
      ? {}
      : {
          'application/json': {
            schema: componentReference(json),
            ...(example === undefined ? {} : { example }),
          },
        }),
    ...(other === undefined ? {} : { [other.type]: { schema: otherSchema(other) } }),
  }
}

function requestBodyOf(request: RouteRequest): object {
  return { required: request.isRequired, content: contentOf(request, request.example) }
}

function ownResponse(response: RouteResponse, port: PortDescription): OpenApiResponse {
  const { description, json, other, headers = [] } = response
  const hasBody = json !== undefined || other !== undefined
  return {
    description,
    headers: headersOf([...port.headers, ...headers]),
    ...(hasBody
      ? { content: contentOf(response, response.example) as NonNullable<OpenApiResponse['content']> }
      : {}),
  }
}

function errorResponse(
  status: number,
  codes: readonly ErrorCode[],
  errorBody: ComponentName | undefined,
): OpenApiResponse {
  const code = {
    description: 'Stable, machine-readable error code.',
    schema: { type: 'string', enum: codes },
    required: true,
  }
  return {
    description: codes.map((one) => `\`${one}\``).join(', '),
    headers: { 'X-Error-Code': code, ...headersOf(ERROR_HEADERS[status] ?? []) },
    content: {
      'application/json': {
        schema:
          errorBody === undefined
            ? componentReference('Error')
            : { anyOf: [componentReference(errorBody), componentReference('Error')] },
      },
    },
  }
}

/** Merges a route's own response with an error of the same status. */
function either(own: OpenApiResponse, error: OpenApiResponse): OpenApiResponse {
  const schemas = [own, error].flatMap(({ content }) => content?.['application/json']?.schema ?? [])
  const code = { ...error.headers?.['X-Error-Code'], required: false }
  return {
    description: `${own.description} Or: ${error.description}`,
    headers: { ...error.headers, ...own.headers, 'X-Error-Code': code },
    content: { 'application/json': { schema: { anyOf: schemas } } },
  }
}

/** The status in the catalogue, plus 503 for DEADLINE_EXCEEDED because of `--deadline-status`. */
function statusesOf(code: ErrorCode): number[] {
  const { status } = ERROR_CATALOGUE[code]
  return code === 'DEADLINE_EXCEEDED' ? [status, 503] : [status]
}

function responsesOf(route: Route, port: PortDescription): Record<string, OpenApiResponse> {
  const responses: Record<string, OpenApiResponse> = {}
  for (const [status, response] of Object.entries(route.responses))
    responses[status] = ownResponse(response, port)
  const codes = [
    ...new Set<ErrorCode>([
      ...(scopeOf(route, port) === null ? [] : port.clientErrors),
      ...route.errors,
      ...port.errors,
    ]),
  ]
  const statuses = new Set(codes.flatMap(statusesOf))
  for (const status of statuses) {
    const error = errorResponse(
      status,
      codes.filter((code) => statusesOf(code).includes(status)),
      route.errorBody,
    )
    const own = responses[status]
    responses[status] = own === undefined ? error : either(own, error)
  }
  return responses
}

function operationOf(route: Route, port: PortDescription): OpenApiOperation {
  const { id, tag, summary, description, request } = route
  const scope = scopeOf(route, port)
  return {
    operationId: id,
    tags: [tag],
    summary,
    ...(description === undefined ? {} : { description }),
    parameters: parametersOf(route),
    ...(request === undefined ? {} : { requestBody: requestBodyOf(request) }),
    responses: responsesOf(route, port),
    // Without configured keys no key is required.
    security:
      scope === null ? [] : [...Object.keys(SECURITY_SCHEMES).map((name) => ({ [name]: [scope] })), {}],
  }
}

export interface DocumentFacts {
  /** The version of the server, from package.json. */
  readonly version: string
  /** Whether an Ersilia bundle is served, which adds its routes. */
  readonly hasBundle: boolean
  /** Whether clients may register shared memory. */
  readonly hasSharedMemory: boolean
  /** Whether the port answers the repository's routes. */
  readonly hasRepository: boolean
}

/** Routes that a port has under some options only. */
function optionalRoutes(port: Port, facts: Omit<DocumentFacts, 'version'>): Route[] {
  const isPublic = port === 'public'
  return [
    ...(facts.hasRepository ? REPOSITORY_ROUTES : []),
    ...(isPublic && facts.hasSharedMemory ? [...SHARED_MEMORY_ROUTES, ...CUDA_SHARED_MEMORY_ROUTES] : []),
    ...(isPublic && facts.hasBundle ? ERSILIA_ROUTES : []),
  ]
}

export function openApiDocument(port: Port, { version, ...facts }: DocumentFacts): OpenApiDocument {
  const description = PORTS[port]
  const routes = [...description.routes, ...optionalRoutes(port, facts)]
  const paths: Record<string, Record<string, OpenApiOperation>> = {}
  for (const route of routes) {
    const template = templateOf(route.path)
    paths[template] = { ...paths[template], [route.method]: operationOf(route, description) }
  }
  const used = [...JSON.stringify(paths).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(
    ([, name = '']) => name,
  )
  return {
    openapi: '3.1.0',
    info: {
      title: description.title,
      description: description.description,
      version,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    tags: Object.entries(TAGS)
      .filter(([name]) => routes.some(({ tag }) => tag === name))
      .map(([name, text]) => ({ name, description: text })),
    paths,
    components: {
      schemas: withReferences(used, componentSchemas()),
      securitySchemes: SECURITY_SCHEMES,
    },
  }
}
