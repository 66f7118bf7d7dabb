/**
 * A signal that aborts when another one does, or after a time. `AbortSignal.timeout` within `AbortSignal.any` can be
 * collected before it fires: nothing but the timer refers to it, and weakly.
 */
export interface DeadlineSignal extends Disposable {
  readonly signal: AbortSignal
}

export function deadlineSignal(other: AbortSignal | null, timeoutMs: number): DeadlineSignal {
  const controller = new AbortController()
  const timer = setTimeout(
    () => controller.abort(new DOMException('the deadline passed', 'TimeoutError')),
    timeoutMs,
  )
  const onAbort = () => controller.abort(other?.reason)
  if (other?.aborted === true) onAbort()
  else other?.addEventListener('abort', onAbort)
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer)
      other?.removeEventListener('abort', onAbort)
    },
  }
}
