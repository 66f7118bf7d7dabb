/** Routes of an Ersilia bundle. Their error bodies are `{"detail": ...}`, as Ersilia clients expect. */
import type { ErrorCode } from '../errors.js'
import type { QueryParameter, Route, RouteResponse } from './route.js'

const FLAG = { type: 'string', enum: ['true', 'false'], default: 'false' } as const

const RUN_QUERY: readonly QueryParameter[] = [
  {
    name: 'orient',
    description: 'Layout of the rows, as in pandas.',
    schema: { type: 'string', enum: ['records', 'columns', 'values', 'split', 'index'], default: 'records' },
  },
  {
    name: 'output_type',
    description: '`simple`: JSON; `heavy`: a binary format for many rows.',
    schema: { type: 'string', enum: ['simple', 'heavy'], default: 'simple' },
  },
  { name: 'fetch_cache', description: 'Use cached rows.', schema: FLAG },
  { name: 'save_cache', description: 'Store computed rows in the cache.', schema: FLAG },
  {
    name: 'cache_only',
    description: 'Compute nothing: molecules without a cached row get a row of nulls.',
    schema: FLAG,
  },
  {
    name: 'min_workers',
    description: 'Accepted and ignored: the server configures the workers.',
    schema: { type: 'string', pattern: '^[1-9][0-9]{0,8}$' },
  },
  {
    name: 'max_workers',
    description: 'Accepted and ignored: the server configures the workers.',
    schema: { type: 'string', pattern: '^[1-9][0-9]{0,8}$' },
  },
]

const ORIENT = RUN_QUERY.filter(({ name }) => name === 'orient')

/** ROUTE_NOT_FOUND: no bundle is served. The others occur when the first request opens the bundle. */
const OPEN_ERRORS: readonly ErrorCode[] = [
  'ROUTE_NOT_FOUND',
  'BUNDLE_INVALID',
  'MODEL_NOT_READY',
  'MODEL_DISABLED',
  'MODEL_OUT_OF_SERVICE',
  'MODEL_RUN_FAILED',
  'TRANSFORM_UNAVAILABLE',
]

const RUN_ERRORS: readonly ErrorCode[] = [
  ...OPEN_ERRORS,
  'INPUT_INVALID',
  'BODY_TOO_LARGE',
  'REQUEST_TOO_LARGE',
  'BODY_MALFORMED',
  'CONTENT_ENCODING_UNSUPPORTED',
  'REQUEST_CANCELLED',
  'RESPONSE_TOO_LARGE',
  'QUEUE_FULL',
  'SHUTTING_DOWN',
  'WORKER_STALLED',
  'BREAKER_OPEN',
  'DEADLINE_EXCEEDED',
]

function json(description: string): Record<number, RouteResponse> {
  return { 200: { description, other: { type: 'application/json', description } } }
}

const common = { tag: 'molecules', errorBody: 'ErrorDetail' } as const

const MOLECULES = {
  json: 'Molecules',
  isRequired: true,
  example: ['CCO', 'c1ccccc1O'],
} as const

function get(path: string, id: string, summary: string, errors: readonly ErrorCode[] = []): Route {
  return {
    ...common,
    method: 'get',
    path,
    id,
    summary,
    responses: json(summary),
    errors: [...OPEN_ERRORS, ...errors],
  }
}

export const ERSILIA_ROUTES: readonly Route[] = [
  {
    ...common,
    method: 'post',
    path: '/run',
    id: 'runMolecules',
    summary: 'Computes one row per molecule; invalid molecules get nulls',
    query: RUN_QUERY,
    headers: ['Content-Encoding'],
    request: MOLECULES,
    responses: {
      200: {
        description: 'The rows.',
        other: {
          type: '*/*',
          description: 'JSON in the layout of `orient`, or bytes for `output_type=heavy`.',
        },
      },
    },
    errors: RUN_ERRORS,
  },
  {
    ...common,
    method: 'post',
    path: '/job/submit',
    id: 'submitJob',
    summary: 'Submits the same request as an asynchronous job',
    query: RUN_QUERY,
    headers: ['Content-Encoding'],
    request: MOLECULES,
    responses: json('The id of the job.'),
    errors: [...RUN_ERRORS, 'SEGMENT_SPACE', 'CROSS_ORIGIN'],
  },
  get('/job/status/:id', 'jobStatus', 'Whether a job is pending, completed or failed', ['JOB_NOT_FOUND']),
  get('/job/result/:id', 'jobResult', 'The result of a completed job', ['JOB_NOT_FOUND']),
  get('/', 'bundleName', 'Identifier and slug of the bundle'),
  get('/run/example/input', 'exampleInput', 'Example molecules'),
  {
    ...get('/run/example/output', 'exampleOutput', 'Expected output for the example molecules', [
      'INPUT_INVALID',
      'ROUTE_NOT_FOUND',
    ]),
    query: ORIENT,
  },
  get('/run/columns/input', 'inputColumns', 'Header of the input file'),
  get('/run/columns/output', 'outputColumns', 'Header of the output file'),
  get('/card', 'card', 'The model card'),
  get('/card/:field', 'cardField', 'One field of the model card'),
  get('/models/status', 'bundleStatus', 'The model and its worker processes'),
  get('/healthz', 'bundleHealth', 'State of the circuit breaker and load of the machine'),
]
