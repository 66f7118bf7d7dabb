/** The gRPC code of every error of the catalogue, the same table as in docs/grpc.md. */
import { Metadata, type StatusObject, status } from '@grpc/grpc-js'
import { type ErrorCode, OnecopyError } from '../errors.js'

export type StatusName = Exclude<keyof typeof status, number>

/** A code without a row is INTERNAL: a failure of the server or of a model. */
const BY_STATUS: Readonly<Partial<Record<StatusName, readonly ErrorCode[]>>> = {
  CANCELLED: ['REQUEST_CANCELLED'],
  INVALID_ARGUMENT: [
    'BODY_MALFORMED',
    'TENSOR_INVALID',
    'REQUEST_INVALID',
    'REQUEST_MALFORMED',
    'INPUT_INVALID',
  ],
  DEADLINE_EXCEEDED: ['DEADLINE_EXCEEDED', 'REQUEST_TIMEOUT'],
  NOT_FOUND: ['MODEL_NOT_FOUND', 'JOB_NOT_FOUND', 'REGION_NOT_FOUND'],
  PERMISSION_DENIED: ['FORBIDDEN', 'CROSS_ORIGIN'],
  RESOURCE_EXHAUSTED: [
    'RESPONSE_TOO_LARGE',
    'BODY_TOO_LARGE',
    'REQUEST_TOO_LARGE',
    'HEADERS_TOO_LARGE',
    'RATE_LIMITED',
    'CONCURRENCY_LIMITED',
    'RECEIVE_BUFFER_FULL',
    'MEMORY_LIMIT',
    'SEGMENT_SPACE',
  ],
  FAILED_PRECONDITION: [
    'CONTROL_MODE',
    'REPOSITORY_INVALID',
    'MODEL_INVALID',
    'MODEL_UNSUPPORTED',
    'INTERFACE_CHANGED',
  ],
  UNIMPLEMENTED: ['ROUTE_NOT_FOUND', 'METHOD_NOT_ALLOWED', 'CONTENT_ENCODING_UNSUPPORTED'],
  UNAVAILABLE: [
    'MODEL_NOT_READY',
    'MODEL_DISABLED',
    'MODEL_OUT_OF_SERVICE',
    'QUEUE_FULL',
    'SHUTTING_DOWN',
    'WORKER_STALLED',
    'BREAKER_OPEN',
  ],
  UNAUTHENTICATED: ['UNAUTHORIZED'],
}

const NAMES = new Map<ErrorCode, StatusName>(
  Object.entries(BY_STATUS).flatMap(([name, codes]) =>
    codes.map((code) => [code, name as StatusName] as const),
  ),
)

export function statusNameOf(code: ErrorCode): StatusName {
  return NAMES.get(code) ?? 'INTERNAL'
}

/** Longer messages would exceed the size of headers that clients accept. */
const MAX_DETAILS = 2048

/**
 * The status of a failed call: the code, the message, and the catalogue's code in `x-error-code`.
 */
export function statusObjectOf(error: OnecopyError): StatusObject {
  const metadata = new Metadata()
  metadata.set('x-error-code', error.code)
  const { 'Retry-After': retryAfter } = error.headers
  if (retryAfter !== undefined) metadata.set('retry-after', retryAfter)
  return { code: status[statusNameOf(error.code)], details: error.message.slice(0, MAX_DETAILS), metadata }
}

/** Converts anything thrown. An unexpected error is a bug, and its text stays on the server. */
export function asOnecopyError(thrown: unknown): OnecopyError {
  return thrown instanceof OnecopyError
    ? thrown
    : new OnecopyError('INTERNAL', 'internal error', { cause: thrown })
}
