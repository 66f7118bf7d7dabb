/** Routes of the protocol extensions. */
import type { ErrorCode } from '../errors.js'
import { ok, onModel, type Route } from './route.js'

export const STATISTICS_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v2/models/stats',
    id: 'allStatistics',
    tag: 'statistics',
    summary: 'Statistics of every model',
    responses: ok('Statistics', 'Totals over all workers, including those that have exited.'),
    errors: [],
  },
  ...onModel({
    method: 'get',
    suffix: '/stats',
    id: 'statistics',
    tag: 'statistics',
    summary: 'Statistics of a model',
    responses: ok('Statistics', 'Totals over all workers, including those that have exited.'),
    errors: ['MODEL_DISABLED', 'MODEL_OUT_OF_SERVICE'],
  }),
]

export const CONFIGURATION_ROUTES: readonly Route[] = onModel({
  method: 'get',
  suffix: '/config',
  id: 'modelConfiguration',
  tag: 'models',
  summary: 'Model configuration in the format of Triton',
  responses: ok('ModelConfiguration'),
  errors: ['MODEL_DISABLED', 'MODEL_OUT_OF_SERVICE'],
})

const REGISTER_ERRORS: readonly ErrorCode[] = [
  'BODY_MALFORMED',
  'REQUEST_INVALID',
  'REQUEST_CANCELLED',
  'BODY_TOO_LARGE',
  'CONTENT_ENCODING_UNSUPPORTED',
]

/** These routes do not exist unless shared memory is enabled. */
export const SHARED_MEMORY_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v2/systemsharedmemory/status',
    id: 'sharedMemoryStatus',
    tag: 'shared memory',
    summary: 'Lists the registered regions',
    responses: ok('SharedMemoryStatus'),
    errors: ['ROUTE_NOT_FOUND'],
  },
  {
    method: 'get',
    path: '/v2/systemsharedmemory/region/:region/status',
    id: 'sharedMemoryRegionStatus',
    tag: 'shared memory',
    summary: 'Shows one registered region',
    responses: ok('SharedMemoryStatus'),
    errors: ['ROUTE_NOT_FOUND', 'REGION_NOT_FOUND'],
  },
  {
    method: 'post',
    path: '/v2/systemsharedmemory/region/:region/register',
    id: 'sharedMemoryRegister',
    tag: 'shared memory',
    summary: 'Registers a region under a name',
    request: {
      json: 'SharedMemoryRequest',
      isRequired: true,
      example: { key: '/tensors', offset: 0, byte_size: 4096 },
    },
    responses: { 200: { description: 'Registered.' } },
    errors: ['ROUTE_NOT_FOUND', 'CROSS_ORIGIN', ...REGISTER_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/systemsharedmemory/region/:region/unregister',
    id: 'sharedMemoryUnregister',
    tag: 'shared memory',
    summary: 'Unregisters a region',
    responses: { 200: { description: 'Unregistered.' } },
    errors: ['ROUTE_NOT_FOUND', 'CROSS_ORIGIN', ...REGISTER_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/systemsharedmemory/unregister',
    id: 'sharedMemoryUnregisterAll',
    tag: 'shared memory',
    summary: 'Unregisters every region',
    responses: { 200: { description: 'Unregistered.' } },
    errors: ['ROUTE_NOT_FOUND', 'CROSS_ORIGIN', ...REGISTER_ERRORS],
  },
]
