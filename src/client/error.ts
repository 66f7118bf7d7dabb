/** The error of a failed call. If the caller aborts a call, it rejects with the signal's reason instead. */

/**
 * `status`: the server rejected the request; `network`: no response arrived; `timeout`: the deadline passed;
 * `answer`: the response does not follow the protocol.
 */
export type FailureKind = 'status' | 'network' | 'timeout' | 'answer'

export interface InferenceErrorOptions {
  readonly kind: FailureKind
  readonly status?: number
  readonly code?: string | null
  readonly retryAfterMs?: number | null
  readonly cause?: unknown
}

export class InferenceError extends Error {
  readonly kind: FailureKind
  /** The HTTP status; null if there was no response. */
  readonly status: number | null
  /** The permanent code in X-Error-Code, such as `TENSOR_INVALID`; null if the server sent none. */
  readonly code: string | null
  /** The delay requested by Retry-After. */
  readonly retryAfterMs: number | null

  constructor(message: string, { kind, status, code, retryAfterMs, cause }: InferenceErrorOptions) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'InferenceError'
    this.kind = kind
    this.status = status ?? null
    this.code = code ?? null
    this.retryAfterMs = retryAfterMs ?? null
  }
}
