/** What a call of the client rejects with, unless its caller aborted it: then it is the signal's reason. */

/**
 * `status`: the server refused; `network`: no answer arrived; `timeout`: the deadline passed first; `answer`: what
 * arrived is no answer of the protocol.
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
  /** The HTTP status; null where there was no answer. */
  readonly status: number | null
  /** The permanent code in X-Error-Code, such as `TENSOR_INVALID`; null where the server named none. */
  readonly code: string | null
  /** What Retry-After asked for. */
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
