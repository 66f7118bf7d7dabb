/**
 * Raw mode: the whole body is the one input of the model, and its shape follows from the model and the
 * number of bytes. The first dimension is the batch; when it is variable it is 1, never inferred, so a model
 * whose only variable dimension is the first takes exactly one row. One other dimension may be variable.
 * For BYTES there is one element, and the whole body is its text, without a length in front.
 *
 * Source: Triton's binary tensor data extension, "Raw Binary Request".
 */
import type { Datatype, Tensor, TensorSpec } from '../../tensor.js'
import { DATATYPES, elementCount, requiredOf } from '../../tensor.js'
import { decodeBinaryData, decodeText } from './binary.js'
import { quoted, requestInvalid, shownShape, tensorInvalid } from './faults.js'
import { checkShape, type ModelSpec } from './plan.js'

/**
 * Reads a body that is nothing but tensor bytes.
 *
 * @throws OnecopyError REQUEST_INVALID when the model does not allow raw requests; TENSOR_INVALID when no
 *   shape fits the bytes, or they are not text where text is expected.
 */
export function decodeRawInput(body: Uint8Array<ArrayBuffer>, model: ModelSpec): Tensor {
  const required = requiredOf(model.inputs)
  const [spec, ...others] = required.length === 0 ? model.inputs : required
  if (spec === undefined || others.length > 0) {
    const count = `model ${quoted(model.name)} has ${others.length + (spec === undefined ? 0 : 1)} inputs`
    throw requestInvalid(`a raw request (Inference-Header-Content-Length: 0) needs one input; ${count}`)
  }
  const label = `input ${quoted(spec.name)}`
  const shape = rawShape(spec, elementsIn(body, spec.datatype, label), label)
  const count = checkShape(shape, spec, label)
  const { name, datatype } = spec
  const data =
    datatype === 'BYTES'
      ? [decodeText(body, label, 0)]
      : decodeBinaryData(body, { label, datatype, shape, count })
  return { name, datatype, shape, data }
}

function elementsIn(body: Uint8Array<ArrayBuffer>, datatype: Datatype, label: string): number {
  const { bytes } = DATATYPES[datatype]
  if (bytes === null) return 1
  if (body.length % bytes !== 0) {
    throw tensorInvalid(label, `${body.length} bytes are not a whole number of ${datatype} elements`)
  }
  return body.length / bytes
}

function rawShape(spec: TensorSpec, elements: number, label: string): number[] {
  if (spec.shape === null) {
    throw requestInvalid(`${label}: a raw request needs a model that declares the rank of its input`)
  }
  const shape = spec.shape.map((size, axis) => (axis === 0 && size < 0 ? 1 : size))
  const variable = shape.findIndex((size) => size < 0)
  if (variable !== shape.findLastIndex((size) => size < 0)) {
    const declared = `the model declares ${shownShape(spec.shape)}`
    throw requestInvalid(`${label}: a raw request allows one variable dimension after the batch; ${declared}`)
  }
  if (variable >= 0) {
    shape[variable] = 1
    // Beside a dimension of zero any size would do: the smallest.
    shape[variable] = elements === 0 ? 0 : elements / elementCount(shape)
  }
  if (!shape.every(Number.isSafeInteger) || elementCount(shape) !== elements) {
    const expected = `a raw request for shape ${shownShape(spec.shape)} with batch 1`
    throw tensorInvalid(label, `${expected} does not fit ${elements} elements`)
  }
  return shape
}
