/** Inputs of the small models in onnx-builder.ts. */
import type { WireTensor } from './v2-client.js'

/** One row for `addModel`. */
export const POINT: WireTensor = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 2],
  bytes: new Uint8Array(Float32Array.of(10, 20).buffer),
}

/** How long `slowModel` runs. */
export function iterations(count: number): WireTensor {
  const bytes = new Uint8Array(BigInt64Array.of(BigInt(count)).buffer)
  return { name: 'iterations', datatype: 'INT64', shape: [], bytes }
}
