/** Routes that an Ersilia bundle brings, where one is served. Their errors are `{"detail": ...}`, as its clients expect. */
import type { ErrorCode } from '../errors.js'
import type { QueryParameter, Route, RouteResponse } from './route.js'

const FLAG = { type: 'string', enum: ['true', 'false'], default: 'false' } as const

const RUN_QUERY: readonly QueryParameter[] = [
  {
    name: 'orient',
    description: 'How the rows are laid out, as pandas has it.',
    schema: { type: 'string', enum: ['records', 'columns', 'values', 'split', 'index'], default: 'records' },
  },
  {
    name: 'output_type',
    description: 'JSON, or the binary form for many rows.',
    schema: { type: 'string', enum: ['simple', 'heavy'], default: 'simple' },
  },
  { name: 'fetch_cache', description: 'Rows that are kept are not computed again.', schema: FLAG },
  { name: 'save_cache', description: 'What is computed is kept.', schema: FLAG },
  {
    name: 'cache_only',
    description: 'Nothing is computed: what is not kept is a row of nulls.',
    schema: FLAG,
  },
  {
    name: 'min_workers',
    description: "Taken and not used: workers are the server's.",
    schema: { type: 'string', pattern: '^[1-9][0-9]{0,8}$' },
  },
  {
    name: 'max_workers',
    description: "Taken and not used: workers are the server's.",
    schema: { type: 'string', pattern: '^[1-9][0-9]{0,8}$' },
  },
]

const ORIENT = RUN_QUERY.filter(({ name }) => name === 'orient')

/** Where no bundle is served there are none; one that is opened by its first request can fail then. */
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
    summary: 'A row for every molecule; nulls for what is none',
    query: RUN_QUERY,
    headers: ['Content-Encoding'],
    request: MOLECULES,
    responses: {
      200: {
        description: 'The rows.',
        other: { type: '*/*', description: 'JSON as `orient` says, or bytes for `output_type=heavy`.' },
      },
    },
    errors: RUN_ERRORS,
  },
  {
    ...common,
    method: 'post',
    path: '/job/submit',
    id: 'submitJob',
    summary: 'The same, answered later',
    query: RUN_QUERY,
    headers: ['Content-Encoding'],
    request: MOLECULES,
    responses: json('The id of the job.'),
    errors: [...RUN_ERRORS, 'SEGMENT_SPACE', 'CROSS_ORIGIN'],
  },
  get('/job/status/:id', 'jobStatus', 'Whether a job is pending, completed or failed', ['JOB_NOT_FOUND']),
  get('/job/result/:id', 'jobResult', 'What a job gave, once it is completed', ['JOB_NOT_FOUND']),
  get('/', 'bundleName', 'Identifier and slug of the bundle'),
  get('/run/example/input', 'exampleInput', 'Molecules to try'),
  {
    ...get('/run/example/output', 'exampleOutput', 'What the bundle says they give', [
      'INPUT_INVALID',
      'ROUTE_NOT_FOUND',
    ]),
    query: ORIENT,
  },
  get('/run/columns/input', 'inputColumns', 'Header of the input file'),
  get('/run/columns/output', 'outputColumns', 'Header of the output file'),
  get('/card', 'card', 'What is known about the model'),
  get('/card/:field', 'cardField', 'One field of that'),
  get('/models/status', 'bundleStatus', 'The model, and the processes that serve it'),
  get('/healthz', 'bundleHealth', 'The breaker, and how busy the machine is'),
]
