/** Tensors of requests in shared memory of clients: copied in and out, never mapped. */
import { OnecopyError } from '../errors.js'
import { encodeBinaryData } from '../protocol/v2/binary.js'
import type { OutputRequest } from '../protocol/v2/request.js'
import type { ReadShared, SharedPlace } from '../protocol/v2/shared-place.js'
import type { Regions } from '../regions/regions.js'
import type { Tensor } from '../tensor.js'

/** Reads the inputs of one request, at most `maxBytes` in total: they take memory like a body. */
export function sharedReader(regions: Regions, maxBytes: number): ReadShared {
  let leftBytes = maxBytes
  return (place) => {
    leftBytes -= place.bytes
    if (leftBytes < 0) {
      throw new OnecopyError(
        'BODY_TOO_LARGE',
        `region ${JSON.stringify(place.region)}: expected inputs in shared memory of at most ${maxBytes} bytes in total`,
      )
    }
    return regions.read(place)
  }
}

/**
 * Writes the outputs that are requested in shared memory. Returns the place of each output.
 * @throws OnecopyError TENSOR_INVALID if one does not fit, REQUEST_INVALID if it cannot be written.
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
