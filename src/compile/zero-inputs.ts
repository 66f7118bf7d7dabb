/** Minimal inputs for a model: zeros, one row, and the smallest variable dimensions. */

import { bytesOf, smallestShape } from '../batchability/probe-inputs.js'
import { DATATYPES, elementCount, type NumericData, type Tensor, type TensorSpec } from '../tensor.js'

/** Tried in turn for variable dimensions other than the first. */
export const ZERO_DIMENSIONS = [1, 8, 16, 32, 64, 224]
const MAX_INPUT_BYTES = 64 * 1024 * 1024

/** Zeros for every input, or the reason why none can be created. */
export function zeroInputs(specs: readonly TensorSpec[], dimension: number): Tensor[] | string {
  const unshaped = specs.find(({ shape }) => shape === null)
  if (unshaped !== undefined) return `input ${JSON.stringify(unshaped.name)} declares no shape`
  const shapes = specs.map((spec) => smallestShape(spec, dimension))
  // Negated to handle NaN, the result of counts beyond 2^53.
  if (!(bytesOf(specs, shapes) <= MAX_INPUT_BYTES)) return 'its inputs are too large for a trial'
  return specs.map(({ name, datatype }, i) => {
    const shape = shapes[i] as number[]
    const count = elementCount(shape)
    if (datatype === 'BYTES') return { name, datatype, shape, data: new Array<string>(count).fill('') }
    return { name, datatype, shape, data: new DATATYPES[datatype].storage(count) as NumericData }
  })
}
