/** A request to the matrix multiplication model: zeros in, zeros out. */
import { BIG_WIDTH } from './fault-models.js'
import { type HeldRequest, holdRequest } from './held-request.js'

export function bigRequest(url: string): HeldRequest {
  const bytes = new Uint8Array(BIG_WIDTH * 4)
  const inputs = [{ name: 'x0', datatype: 'FP32', shape: [1, BIG_WIDTH], bytes }]
  return holdRequest({ url, model: 'big', inputs, expected: bytes })
}
