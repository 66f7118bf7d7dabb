/** Routes of an Ersilia bundle. Their error bodies are `{"detail": ...}`, as Ersilia clients expect. */
import type { ErrorCode } from '../errors.js'
import type { ComponentName } from './components.js'
import { ok, type QueryParameter, type Route } from './route.js'

const FLAG = { type: 'boolean', default: false } as const
const WORKERS = { type: 'integer', minimum: 1, maximum: 999_999_999 } as const

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
    description: "Taken and not used: workers are the server's.",
    schema: WORKERS,
  },
  {
    name: 'max_workers',
    description: "Taken and not used: workers are the server's.",
    schema: WORKERS,
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

const common = { tag: 'molecules', errorBody: 'ErrorDetail' } as const

const MOLECULES = {
  json: 'Molecules',
  isRequired: true,
  example: ['CCO', 'c1ccccc1O'],
} as const

interface Described {
  readonly id: string
  readonly summary: string
  readonly json: ComponentName
}

function get(path: string, { json, ...described }: Described, errors: readonly ErrorCode[] = []): Route {
  return {
    ...{ ...common, ...described, method: 'get', path },
    responses: ok(json, described.summary),
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
        description: 'The rows: JSON as `orient` says, or bytes for `output_type=heavy`.',
        json: 'MoleculeRows',
        other: {
          type: 'application/octet-stream',
          description: 'A line of JSON, and behind it the numbers.',
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
    responses: ok('JobSubmitted', 'The id of the job.'),
    errors: [...RUN_ERRORS, 'SEGMENT_SPACE', 'CROSS_ORIGIN'],
  },
  get(
    '/job/status/:id',
    { id: 'jobStatus', summary: 'Whether a job is pending, completed or failed', json: 'JobStatus' },
    ['JOB_NOT_FOUND'],
  ),
  get(
    '/job/result/:id',
    { id: 'jobResult', summary: 'What a job gave, once it is completed', json: 'JobResult' },
    ['JOB_NOT_FOUND'],
  ),
  {
    ...common,
    method: 'post',
    path: '/job/jobs/reset',
    id: 'resetJobs',
    summary: 'Forgets every job that has ended',
    responses: ok('JobsReset', 'They are forgotten.'),
    errors: [...OPEN_ERRORS, 'CROSS_ORIGIN'],
  },
  get('/', { id: 'bundleName', summary: 'Identifier and slug of the bundle', json: 'BundleName' }),
  get('/run/example/input', { id: 'exampleInput', summary: 'Molecules to try', json: 'TextList' }),
  {
    ...get(
      '/run/example/output',
      { id: 'exampleOutput', summary: 'What the bundle says they give', json: 'MoleculeRows' },
      ['INPUT_INVALID', 'ROUTE_NOT_FOUND'],
    ),
    query: ORIENT,
  },
  get('/run/columns/input', { id: 'inputColumns', summary: 'Header of the input file', json: 'TextList' }),
  get('/run/columns/output', { id: 'outputColumns', summary: 'Header of the output file', json: 'TextList' }),
  get('/card', { id: 'card', summary: 'What is known about the model', json: 'Card' }),
  get('/card/:field', { id: 'cardField', summary: 'One field of that', json: 'Card' }, ['INPUT_INVALID']),
  {
    ...common,
    method: 'get',
    path: '/redoc',
    id: 'redoc',
    summary: 'The page of the documentation, under the name that another has elsewhere',
    responses: {
      200: {
        description: 'The page, for those who follow the redirect.',
        other: { type: 'text/html', description: 'HTML.' },
      },
      302: { description: 'To /docs.', other: { type: '*/*', description: 'Where it is.' } },
    },
    errors: ['ROUTE_NOT_FOUND'],
  },
  get('/models/status', {
    id: 'bundleStatus',
    summary: 'The model, and the processes that serve it',
    json: 'BundleStatus',
  }),
  get('/healthz', {
    id: 'bundleHealth',
    summary: 'The breaker, and how busy the machine is',
    json: 'BundleHealth',
  }),
]
