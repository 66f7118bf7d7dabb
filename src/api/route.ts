/** What the table of routes says about each of them. */

import type { Scope } from '../access/api-keys.js'
import type { ErrorCode } from '../errors.js'
import type { ComponentName, JsonSchema } from './components.js'

export type Method = 'get' | 'post'

/** A body that is not JSON by one of the components: its media type, and what it is. */
export interface OtherContent {
  readonly type: string
  readonly description: string
}

export interface RouteResponse {
  readonly description: string
  readonly json?: ComponentName
  readonly other?: OtherContent
  readonly headers?: readonly HeaderName[]
  /** Of the JSON. */
  readonly example?: unknown
}

export interface RouteRequest {
  readonly json: ComponentName
  readonly isRequired: boolean
  readonly other?: OtherContent
  /** A request that can be sent as it stands. */
  readonly example?: unknown
}

export interface QueryParameter {
  readonly name: string
  readonly description: string
  readonly schema: JsonSchema
}

export interface Route {
  readonly method: Method
  /** As the router has it: `/v2/models/:model/ready`. */
  readonly path: string
  /** Names the route in generated clients; permanent. */
  readonly id: string
  readonly tag: Tag
  readonly summary: string
  readonly description?: string
  readonly headers?: readonly RequestHeaderName[]
  readonly query?: readonly QueryParameter[]
  readonly request?: RouteRequest
  readonly responses: Readonly<Record<number, RouteResponse>>
  /** What can go wrong beyond what can on every route of the port; statuses are the catalogue's. */
  readonly errors: readonly ErrorCode[]
  /** The form of its own errors; those in front of every route have the common one. */
  readonly errorBody?: ComponentName
  /** What a key must be good for, where keys are asked for; that of its port where nothing is said. */
  readonly scope?: Scope
  /** Never asks for a key. */
  readonly isOpen?: boolean
}

export const TAGS = {
  health: 'Probes.',
  server: 'What this server is.',
  models: 'What is served, and what it takes and gives.',
  inference: 'The point of it all.',
  texts: 'Embeddings, classification, reranking: on models that come with a tokenizer.',
  molecules: 'The API of an Ersilia bundle.',
  statistics: 'What was counted.',
  'shared memory': 'Tensors by reference, where it is switched on.',
  repository: 'Models that come and go while the server serves.',
  processes: 'What holds the server up.',
  documentation: 'This document.',
} as const

export type Tag = keyof typeof TAGS

interface Header {
  readonly description: string
  readonly schema: JsonSchema
}

const jsonLength: Header = {
  description: 'Bytes of JSON at the start of the body; the tensors follow. Absent: all of it is JSON.',
  schema: { type: 'string', pattern: '^[0-9]+$' },
}

export const REQUEST_HEADERS = {
  'Inference-Header-Content-Length': jsonLength,
  'X-Request-Id': {
    description: 'Comes back with the answer and stands in the log.',
    schema: { type: 'string', pattern: '^[A-Za-z0-9._:/+=-]{1,128}$' },
  },
  'Content-Encoding': {
    description: 'How the body is compressed, where it is.',
    schema: { type: 'string', enum: ['identity', 'gzip', 'x-gzip', 'deflate'] },
  },
} as const satisfies Record<string, Header>

export type RequestHeaderName = keyof typeof REQUEST_HEADERS

export const RESPONSE_HEADERS = {
  'Inference-Header-Content-Length': jsonLength,
  'X-Request-Id': {
    description: "The request's, or one made for it.",
    schema: REQUEST_HEADERS['X-Request-Id'].schema,
  },
  'Retry-After': {
    description: 'Seconds after which the request is worth repeating.',
    schema: { type: 'string', pattern: '^[0-9]+$' },
  },
  'Accept-Encoding': { description: 'How a body may be compressed.', schema: { type: 'string' } },
  'WWW-Authenticate': { description: 'How to say who asks.', schema: { type: 'string' } },
} as const satisfies Record<string, Header>

export type HeaderName = keyof typeof RESPONSE_HEADERS

/** The segments of a router's path that stand for something. */
export const PATH_PARAMETERS: Readonly<Record<string, Header>> = {
  model: { description: 'Name of a model.', schema: { type: 'string', minLength: 1 } },
  version: {
    description: 'One of its versions, in digits.',
    schema: { type: 'string', pattern: '^[0-9]+$' },
  },
  region: { description: 'Name of a shared-memory region.', schema: { type: 'string', minLength: 1 } },
  id: { description: 'Of a job.', schema: { type: 'string', minLength: 1 } },
  field: { description: 'Name of a field of the card.', schema: { type: 'string', minLength: 1 } },
  file: { description: 'A file of the page.', schema: { type: 'string', minLength: 1 } },
}

export function ok(json: ComponentName, description = 'The answer.'): Record<number, RouteResponse> {
  return { 200: { description, json } }
}

/** The route with and without a version in its path. */
export function onModel(route: Omit<Route, 'path'> & { readonly suffix: string }): Route[] {
  const { suffix, errors, ...rest } = route
  const common = { ...rest, errors: [...errors, 'MODEL_NOT_FOUND' as const] }
  return [
    { ...common, path: `/v2/models/:model${suffix}` },
    {
      ...common,
      id: `${route.id}OfVersion`,
      path: `/v2/models/:model/versions/:version${suffix}`,
      summary: `${route.summary}, of one version`,
    },
  ]
}
