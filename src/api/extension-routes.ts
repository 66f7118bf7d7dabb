import { BODY_ERRORS, ok, onModel, type Route } from './route.js'

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

/** Where shared memory is off, none of them is there, nor in the document. */
export const SHARED_MEMORY_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v2/systemsharedmemory/status',
    id: 'sharedMemoryStatus',
    tag: 'shared memory',
    summary: 'Lists the registered regions',
    responses: ok('SharedMemoryStatus'),
    errors: [],
  },
  {
    method: 'get',
    path: '/v2/systemsharedmemory/region/:region/status',
    id: 'sharedMemoryRegionStatus',
    tag: 'shared memory',
    summary: 'Shows one registered region',
    responses: ok('SharedMemoryStatus'),
    errors: ['REGION_NOT_FOUND'],
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
    errors: ['CROSS_ORIGIN', ...BODY_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/systemsharedmemory/region/:region/unregister',
    id: 'sharedMemoryUnregister',
    tag: 'shared memory',
    summary: 'Forgets a region',
    responses: { 200: { description: 'Forgotten.' } },
    errors: ['CROSS_ORIGIN', ...BODY_ERRORS],
  },
  {
    method: 'post',
    path: '/v2/systemsharedmemory/unregister',
    id: 'sharedMemoryUnregisterAll',
    tag: 'shared memory',
    summary: 'Forgets every region',
    responses: { 200: { description: 'Forgotten.' } },
    errors: ['CROSS_ORIGIN', ...BODY_ERRORS],
  },
]

/** Of a server without a GPU, beside the routes of system shared memory. */
export const CUDA_SHARED_MEMORY_ROUTES: readonly Route[] = [
  {
    method: 'get',
    path: '/v2/cudasharedmemory/status',
    id: 'cudaSharedMemoryStatus',
    tag: 'shared memory',
    summary: 'An empty list: no CUDA region is ever registered',
    responses: ok('CudaSharedMemoryStatus'),
    errors: [],
  },
  {
    method: 'get',
    path: '/v2/cudasharedmemory/region/:region/status',
    id: 'cudaSharedMemoryRegionStatus',
    tag: 'shared memory',
    summary: 'Always 404: no CUDA region is ever registered',
    responses: ok('CudaSharedMemoryStatus', 'Never.'),
    errors: ['REGION_NOT_FOUND'],
  },
  {
    method: 'post',
    path: '/v2/cudasharedmemory/region/:region/register',
    id: 'cudaSharedMemoryRegister',
    tag: 'shared memory',
    summary: 'Always 400: not supported on this server',
    responses: { 200: { description: 'Never.' } },
    errors: ['CROSS_ORIGIN', 'REQUEST_INVALID'],
  },
  {
    method: 'post',
    path: '/v2/cudasharedmemory/region/:region/unregister',
    id: 'cudaSharedMemoryUnregister',
    tag: 'shared memory',
    summary: 'Changes nothing',
    responses: { 200: { description: 'None is registered.' } },
    errors: ['CROSS_ORIGIN'],
  },
  {
    method: 'post',
    path: '/v2/cudasharedmemory/unregister',
    id: 'cudaSharedMemoryUnregisterAll',
    tag: 'shared memory',
    summary: 'Changes nothing',
    responses: { 200: { description: 'None is registered.' } },
    errors: ['CROSS_ORIGIN'],
  },
]
