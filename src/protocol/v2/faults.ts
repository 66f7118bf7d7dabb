/** How this protocol words its refusals: each names the tensor and carries a code of the catalogue. */
import { OnecopyError } from '../../errors.js'

/** A name from the client, as it appears in a message: quoted, escaped and never long. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)
}

/**
 * The bytes are not what they claim to be: broken JSON, a wrong header length, missing or left-over bytes.
 */
export function bodyMalformed(message: string, cause?: unknown): OnecopyError {
  return new OnecopyError('BODY_MALFORMED', message, { cause })
}

/** One tensor does not fit: its name, datatype, shape or elements. `label` is like `input "x"`. */
export function tensorInvalid(label: string, message: string): OnecopyError {
  return new OnecopyError('TENSOR_INVALID', `${label}: ${message}`)
}

/**
 * Refuses a string with a NUL in it: the runtime's binding would cut it there.
 * @throws OnecopyError TENSOR_INVALID.
 */
export function checkNoNul(text: string, label: string, index: number): void {
  const at = text.indexOf('\0')
  if (at < 0) return
  const limit = 'the runtime ends strings at the first NUL (U+0000), so that none may hold one'
  throw tensorInvalid(label, `element ${index}: a NUL at character ${at}; ${limit}`)
}

/** The request is well formed but cannot be served. */
export function requestInvalid(message: string): OnecopyError {
  return new OnecopyError('REQUEST_INVALID', message)
}

/** Text of a value from a request, short enough for a message. */
export function shown(value: unknown): string {
  if (Array.isArray(value)) return 'an array'
  if (value === null) return 'null'
  if (typeof value === 'object') return 'an object'
  return typeof value === 'string' ? quoted(value) : Object.is(value, -0) ? '-0' : String(value)
}

/** A shape as text; a long one is cut. */
export function shownShape(shape: readonly number[]): string {
  return shape.length > 32 ? `[${shape.slice(0, 32).join(', ')}, …]` : `[${shape.join(', ')}]`
}
