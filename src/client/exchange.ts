/**
 * One call: it is sent, and retried if that may help, under one deadline. All calls are safe to retry:
 * inference changes only statistics on the server.
 *
 * Calls are retried after a status 429 or 503, and if no response arrived. The delay is at least Retry-After
 * if the server sends it. Otherwise it is random, with a limit that doubles with each attempt.
 */
import { InferenceError } from './error.js'

export interface RetryPolicy {
  /** Maximum number of retries; 0 disables them. */
  readonly maxRetries: number
  /** Upper limit of the delay before the first retry. */
  readonly baseDelayMs: number
  /** Upper limit of any delay that the server did not request. */
  readonly maxDelayMs: number
}

export interface Call {
  readonly url: string
  readonly method: 'GET' | 'POST'
  readonly headers: Headers
  readonly body?: Uint8Array<ArrayBuffer>
  /** Time limit for the whole call including retries; Infinity for none. */
  readonly timeoutMs: number
  readonly retry: RetryPolicy
  readonly signal?: AbortSignal | undefined
  /** Successful statuses besides 200: neither thrown nor retried. */
  readonly accepts?: readonly number[]
  readonly fetch: typeof fetch
}

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: Uint8Array<ArrayBuffer>
}

const REPEATED_STATUSES = [429, 503]
/** Timers with a longer delay fire immediately, so longer deadlines (over 24 days) are not set. */
const LONGEST_TIMER_MS = 2 ** 31 - 1
/** Spreads the retries of clients that were rejected at the same time. */
const RETRY_AFTER_SPREAD = 0.1

/** Retry-After is a number of seconds or a date. */
function retryAfterMs(headers: Headers): number | null {
  const text = headers.get('Retry-After')
  if (text === null) return null
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now()
  return Number.isNaN(ms) ? null : Math.max(ms, 0)
}

function messageIn(body: Uint8Array): string {
  const text = new TextDecoder().decode(body)
  try {
    const { error } = JSON.parse(text) as { error?: unknown }
    if (typeof error === 'string') return error
  } catch {
    // A proxy may send a different body.
  }
  return text.slice(0, 200)
}

function refusal({ status, headers, body }: Answer): InferenceError {
  const message = messageIn(body) || `status ${status}`
  const code = headers.get('X-Error-Code')
  return new InferenceError(message, { kind: 'status', status, code, retryAfterMs: retryAfterMs(headers) })
}

/** @throws InferenceError of kind `network`, or the signal's reason. */
async function send(call: Call, signal: AbortSignal): Promise<Answer> {
  // In browsers, fetch fails if called as a method of another object.
  const { url, method, headers, body, fetch } = call
  try {
    const response = await fetch(url, {
      method,
      headers,
      signal,
      ...(body === undefined ? {} : { body }),
    })
    return {
      status: response.status,
      headers: response.headers,
      body: new Uint8Array(await response.arrayBuffer()),
    }
  } catch (cause) {
    if (signal.aborted) throw signal.reason
    const { message, cause: inner } = cause as Error & { cause?: { message?: string } }
    const why = inner?.message ? `${message}: ${inner.message}` : message
    throw new InferenceError(`no response from ${url}: ${why}`, { kind: 'network', cause })
  }
}

function isWorthRepeating({ kind, status }: InferenceError): boolean {
  return kind === 'network' || (status !== null && REPEATED_STATUSES.includes(status))
}

function waitBefore(
  repetition: number,
  failure: InferenceError,
  { baseDelayMs, maxDelayMs }: RetryPolicy,
): number {
  if (failure.retryAfterMs !== null) return failure.retryAfterMs * (1 + Math.random() * RETRY_AFTER_SPREAD)
  return Math.random() * Math.min(maxDelayMs, baseDelayMs * 2 ** repetition)
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', end)
      resolve()
    }, ms)
    signal.addEventListener('abort', end, { once: true })
  })
}

async function attempt(call: Call, signal: AbortSignal): Promise<Answer | InferenceError> {
  try {
    const answer = await send(call, signal)
    return answer.status === 200 || call.accepts?.includes(answer.status) ? answer : refusal(answer)
  } catch (thrown) {
    if (thrown instanceof InferenceError && !signal.aborted) return thrown
    throw thrown
  }
}

async function repeat(call: Call, signal: AbortSignal, deadlineMs: number): Promise<Answer> {
  for (let repetition = 0; ; repetition++) {
    const outcome = await attempt(call, signal)
    if (!(outcome instanceof InferenceError)) return outcome
    if (repetition >= call.retry.maxRetries || !isWorthRepeating(outcome)) throw outcome
    const waitMs = waitBefore(repetition, outcome, call.retry)
    // No time would remain: the actual error is more useful than a timeout.
    if (performance.now() + waitMs >= deadlineMs) throw outcome
    signal.throwIfAborted()
    await sleep(waitMs, signal)
  }
}

/** @throws InferenceError: the last failure, or `timeout`. The signal's reason if the caller aborts. */
export async function exchange(call: Call): Promise<Answer> {
  const { timeoutMs, signal } = call
  signal?.throwIfAborted()
  const controller = new AbortController()
  const abort = () => controller.abort(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  const expire = () =>
    controller.abort(
      new InferenceError(`no response from ${call.url} within ${timeoutMs} ms`, { kind: 'timeout' }),
    )
  const timer = timeoutMs > LONGEST_TIMER_MS ? undefined : setTimeout(expire, timeoutMs)
  try {
    return await repeat(call, controller.signal, performance.now() + timeoutMs)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}
