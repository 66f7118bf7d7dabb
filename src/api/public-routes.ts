/** Every route of the public port. A route that is added to a router is added here; a test holds the two together. */
import { CONFIGURATION_ROUTES, SHARED_MEMORY_ROUTES, STATISTICS_ROUTES } from './extension-routes.js'
import { ok, onModel, type Route } from './route.js'
import { DOCUMENTATION_ROUTES, HEALTH_ROUTES, SERVER_METADATA_ROUTE } from './shared-routes.js'
import { TEXT_ROUTES } from './text-routes.js'

const BINARY_REQUEST =
  'JSON, and behind it the raw tensors in the order of the inputs that declare a binary_data_size: little-endian, ' +
  'row-major, without padding. With Inference-Header-Content-Length 0 the body is the one input of the model and nothing else.'
const BINARY_RESPONSE =
  'An InferResponse, Inference-Header-Content-Length bytes long, and behind it the raw tensors in the order of the ' +
  'outputs that have a binary_data_size.'

const INFER_EXAMPLE = {
  id: 'an-id-of-your-own',
  inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [0.5, 2] }],
}

const INFER_ANSWER_EXAMPLE = {
  model_name: 'add',
  model_version: '1',
  id: 'an-id-of-your-own',
  outputs: [{ name: 'y', shape: [1, 2], datatype: 'FP32', data: [1.5, 4] }],
}

const MODEL_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v2/models',
    id: 'modelList',
    tag: 'models',
    summary: 'Names of the models that are served',
    responses: ok('ModelList'),
    errors: [],
  },
  ...onModel({
    method: 'get',
    suffix: '',
    id: 'modelMetadata',
    tag: 'models',
    summary: 'Inputs and outputs',
    responses: ok('ModelMetadata'),
    errors: ['MODEL_DISABLED', 'MODEL_OUT_OF_SERVICE'],
  }),
  ...onModel({
    method: 'get',
    suffix: '/ready',
    id: 'modelReady',
    tag: 'models',
    summary: 'Whether the model answers',
    responses: {
      ...ok('ModelReady', 'It does.'),
      503: { description: 'It does not.', json: 'ModelNotReady', headers: ['Retry-After'] },
    },
    errors: [],
  }),
  ...onModel({
    method: 'post',
    suffix: '/infer',
    id: 'infer',
    tag: 'inference',
    summary: 'Inference',
    description:
      'Tensors as JSON or binary, in both directions. Parameters of the request: `priority` (1 is the highest, 0 the ' +
      'default), `timeout` (microseconds, for the wait in the queue and for the result), `binary_data_output`. ' +
      'A request may be repeated: it changes nothing but what is counted.',
    headers: ['Inference-Header-Content-Length', 'Content-Encoding'],
    request: {
      json: 'InferRequest',
      isRequired: true,
      other: { type: 'application/octet-stream', description: BINARY_REQUEST },
      example: INFER_EXAMPLE,
    },
    responses: {
      200: {
        description: 'The outputs.',
        json: 'InferResponse',
        other: { type: 'application/octet-stream', description: BINARY_RESPONSE },
        headers: ['Inference-Header-Content-Length'],
        example: INFER_ANSWER_EXAMPLE,
      },
    },
    errors: [
      'BODY_MALFORMED',
      'TENSOR_INVALID',
      'REQUEST_INVALID',
      'REQUEST_CANCELLED',
      'RESPONSE_TOO_LARGE',
      'BODY_TOO_LARGE',
      'REQUEST_TOO_LARGE',
      'CONTENT_ENCODING_UNSUPPORTED',
      'MODEL_RUN_FAILED',
      'MODEL_NOT_READY',
      'MODEL_DISABLED',
      'MODEL_OUT_OF_SERVICE',
      'QUEUE_FULL',
      'SHUTTING_DOWN',
      'WORKER_STALLED',
      'DEADLINE_EXCEEDED',
    ],
  }),
]

export const PUBLIC_ROUTES: readonly Route[] = [
  ...HEALTH_ROUTES,
  SERVER_METADATA_ROUTE,
  ...STATISTICS_ROUTES,
  ...MODEL_ROUTES,
  ...TEXT_ROUTES,
  ...CONFIGURATION_ROUTES,
  ...SHARED_MEMORY_ROUTES,
  ...DOCUMENTATION_ROUTES,
]
