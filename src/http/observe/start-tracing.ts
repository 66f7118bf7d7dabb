/** Loads OpenTelemetry if a collector is configured, and shuts it down. */
import { messageOf, OnecopyError } from '../../errors.js'
import { withDeadline } from '../../lifecycle.js'
import type { Log } from '../../log.js'
import type { Tracing, TracingOptions } from './tracing.js'

/** An unreachable collector must not delay the end; most of the drain time is for requests. */
const LAST_TRACES_MS = 2000
const DRAIN_SHARE = 0.25

/**
 * Null without an endpoint.
 * @throws OnecopyError CONFIG_INVALID if the packages are not installed.
 */
export async function startTracing(options: TracingOptions): Promise<Tracing | null> {
  if (options.endpoint === '') return null
  try {
    const { Tracing } = await import('./tracing.js')
    return new Tracing(options)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw thrown
    throw new OnecopyError(
      'CONFIG_INVALID',
      '--otlp-endpoint: expected the optional @opentelemetry packages to be installed (npm install --include=optional)',
      { cause: thrown },
    )
  }
}

/** Sends the last spans, within a part of the drain timeout. */
export async function endTracing(
  tracing: Tracing | null,
  { log, drainTimeoutMs }: { readonly log: Log; readonly drainTimeoutMs: number },
): Promise<void> {
  if (tracing === null) return
  try {
    await withDeadline(
      tracing.close(),
      Math.min(LAST_TRACES_MS, drainTimeoutMs * DRAIN_SHARE),
      'the last traces to be sent',
    )
  } catch (thrown) {
    log.warn({ reason: messageOf(thrown) }, 'traces are lost')
  }
}
