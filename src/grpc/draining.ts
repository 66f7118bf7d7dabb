/**
 * Streams while the server drains. A client may keep a stream open for hours, and GOAWAY does not reach the
 * code that uses it. The server therefore ends streams that do not end by themselves.
 */
import { OnecopyError } from '../errors.js'

export interface Draining {
  /** Aborted when the server begins to drain. */
  readonly draining: AbortSignal
  /** How long a stream with requests may continue from then on. */
  readonly streamGraceMs: number
}

/**
 * Calls `begin` when the server begins to drain, and `end` when a stream must end. Returns what cancels both.
 */
export function onDraining(
  { draining, streamGraceMs }: Draining,
  { begin, end }: { readonly begin: () => void; readonly end?: () => void },
): () => void {
  let timer: NodeJS.Timeout | undefined
  const listener = () => {
    if (end !== undefined) timer = setTimeout(end, streamGraceMs)
    begin()
  }
  const already = draining.aborted ? setImmediate(listener) : undefined
  draining.addEventListener('abort', listener, { once: true })
  return () => {
    draining.removeEventListener('abort', listener)
    clearTimeout(timer)
    clearImmediate(already)
  }
}

export function streamClosed(): OnecopyError {
  const again = 'open a new stream and send again what has no answer'
  return new OnecopyError('SHUTTING_DOWN', `the server is shutting down: ${again}`)
}
