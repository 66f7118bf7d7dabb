/**
 * Every error a caller can meet, in one catalogue. The code is permanent: callers, tests and alerts
 * match codes, so messages can improve freely. `docs/errors.md` lists the same codes.
 *
 * `fault` says who must act: the client who sent the request, the operator who configured or sized
 * the server, or the project (a bug: the worker ends loudly and the supervisor replaces it).
 */

export const ERROR_CATALOGUE = {
  BODY_MALFORMED: { status: 400, fault: 'client' },
  TENSOR_INVALID: { status: 400, fault: 'client' },
  REQUEST_INVALID: { status: 400, fault: 'client' },
  REQUEST_MALFORMED: { status: 400, fault: 'client' },
  REQUEST_CANCELLED: { status: 400, fault: 'client' },
  RESPONSE_TOO_LARGE: { status: 400, fault: 'client' },
  CONTROL_MODE: { status: 400, fault: 'client' },
  UNAUTHORIZED: { status: 401, fault: 'client' },
  FORBIDDEN: { status: 403, fault: 'client' },
  CROSS_ORIGIN: { status: 403, fault: 'client' },
  MODEL_NOT_FOUND: { status: 404, fault: 'client' },
  JOB_NOT_FOUND: { status: 404, fault: 'client' },
  ROUTE_NOT_FOUND: { status: 404, fault: 'client' },
  REGION_NOT_FOUND: { status: 404, fault: 'client' },
  METHOD_NOT_ALLOWED: { status: 405, fault: 'client' },
  REQUEST_TIMEOUT: { status: 408, fault: 'client' },
  BODY_TOO_LARGE: { status: 413, fault: 'client' },
  REQUEST_TOO_LARGE: { status: 413, fault: 'client' },
  CONTENT_ENCODING_UNSUPPORTED: { status: 415, fault: 'client' },
  INPUT_INVALID: { status: 422, fault: 'client' },
  RATE_LIMITED: { status: 429, fault: 'client' },
  CONCURRENCY_LIMITED: { status: 429, fault: 'client' },
  HEADERS_TOO_LARGE: { status: 431, fault: 'client' },
  MODEL_NOT_READY: { status: 503, fault: 'operator' },
  MODEL_DISABLED: { status: 503, fault: 'operator' },
  MODEL_OUT_OF_SERVICE: { status: 503, fault: 'operator' },
  QUEUE_FULL: { status: 503, fault: 'operator' },
  RECEIVE_BUFFER_FULL: { status: 503, fault: 'operator' },
  SHUTTING_DOWN: { status: 503, fault: 'operator' },
  WORKER_STALLED: { status: 503, fault: 'operator' },
  BREAKER_OPEN: { status: 503, fault: 'operator' },
  DEADLINE_EXCEEDED: { status: 504, fault: 'operator' },
  MODEL_RUN_FAILED: { status: 500, fault: 'operator' },
  INTERNAL: { status: 500, fault: 'bug' },

  CONFIG_INVALID: { status: 500, fault: 'operator' },
  REPOSITORY_INVALID: { status: 500, fault: 'operator' },
  MODEL_INVALID: { status: 500, fault: 'operator' },
  MODEL_UNSUPPORTED: { status: 500, fault: 'operator' },
  COMPILE_FAILED: { status: 500, fault: 'operator' },
  SELF_CHECK_FAILED: { status: 500, fault: 'operator' },
  MODEL_CRASHED: { status: 500, fault: 'operator' },
  INTERFACE_CHANGED: { status: 500, fault: 'operator' },
  SEGMENT_INVALID: { status: 500, fault: 'operator' },
  MEMORY_LIMIT: { status: 500, fault: 'operator' },
  SEGMENT_SPACE: { status: 500, fault: 'operator' },
  SEGMENT_FOLDER_INVALID: { status: 500, fault: 'operator' },
  MAPPING_FAILED: { status: 500, fault: 'operator' },
  ADDRESS_UNAVAILABLE: { status: 500, fault: 'operator' },
  WORKER_BOOT_FAILED: { status: 500, fault: 'operator' },
  WORKER_GONE: { status: 500, fault: 'operator' },
  BUNDLE_INVALID: { status: 500, fault: 'operator' },
  EXAMPLES_NOT_REPRODUCED: { status: 500, fault: 'operator' },
  TRANSFORM_UNAVAILABLE: { status: 500, fault: 'operator' },
  MODEL_NOT_RESIDENT: { status: 500, fault: 'operator' },
  TIMEOUT: { status: 500, fault: 'operator' },
} as const satisfies Record<string, { status: number; fault: 'client' | 'operator' | 'bug' }>

export type ErrorCode = keyof typeof ERROR_CATALOGUE

export interface ErrorOptions {
  readonly cause?: unknown
  /** Value of the Retry-After header, in whole seconds. */
  readonly retryAfterSeconds?: number
  /** Extra response headers that the status asks for, such as Allow or Accept-Encoding. */
  readonly headers?: Readonly<Record<string, string>>
}

export class OnecopyError extends Error {
  readonly code: ErrorCode
  readonly status: number
  readonly fault: 'client' | 'operator' | 'bug'
  readonly headers: Readonly<Record<string, string>>

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'OnecopyError'
    this.code = code
    this.status = ERROR_CATALOGUE[code].status
    this.fault = ERROR_CATALOGUE[code].fault
    this.headers = {
      ...options.headers,
      ...(options.retryAfterSeconds === undefined
        ? {}
        : { 'Retry-After': String(options.retryAfterSeconds) }),
    }
  }
}

export function isErrorCode(word: string): word is ErrorCode {
  return Object.hasOwn(ERROR_CATALOGUE, word)
}

/** Why a model version answers no request, while the server and its other models do. */
export interface OutOfService {
  /**
   * The cause: SELF_CHECK_FAILED, SEGMENT_INVALID and so on. Requests are answered
   * MODEL_OUT_OF_SERVICE, or MODEL_DISABLED if that is the cause.
   */
  code: ErrorCode
  reason: string
  /** When a request is worth repeating, in whole seconds. */
  retryAfterSeconds: number
  /**
   * When it comes back by itself, in milliseconds since 1970; a request is then worth repeating
   * sooner.
   */
  untilMs?: number | undefined
  /** Whether requests that wait already are still answered; they are refused otherwise. */
  isQueueKept?: boolean | undefined
}

/** Long enough for an administrator to react. */
const OUT_OF_SERVICE_RETRY_SECONDS = 60

/** The state of a model version that cannot be loaded because of `error`. */
export function outOfServiceBecauseOf({ code, message }: OnecopyError): OutOfService {
  return { code, reason: message, retryAfterSeconds: OUT_OF_SERVICE_RETRY_SECONDS }
}

/** From 1 to what was said at first, whatever happens to the system's clock. */
function remainingSeconds({ retryAfterSeconds, untilMs }: OutOfService): number {
  if (untilMs === undefined) return retryAfterSeconds
  return Math.min(retryAfterSeconds, Math.max(1, Math.ceil((untilMs - Date.now()) / 1000)))
}

/** What a request to such a model version is answered with. */
export function outOfServiceError(
  { name, version }: { readonly name: string; readonly version: string },
  state: OutOfService,
): OnecopyError {
  const { code, reason } = state
  return new OnecopyError(
    code === 'MODEL_DISABLED' ? code : 'MODEL_OUT_OF_SERVICE',
    `model ${name} version ${version} is out of service (${code}): ${reason}`,
    { retryAfterSeconds: remainingSeconds(state) },
  )
}

/** The text of anything thrown, without a stack. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
