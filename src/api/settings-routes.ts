/** Triton's trace and logging extensions, on both ports. */
import type { ErrorCode } from '../errors.js'
import { BODY_ERRORS, ok, type Route } from './route.js'

const MODEL_ERRORS: readonly ErrorCode[] = ['MODEL_NOT_FOUND', 'MODEL_DISABLED', 'MODEL_OUT_OF_SERVICE']

function traceRoutes(path: string, suffix: string, errors: readonly ErrorCode[]): Route[] {
  return [
    {
      method: 'get',
      path,
      id: `traceSettings${suffix}`,
      tag: 'server',
      summary: 'Whether requests are traced',
      responses: ok('TraceSettings'),
      errors,
    },
    {
      method: 'post',
      path,
      id: `setTraceSettings${suffix}`,
      tag: 'server',
      summary: 'Refused where it asks for other settings than there are',
      request: { json: 'TraceSettingsRequest', isRequired: false, example: { trace_level: ['OFF'] } },
      responses: ok('TraceSettings'),
      errors: [...BODY_ERRORS, ...errors],
    },
  ]
}

export const SETTINGS_ROUTES: readonly Route[] = [
  ...traceRoutes('/v2/trace/setting', '', []),
  ...traceRoutes('/v2/models/:model/trace/setting', 'OfModel', MODEL_ERRORS),
  {
    method: 'get',
    path: '/v2/logging',
    id: 'logSettings',
    tag: 'server',
    summary: 'How much is logged',
    responses: ok('LogSettings'),
    errors: [],
  },
  {
    method: 'post',
    path: '/v2/logging',
    id: 'setLogSettings',
    tag: 'server',
    summary: 'Sets the level of the log of every process',
    description: 'On the admin port, and on the public one with `--repository-api public`.',
    scope: 'admin',
    request: { json: 'LogSettingsRequest', isRequired: false, example: { log_verbose_level: 0 } },
    responses: ok('LogSettings'),
    errors: [...BODY_ERRORS, 'CROSS_ORIGIN', 'MODEL_NOT_READY', 'SHUTTING_DOWN', 'WORKER_GONE', 'TIMEOUT'],
  },
]
