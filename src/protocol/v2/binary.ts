/**
 * Tensors as raw bytes: little-endian, row-major, without padding; a BYTES element is a uint32 length and
 * then its bytes. Numbers are views of the body, not copies; every platform this runs on is little-endian.
 *
 * Source: Triton's binary tensor data extension.
 */
import { DATATYPES, type NumericData, type Tensor, type TensorData } from '../../tensor.js'
import type { ExpectedData } from './datatypes.js'
import { bodyMalformed, checkNoNul, shownShape, tensorInvalid } from './faults.js'

const LENGTH_BYTES = 4

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The runtime sums in another order when a vector does not start at a multiple of its registers, so the
 * last bits of a result would depend on the position of a tensor in the body.
 */
const VECTOR_ALIGNMENT_BYTES = 16

/**
 * Reads one tensor from exactly the bytes it was given. The result shares the body's memory when it is
 * aligned for the runtime, and is a copy otherwise; BYTES become strings.
 *
 * @throws OnecopyError TENSOR_INVALID (size does not match the shape, a BOOL byte other than 0 and 1, text
 * that is not UTF-8 or holds a NUL), BODY_MALFORMED (a BYTES length points past the end, or bytes are left
 * over).
 */
export function decodeBinaryData(bytes: Uint8Array<ArrayBuffer>, expected: ExpectedData): TensorData {
  const { label, datatype, count } = expected
  if (datatype === 'BYTES') return decodeTexts(bytes, expected)
  checkByteSize(bytes.length, expected)
  const { storage } = DATATYPES[datatype]
  const View: new (buffer: ArrayBuffer, offset: number, length: number) => NumericData = storage
  const data =
    bytes.byteOffset % VECTOR_ALIGNMENT_BYTES === 0
      ? new View(bytes.buffer, bytes.byteOffset, count)
      : new View(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), 0, count)
  if (datatype === 'BOOL') checkBools(data as Uint8Array, label)
  return data
}

/** Refuses a size in bytes that the shape of a numeric tensor contradicts; BYTES have any: TENSOR_INVALID. */
export function checkByteSize(bytes: number, { label, datatype, shape, count }: ExpectedData): void {
  const { bytes: elementBytes } = DATATYPES[datatype]
  if (elementBytes === null || bytes === count * elementBytes) return
  const needed = `shape ${shownShape(shape)} of ${datatype} needs ${count * elementBytes} bytes`
  throw tensorInvalid(label, `${needed}, got ${bytes}`)
}

function checkBools(bools: Uint8Array, label: string): void {
  for (let i = 0; i < bools.length; i++) {
    if ((bools[i] as number) > 1) {
      throw tensorInvalid(label, `element ${i}: a BOOL byte is 0 or 1, got ${bools[i]}`)
    }
  }
}

function decodeTexts(bytes: Uint8Array<ArrayBuffer>, { label, shape, count }: ExpectedData): string[] {
  if (count * LENGTH_BYTES > bytes.length) {
    const needed = `shape ${shownShape(shape)} of BYTES needs at least ${count * LENGTH_BYTES} bytes`
    throw tensorInvalid(label, `${needed}, got ${bytes.length}`)
  }
  const texts: string[] = []
  let at = 0
  while (texts.length < count) {
    const end = afterText(bytes, at, texts.length, label)
    texts.push(decodeText(bytes.subarray(at + LENGTH_BYTES, end), label, texts.length))
    at = end
  }
  if (at < bytes.length) {
    throw bodyMalformed(`${label}: ${bytes.length - at} bytes are left over after ${count} BYTES elements`)
  }
  return texts
}

/** One element without its length in front: TENSOR_INVALID when it is not UTF-8, or holds a NUL. */
export function decodeText(bytes: Uint8Array<ArrayBuffer>, label: string, index: number): string {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    throw tensorInvalid(label, `element ${index} is not valid UTF-8 text`)
  }
  checkNoNul(text, label, index)
  return text
}

/** Where the element at `at` ends. */
function afterText(bytes: Uint8Array<ArrayBuffer>, at: number, index: number, label: string): number {
  const left = bytes.length - at - LENGTH_BYTES
  if (left < 0) {
    throw bodyMalformed(`${label}: element ${index} begins where its bytes end: its length is missing`)
  }
  const length =
    (bytes[at] as number) +
    (bytes[at + 1] as number) * 2 ** 8 +
    (bytes[at + 2] as number) * 2 ** 16 +
    (bytes[at + 3] as number) * 2 ** 24
  if (length > left) {
    throw bodyMalformed(`${label}: element ${index} claims ${length} bytes, but ${left} are left`)
  }
  return at + LENGTH_BYTES + length
}

/** What `encodeBinaryData` makes, in bytes. */
export function binarySize({ data }: Pick<Tensor, 'data'>): number {
  if (!isTexts(data)) return data.byteLength
  return data.reduce((sum, text) => sum + LENGTH_BYTES + Buffer.byteLength(text), 0)
}

/** The tensor's bytes as they go on the wire: a view of its storage, or for BYTES one new array. */
export function encodeBinaryData({ data }: Pick<Tensor, 'data'>): Uint8Array<ArrayBuffer> {
  if (!isTexts(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  const lengths = data.map((text) => Buffer.byteLength(text))
  const total = lengths.reduce((sum, length) => sum + LENGTH_BYTES + length, 0)
  const bytes = Buffer.from(new ArrayBuffer(total))
  let at = 0
  for (let i = 0; i < data.length; i++) {
    at = bytes.writeUInt32LE(lengths[i] as number, at)
    at += bytes.write(data[i] as string, at)
  }
  return bytes
}

function isTexts(data: TensorData): data is readonly string[] {
  return Array.isArray(data)
}
