/** The structure of the route tables, and the headers and parameters that routes share. */

import type { Scope } from '../access/api-keys.js'
import type { ErrorCode } from '../errors.js'
import type { ComponentName, JsonSchema } from './components.js'

export type Method = 'get' | 'post'

/** A body that is not one of the JSON components: its media type and description. */
export interface OtherContent {
  readonly type: string
  readonly description: string
}

export interface RouteResponse {
  readonly description: string
  readonly json?: ComponentName
  readonly other?: OtherContent
  readonly headers?: readonly HeaderName[]
  /** Example of the JSON body. */
  readonly example?: unknown
}

export interface RouteRequest {
  readonly json: ComponentName
  readonly isRequired: boolean
  readonly other?: OtherContent
  /** A complete request body that can be sent unchanged. */
  readonly example?: unknown
}

export interface QueryParameter {
  readonly name: string
  readonly description: string
  readonly schema: JsonSchema
}

/** Errors of every route that reads a JSON body. */
export const BODY_ERRORS: readonly ErrorCode[] = [
  'BODY_MALFORMED',
  'REQUEST_INVALID',
  'REQUEST_CANCELLED',
  'BODY_TOO_LARGE',
  'CONTENT_ENCODING_UNSUPPORTED',
]

/** Errors of every route that runs a model on a JSON body. */
export const INFERENCE_ERRORS: readonly ErrorCode[] = [
  ...BODY_ERRORS,
  'RESPONSE_TOO_LARGE',
  'REQUEST_TOO_LARGE',
  'MODEL_RUN_FAILED',
  'MODEL_NOT_READY',
  'MODEL_DISABLED',
  'MODEL_OUT_OF_SERVICE',
  'QUEUE_FULL',
  'SHUTTING_DOWN',
  'WORKER_STALLED',
  'DEADLINE_EXCEEDED',
]

export interface Route {
  readonly method: Method
  /** In router syntax: `/v2/models/:model/ready`. */
  readonly path: string
  /** Operation id in generated clients. It must never change. */
  readonly id: string
  readonly tag: Tag
  readonly summary: string
  readonly description?: string
  readonly headers?: readonly RequestHeaderName[]
  readonly query?: readonly QueryParameter[]
  readonly request?: RouteRequest
  readonly responses: Readonly<Record<number, RouteResponse>>
  /**
   * Errors of this route, in addition to those of every route on the port. The catalogue defines their
   * statuses.
   */
  readonly errors: readonly ErrorCode[]
  /** Body of the route's own errors. Errors raised before routing use the common body. */
  readonly errorBody?: ComponentName
  /** The required scope if keys are configured; defaults to the scope of the port. */
  readonly scope?: Scope
  /** True: no key is ever required. */
  readonly isOpen?: boolean
}

export const TAGS = {
  health: 'Liveness and readiness probes.',
  server: 'Server metadata.',
  models: 'Served models with their inputs and outputs.',
  inference: 'Inference.',
  texts: 'Embeddings, classification and reranking, for models with a tokenizer.',
  molecules: 'The API of an Ersilia bundle.',
  statistics: 'Statistics and metrics.',
  'shared memory': 'Tensors in shared memory, if enabled.',
  repository: 'Loading and unloading models at runtime.',
  processes: 'Worker processes.',
  documentation: 'This document.',
} as const

export type Tag = keyof typeof TAGS

interface Header {
  readonly description: string
  readonly schema: JsonSchema
}

const jsonLength: Header = {
  description:
    'Length in bytes of the JSON at the start of the body; the tensors follow. If absent, the whole body is JSON.',
  schema: { type: 'string', pattern: '^[0-9]+$' },
}

export const REQUEST_HEADERS = {
  'Inference-Header-Content-Length': jsonLength,
  'X-Request-Id': {
    description: 'Returned with the response and written to the log.',
    schema: { type: 'string', pattern: '^[A-Za-z0-9._:/+=-]{1,128}$' },
  },
  'Content-Encoding': {
    description: 'Compression of the body, if any.',
    schema: { type: 'string', enum: ['identity', 'gzip', 'x-gzip', 'deflate'] },
  },
} as const satisfies Record<string, Header>

export type RequestHeaderName = keyof typeof REQUEST_HEADERS

export const RESPONSE_HEADERS = {
  'Inference-Header-Content-Length': jsonLength,
  'X-Request-Id': {
    description: 'The id of the request, or a generated one.',
    schema: REQUEST_HEADERS['X-Request-Id'].schema,
  },
  'Retry-After': {
    description: 'Seconds to wait before a retry.',
    schema: { type: 'string', pattern: '^[0-9]+$' },
  },
  'Accept-Encoding': { description: 'Supported compressions of a request body.', schema: { type: 'string' } },
  'WWW-Authenticate': { description: 'The expected authentication scheme.', schema: { type: 'string' } },
} as const satisfies Record<string, Header>

export type HeaderName = keyof typeof RESPONSE_HEADERS

/** Parameters in router paths. */
export const PATH_PARAMETERS: Readonly<Record<string, Header>> = {
  model: { description: 'Name of a model.', schema: { type: 'string', minLength: 1 } },
  version: {
    description: 'A version of the model, in digits.',
    schema: { type: 'string', pattern: '^[0-9]+$' },
  },
  region: { description: 'Name of a shared-memory region.', schema: { type: 'string', minLength: 1 } },
  id: { description: 'Id of a job.', schema: { type: 'string', minLength: 1 } },
  field: { description: 'Name of a field of the card.', schema: { type: 'string', minLength: 1 } },
  file: { description: 'A file of the documentation page.', schema: { type: 'string', minLength: 1 } },
}

export function ok(json: ComponentName, description = 'Success.'): Record<number, RouteResponse> {
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
