/**
 * Parameters of tensors in a client's shared memory.
 *
 * Source: Triton's system shared memory extension.
 */
import { requestInvalid, shown } from './faults.js'
import type { RequestParameters } from './schema.js'

const REGION = 'shared_memory_region'
const BYTES = 'shared_memory_byte_size'
const OFFSET = 'shared_memory_offset'

/** A range of a registered region. */
export interface SharedPlace {
  readonly region: string
  readonly offsetBytes: number
  readonly bytes: number
}

/** Returns a copy of the bytes at a place. Present only where clients may use shared memory. */
export type ReadShared = (place: SharedPlace) => Uint8Array<ArrayBuffer>

function count(value: unknown, name: string, label: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw requestInvalid(`${label}: ${name} must be a number of bytes, got ${shown(value)}`)
}

/**
 * The place that the parameters of a tensor name; null where they name none.
 * @throws OnecopyError REQUEST_INVALID when they do not fit together, or shared memory is not enabled.
 */
export function sharedPlaceOf(
  parameters: RequestParameters,
  { label, isEnabled }: { readonly label: string; readonly isEnabled: boolean },
): SharedPlace | null {
  const stray = [BYTES, OFFSET].find((name) => Object.hasOwn(parameters, name))
  if (!Object.hasOwn(parameters, REGION)) {
    if (stray !== undefined) throw requestInvalid(`${label}: ${stray} without ${REGION}`)
    return null
  }
  if (!isEnabled) {
    throw requestInvalid(`${label}: shared memory is not enabled on this server (--system-shared-memory)`)
  }
  const region = parameters[REGION]
  if (typeof region !== 'string' || region === '') {
    throw requestInvalid(`${label}: ${REGION} must be the name of a region, got ${shown(region)}`)
  }
  if (!Object.hasOwn(parameters, BYTES)) throw requestInvalid(`${label}: ${REGION} needs ${BYTES}`)
  return {
    region,
    offsetBytes: count(parameters[OFFSET] ?? 0, OFFSET, label),
    bytes: count(parameters[BYTES], BYTES, label),
  }
}
