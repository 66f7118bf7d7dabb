/** The repository extension; which ports have it is an option. */
import type { ErrorCode } from '../errors.js'
import { BODY_ERRORS, ok, type Route } from './route.js'

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

/** Of a server that starts or ends. */
const CONTROL_ERRORS: readonly ErrorCode[] = ['MODEL_NOT_READY', 'SHUTTING_DOWN', 'CROSS_ORIGIN']

export const REPOSITORY_ROUTES: readonly Route[] = [
  {
    method: 'post',
    path: '/v2/repository/index',
    id: 'repositoryIndex',
    tag: 'repository',
    summary: 'Every model version: served, on its way, or why not',
    scope: 'admin',
    request: { json: 'IndexRequest', isRequired: false, example: { ready: true } },
    responses: ok('RepositoryIndex'),
    errors: [...BODY_ERRORS, ...CONTROL_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/repository/models/:model/load',
    id: 'loadModel',
    tag: 'repository',
    summary: 'Serves a model of the repository, or its newest form',
    description:
      "With `--model-control explicit`. Answers when every worker serves it. `parameters.config` takes the place of the model's " +
      'config.json until the next load.',
    scope: 'admin',
    request: {
      json: 'LoadRequest',
      isRequired: false,
      example: { parameters: { config: '{"max_batch_size":8}' } },
    },
    responses: { 200: { description: 'It is served.' } },
    errors: [...BODY_ERRORS, 'CONTROL_MODE', 'MODEL_NOT_FOUND', ...CONTROL_ERRORS, ...LOAD_ERRORS],
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
    errors: [...BODY_ERRORS, 'CONTROL_MODE', 'MODEL_NOT_FOUND', ...CONTROL_ERRORS],
  },
]
