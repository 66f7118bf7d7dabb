/** Every route of the admin port; a test holds it to the router. */
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

/** Why a model that was asked for is not served: the text says what to mend. */
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
    summary: 'Metrics for Prometheus, over all workers, living and dead',
    scope: 'metrics',
    responses: {
      200: { description: 'The metrics.', other: { type: 'text/plain', description: "Prometheus' text." } },
    },
    errors: [],
  },
  {
    method: 'post',
    path: '/restart',
    id: 'restart',
    tag: 'processes',
    summary: 'Replaces every worker, one at a time; no request fails',
    scope: 'admin',
    responses: {
      202: { description: 'It begins.', json: 'Restarting' },
      503: { description: 'It cannot.', json: 'NotRestarting' },
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
    summary: 'Every model version: served, on its way, or why not',
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
    summary: 'Serves a model of the repository, or its newest form',
    description: 'With `--model-control explicit`. Answers when every worker serves it.',
    scope: 'admin',
    request: { json: 'LoadRequest', isRequired: false },
    responses: { 200: { description: 'It is served.' } },
    errors: [...BODY_ERRORS, 'CONTROL_MODE', 'MODEL_NOT_FOUND', 'MODEL_NOT_READY', ...LOAD_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/repository/models/:model/unload',
    id: 'unloadModel',
    tag: 'repository',
    summary: 'Serves a model no more',
    description: 'With `--model-control explicit`. Answers when its memory is given back.',
    scope: 'admin',
    request: { json: 'UnloadRequest', isRequired: false },
    responses: { 200: { description: 'It is not served any more.' } },
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
