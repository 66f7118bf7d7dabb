/**
 * Triton's trace and logging extensions. Only the log level can be changed at run time; all other settings
 * are fixed at startup, and a request for another value is rejected.
 */
import type Router from '@koa/router'
import type { Middleware } from 'koa'
import * as z from 'zod'
import {
  type LogSettings,
  logSettingsRequestSchema,
  type TraceSettings,
  traceSettingsRequestSchema,
} from '../../api/schemas.js'
import type { LogLevel, ServerControl } from '../../api/server-control.js'
import { OnecopyError } from '../../errors.js'
import type { ModelDirectory } from '../../inference/service.js'
import type { Log } from '../../log.js'
import { readJson } from '../json-body.js'
import { modelOf } from './models.js'

export interface SettingsRoutesOptions {
  readonly models: ModelDirectory
  readonly log: Log
  readonly isTracing: boolean
  /** Null if log settings cannot be changed on this port. */
  readonly control: Pick<ServerControl, 'setLogLevel'> | null
  readonly guard: readonly Middleware[]
}

/** In Triton's format; spans of all requests go to a collector. */
export function traceSettings(isTracing: boolean): TraceSettings {
  return {
    trace_level: [isTracing ? 'TIMESTAMPS' : 'OFF'],
    trace_rate: '1',
    trace_count: '-1',
    log_frequency: '0',
    trace_file: '',
    trace_mode: 'opentelemetry',
  }
}

/** Triton's switches as a pino level: the least severe one that is on. */
export function logSettings(level: string): LogSettings {
  const verbose = { trace: 2, debug: 1 }[level] ?? 0
  return {
    log_file: '',
    log_info: verbose > 0 || level === 'info',
    log_warning: verbose > 0 || level === 'info' || level === 'warn',
    log_error: level !== 'fatal',
    log_verbose_level: verbose,
    log_format: 'default',
  }
}

/** The pino level for these switches. */
export function levelOf(settings: LogSettings): LogLevel {
  if (settings.log_verbose_level > 0) return settings.log_verbose_level > 1 ? 'trace' : 'debug'
  if (settings.log_info) return 'info'
  if (settings.log_warning) return 'warn'
  return settings.log_error ? 'error' : 'fatal'
}

/**
 * Checks settings that are fixed at startup; null requests the default, which is the fixed value.
 * @throws OnecopyError REQUEST_INVALID naming the first setting with another value.
 */
export function requireUnchanged(
  asked: Readonly<Record<string, unknown>>,
  current: Readonly<Record<string, unknown>>,
  remedy: string,
): void {
  for (const [name, value] of Object.entries(asked)) {
    if (value === null || value === undefined) continue
    const is = current[name]
    if (String(value) === String(is)) continue
    const expected = is === undefined ? `no setting ${JSON.stringify(name)}` : `${name} ${JSON.stringify(is)}`
    throw new OnecopyError('REQUEST_INVALID', `expected ${expected}, got ${JSON.stringify(value)}: ${remedy}`)
  }
}

const TRACE_REMEDY = 'traces are configured when the server starts (--otlp-endpoint)'
const LOG_REMEDY =
  'only log_info, log_warning, log_error and log_verbose_level can be set while the server serves'

/** @throws OnecopyError REQUEST_INVALID if a request has another value. */
export function checkTraceSettings(asked: Readonly<Record<string, unknown>>, isTracing: boolean): void {
  requireUnchanged(asked, { ...traceSettings(isTracing) }, TRACE_REMEDY)
}

/**
 * Sets the log level of every process and resolves with it.
 * @throws OnecopyError REQUEST_INVALID.
 */
export async function changeLogSettings(
  given: Readonly<Record<string, unknown>>,
  { log, control }: { readonly log: Log; readonly control: Pick<ServerControl, 'setLogLevel'> | null },
): Promise<LogLevel> {
  const parsed = logSettingsRequestSchema.safeParse(given)
  if (!parsed.success) throw new OnecopyError('REQUEST_INVALID', z.prettifyError(parsed.error))
  const { log_info, log_warning, log_error, log_verbose_level, ...rest } = parsed.data
  const current = logSettings(log.level)
  requireUnchanged(rest, { ...current }, LOG_REMEDY)
  const level = levelOf({
    ...current,
    log_info: log_info ?? current.log_info,
    log_warning: log_warning ?? current.log_warning,
    log_error: log_error ?? current.log_error,
    log_verbose_level: log_verbose_level ?? current.log_verbose_level,
  })
  if (level === log.level) return level
  if (control === null) {
    throw new OnecopyError(
      'REQUEST_INVALID',
      'the log is set on the admin port, and on the public one with --repository-api public',
    )
  }
  await control.setLogLevel(level)
  return level
}

export function settingsRoutes(router: Router, options: SettingsRoutesOptions): void {
  const { models, log, isTracing, control, guard } = options
  for (const path of ['/v2/trace/setting', '/v2/models/:model/trace/setting']) {
    router.get(path, (ctx) => {
      if ((ctx.params as { model?: string }).model !== undefined) modelOf(ctx, { models })
      ctx.body = traceSettings(isTracing)
    })
    router.post(path, async (ctx) => {
      if ((ctx.params as { model?: string }).model !== undefined) modelOf(ctx, { models })
      const asked = await readJson(ctx, traceSettingsRequestSchema)
      checkTraceSettings(asked, isTracing)
      ctx.body = traceSettings(isTracing)
    })
  }
  router.get('/v2/logging', (ctx) => {
    ctx.body = logSettings(log.level)
  })
  router.post('/v2/logging', ...(control === null ? [] : guard), async (ctx) => {
    const asked = await readJson(ctx, logSettingsRequestSchema)
    const level = await changeLogSettings(asked, { log, control })
    ctx.body = logSettings(level)
  })
}
