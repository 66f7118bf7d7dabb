/** Every route of the public port. A route that is added to a router is added here; a test holds the two together. */
import { CONFIGURATION_ROUTES, STATISTICS_ROUTES } from './extension-routes.js'
import { INFERENCE_ERRORS, onModel, type Route } from './route.js'
import { SETTINGS_ROUTES } from './settings-routes.js'
import {
  DOCUMENTATION_ROUTES,
  HEALTH_ROUTES,
  MODEL_READ_ROUTES,
  SERVER_METADATA_ROUTE,
} from './shared-routes.js'
import { TEXT_ROUTES } from './text-routes.js'

const BINARY_REQUEST =
  'JSON followed by the raw tensors in the order of the inputs that declare a binary_data_size: little-endian, ' +
  'row-major, without padding. With Inference-Header-Content-Length 0 the body contains only the raw data of the single model input.'
const BINARY_RESPONSE =
  'An InferResponse, Inference-Header-Content-Length bytes long, followed by the raw tensors in the order of the ' +
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

const INFER_ROUTES: readonly Route[] = [
  ...onModel({
    method: 'post',
    suffix: '/infer',
    id: 'infer',
    tag: 'inference',
    summary: 'Runs inference',
    description:
      'Requests and responses carry tensors as JSON or binary. Request parameters: `priority` (1 is the highest, 0 the ' +
      'default), `timeout` (microseconds, covers queueing and execution), `binary_data_output`. ' +
      'Requests are safe to retry: only the statistics change.',
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
    errors: [...INFERENCE_ERRORS, 'TENSOR_INVALID'],
  }),
]

export const PUBLIC_ROUTES: readonly Route[] = [
  ...HEALTH_ROUTES,
  SERVER_METADATA_ROUTE,
  ...STATISTICS_ROUTES,
  ...MODEL_READ_ROUTES,
  ...INFER_ROUTES,
  ...TEXT_ROUTES,
  ...CONFIGURATION_ROUTES,
  ...SETTINGS_ROUTES,
  ...DOCUMENTATION_ROUTES,
]
