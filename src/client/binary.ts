/**
 * Encodes tensors as the bytes after the JSON: little-endian; a BYTES element is a uint32 length and its
 * bytes.
 */
import { DATATYPES } from '../tensor.js'
import { type InputTensor, numericElements, type OutputTensor } from './tensors.js'

const LENGTH_BYTES = 4

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

export function toBytes(tensor: InputTensor): Uint8Array {
  if (tensor.datatype !== 'BYTES')
    return new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength)
  const elements = tensor.data.map((one) => (typeof one === 'string' ? encoder.encode(one) : one))
  const total = elements.reduce((sum, { length }) => sum + LENGTH_BYTES + length, 0)
  const bytes = new Uint8Array(total)
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const element of elements) {
    view.setUint32(at, element.length, true)
    bytes.set(element, at + LENGTH_BYTES)
    at += LENGTH_BYTES + element.length
  }
  return bytes
}

function elementsOf(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const elements: Uint8Array[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = at + LENGTH_BYTES + view.getUint32(at, true)
    if (end > bytes.length) throw new RangeError('a BYTES element extends beyond the received data')
    elements.push(bytes.subarray(at + LENGTH_BYTES, end))
    at = end
  }
  return elements
}

type OutputHead = Pick<OutputTensor, 'name' | 'datatype' | 'shape'>

/**
 * @param bytes A copy owned by the tensor. @throws RangeError if the number of bytes does not match the
 *   shape.
 */
export function fromBytes(
  { name, datatype, shape }: OutputHead,
  bytes: Uint8Array<ArrayBuffer>,
): OutputTensor {
  if (datatype === 'BYTES') {
    const elements = elementsOf(bytes)
    return { name, datatype, shape, data: elements.map((one) => decoder.decode(one)), bytes: elements }
  }
  const elementBytes = DATATYPES[datatype].bytes
  const count = shape.reduce((product, size) => product * size, 1)
  if (bytes.length !== count * elementBytes)
    throw new RangeError(
      `output ${name}: expected ${count * elementBytes} bytes for ${datatype} [${shape}], got ${bytes.length}`,
    )
  return { name, datatype, shape, data: numericElements(datatype, bytes) } as OutputTensor
}
