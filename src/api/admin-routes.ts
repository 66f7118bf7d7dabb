/** Every route of the admin port. A test compares the table with the router. */
import type { ErrorCode } from '../errors.js'
import { ok, type Route } from './route.js'
import { DOCUMENTATION_ROUTES, HEALTH_ROUTES, SERVER_METADATA_ROUTE } from './shared-routes.js'

const BODY_ERRORS: readonly ErrorCode[] = [
  'BODY_MALFORMED',
  'REQUEST_INVALID',
  'REQUEST_CANCELLED',
  'BODY_TOO_LARGE',
  'CONTENT_ENCODING_UNSUPPORTED',
]

/** Reasons why a requested model is not served; the message says how to fix it. */
const LOAD_ERRORS: readonly ErrorCode[] = [
  'REPOSITORY_INVALID',
  'MODEL_INVALID',
  'MODEL_UNSUPPORTED',
  'COMPILE_FAILED',
  'SELF_CHECK_FAILED',
  'MODEL_CRASHED',
  'INTERFACE_CHANGED',
  'SEGMENT_INVALID',
  'MEMORY_LIMIT',
  'SEGMENT_SPACE',
  'SEGMENT_FOLDER_INVALID',
  'MAPPING_FAILED',
  'WORKER_GONE',
  'TIMEOUT',
]

const PROCESS_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/metrics',
    id: 'metrics',
    tag: 'statistics',
    summary: 'Prometheus metrics over all workers, including those that have exited',
    scope: 'metrics',
    responses: {
      200: { description: 'Metrics.', other: { type: 'text/plain', description: 'Prometheus text format.' } },
    },
    errors: [],
  },
  {
    method: 'post',
    path: '/restart',
    id: 'restart',
    tag: 'processes',
    summary: 'Restarts the workers one at a time, without failing requests',
    scope: 'admin',
    responses: {
      202: { description: 'The restart has started.', json: 'Restarting' },
      503: { description: 'A restart is not possible now.', json: 'NotRestarting' },
    },
    errors: [],
  },
]

const REPOSITORY_ROUTES: readonly Route[] = [
  {
    method: 'post',
    path: '/v2/repository/index',
    id: 'repositoryIndex',
    tag: 'repository',
    summary: 'Lists every model version with its state',
    scope: 'admin',
    request: { json: 'IndexRequest', isRequired: false, example: { ready: true } },
    responses: ok('RepositoryIndex'),
    errors: [...BODY_ERRORS, 'MODEL_NOT_READY'],
  },
  {
    method: 'post',
    path: '/v2/repository/models/:model/load',
    id: 'loadModel',
    tag: 'repository',
    summary: 'Loads a model from the repository, or reloads it',
    description: 'Requires `--model-control explicit`. Responds once every worker serves the model.',
    scope: 'admin',
    request: { json: 'LoadRequest', isRequired: false },
    responses: { 200: { description: 'The model is served.' } },
    errors: [...BODY_ERRORS, 'CONTROL_MODE', 'MODEL_NOT_FOUND', 'MODEL_NOT_READY', ...LOAD_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/repository/models/:model/unload',
    id: 'unloadModel',
    tag: 'repository',
    summary: 'Unloads a model',
    description: 'Requires `--model-control explicit`. Responds once its memory is freed.',
    scope: 'admin',
    request: { json: 'UnloadRequest', isRequired: false },
    responses: { 200: { description: 'The model is no longer served.' } },
    errors: [...BODY_ERRORS, 'CONTROL_MODE', 'MODEL_NOT_FOUND', 'MODEL_NOT_READY'],
  },
]

export const ADMIN_ROUTES: readonly Route[] = [
  ...HEALTH_ROUTES,
  SERVER_METADATA_ROUTE,
  ...PROCESS_ROUTES,
  ...REPOSITORY_ROUTES,
  ...DOCUMENTATION_ROUTES,
]
