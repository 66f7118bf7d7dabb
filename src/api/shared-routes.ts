/** Routes that both ports have. */
import { ok, onModel, type Route } from './route.js'

export const HEALTH_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v2/health/live',
    id: 'serverLive',
    tag: 'health',
    summary: 'Whether the server is alive',
    responses: ok('ServerLive'),
    isOpen: true,
    errors: [],
  },
  {
    method: 'get',
    path: '/v2/health/ready',
    id: 'serverReady',
    tag: 'health',
    summary: 'Whether the server and all its models are ready',
    description: 'Not ready as soon as shutdown begins, so that load balancers stop sending requests.',
    responses: {
      ...ok('ServerReady', 'The server is ready.'),
      503: { description: 'The server is not ready.', json: 'ServerNotReady', headers: ['Retry-After'] },
    },
    isOpen: true,
    errors: [],
  },
]

export const SERVER_METADATA_ROUTE: Route = {
  method: 'get',
  path: '/v2',
  id: 'serverMetadata',
  tag: 'server',
  summary: 'Name, version and extensions',
  responses: ok('ServerMetadata'),
  errors: [],
}

/** These routes do not exist with `--docs off`. */
export const DOCUMENTATION_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/openapi.json',
    id: 'openapi',
    tag: 'documentation',
    summary: 'This document',
    responses: ok('OpenApi', 'OpenAPI 3.1.'),
    isOpen: true,
    errors: ['ROUTE_NOT_FOUND'],
  },
  {
    method: 'get',
    path: '/docs',
    id: 'docs',
    tag: 'documentation',
    summary: 'Interactive page for trying every route',
    responses: {
      200: { description: 'Documentation page.', other: { type: 'text/html', description: 'HTML.' } },
      302: {
        description: 'Redirect from /docs/ to /docs.',
        other: { type: '*/*', description: 'The target, as text or HTML.' },
      },
    },
    isOpen: true,
    errors: ['ROUTE_NOT_FOUND'],
  },
  {
    method: 'get',
    path: '/docs/:file',
    id: 'docsFile',
    tag: 'documentation',
    summary: 'A file of the documentation page',
    responses: {
      200: {
        description: 'The file.',
        other: { type: '*/*', description: 'Depends on the file extension.' },
      },
    },
    isOpen: true,
    errors: ['ROUTE_NOT_FOUND'],
  },
]

/** What is served, without inference. */
export const MODEL_READ_ROUTES: readonly Route[] = [
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
]
