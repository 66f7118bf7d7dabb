/** Tensors of requests that stand in clients' shared memory: copied in and out, never mapped. */
import { OnecopyError } from '../errors.js'
import { encodeBinaryData } from '../protocol/v2/binary.js'
import type { OutputRequest } from '../protocol/v2/request.js'
import type { ReadShared, SharedPlace } from '../protocol/v2/shared-place.js'
import type { Regions } from '../regions/regions.js'
import type { Tensor } from '../tensor.js'

/** Reads the inputs of one request, together at most `maxBytes`: they take memory as a body does. */
export function sharedReader(regions: Regions, maxBytes: number): ReadShared {
  let leftBytes = maxBytes
  return (place) => {
    leftBytes -= place.bytes
    if (leftBytes < 0) {
      throw new OnecopyError(
        'BODY_TOO_LARGE',
        `region ${JSON.stringify(place.region)}: expected inputs in shared memory of at most ${maxBytes} bytes in all`,
      )
    }
    return regions.read(place)
  }
}

/**
 * Writes the outputs that are asked for in shared memory; returns, beside each output, where it now stands.
 * @throws OnecopyError TENSOR_INVALID when one does not fit, REQUEST_INVALID when it cannot be written.
 */
export function placeOutputs(
  regions: Regions,
  outputs: readonly Tensor[],
  asked: readonly OutputRequest[],
): (SharedPlace | null)[] {
  return outputs.map((output, i) => {
    const place = asked[i]?.place
    if (place === undefined) return null
    const bytes = encodeBinaryData(output)
    if (bytes.length > place.bytes) {
      const found = `expected shared_memory_byte_size of at least ${bytes.length}, got ${place.bytes}`
      throw new OnecopyError('TENSOR_INVALID', `output ${JSON.stringify(output.name)}: ${found}`)
    }
    regions.write(place, bytes)
    return { ...place, bytes: bytes.length }
  })
}
