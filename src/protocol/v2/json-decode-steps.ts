/**
 * Tensor data from large JSON, in steps of less than a millisecond. The text is cut between elements, or between the
 * inner arrays of nested data, and each part is decoded by itself. Anything irregular (strings among the numbers, a
 * wrong count, bad syntax) is decoded again in one piece, which reports what is wrong.
 */
import { elementCount, type NumericData, type TensorData } from '../../tensor.js'
import { type ExpectedData, JSON_RULES, newStorage } from './datatypes.js'
import type { JsonValueBytes } from './json.js'
import { decodeJsonData } from './json-decode.js'

/** Text of one step. */
const STEP_BYTES = 64 * 1024
/** Counting brackets is ten times as fast as decoding. */
const SCAN_STEP_BYTES = 512 * 1024

const QUOTE = 0x22
const COMMA = 0x2c
const OPEN = 0x5b
const CLOSE = 0x5d

/** The text is not regular: the decoder of the whole text has to look at it. */
class Irregular extends Error {}

/**
 * The same as `decodeJsonData`, with a yield between steps.
 * @throws OnecopyError as decodeJsonData.
 */
export function* decodeJsonDataInSteps(
  bytes: JsonValueBytes,
  expected: ExpectedData,
): Generator<void, TensorData> {
  const { datatype, count } = expected
  const { kind } = JSON_RULES[datatype]
  const isLong = bytes.length > 2 * STEP_BYTES && kind !== 'text' && kind !== 'none'
  // Storage is allocated only for what the text can hold.
  if (isLong && datatype !== 'BYTES' && 2 * count - 1 <= bytes.length) {
    const parts = new Parts(bytes, expected, newStorage(datatype, count))
    try {
      yield* parts.decode()
      return parts.data
    } catch {
      // Irregular, or invalid: the error must be that of the whole text.
    }
  }
  return decodeJsonData(bytes, expected)
}

class Parts {
  readonly data: NumericData
  readonly #bytes: JsonValueBytes
  /** The same, for native searches. */
  readonly #buffer: Buffer
  readonly #expected: ExpectedData
  /** Elements decoded so far. */
  #decoded = 0

  constructor(bytes: JsonValueBytes, expected: ExpectedData, data: NumericData) {
    this.#bytes = bytes
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#expected = expected
    this.data = data
  }

  *decode(): Generator<void, void> {
    const { shape, count } = this.#expected
    const start = this.#afterBlanks(0)
    let end = this.#bytes.length
    while (isBlank(this.#bytes[end - 1])) end--
    const isNested = shape.length > 1 && this.#bytes[this.#afterBlanks(start + 1)] === OPEN
    yield* isNested ? this.#nested(start, end, shape) : this.#flat(start, end)
    if (this.#decoded !== count) throw new Irregular()
  }

  /** An array of numbers, from its opening bracket to after its closing bracket. */
  *#flat(start: number, end: number): Generator<void, void> {
    this.#checkBrackets(start, end)
    const last = end - 1
    for (let from = start + 1; ; ) {
      const comma = this.#buffer.indexOf(COMMA, from + STEP_BYTES)
      const to = comma < 0 || comma > last ? last : comma
      let count = 1
      for (let i = from; i < to; i++) if (this.#bytes[i] === COMMA) count++
      this.#decodePart(from, to, [count])
      if (to === last) return
      from = to + 1
      yield
    }
  }

  /** An array of arrays. Inner arrays that are small are decoded together. */
  *#nested(start: number, end: number, shape: readonly number[]): Generator<void, void> {
    if (shape.length === 1) return yield* this.#flat(start, end)
    this.#checkBrackets(start, end)
    const inner = shape.slice(1)
    let total = 0
    let from = -1
    let to = -1
    let gathered = 0
    const flush = () => {
      if (gathered > 0) this.#decodePart(from, to, [gathered, ...inner])
      gathered = 0
    }
    for (let at = this.#afterBlanks(start + 1); ; ) {
      const innerEnd = yield* this.#endOfArray(at, end)
      total++
      if (innerEnd - at > STEP_BYTES) {
        flush()
        yield* this.#nested(at, innerEnd, inner)
      } else {
        if (gathered++ === 0) from = at
        to = innerEnd
        if (to - from > STEP_BYTES) {
          flush()
          yield
        }
      }
      at = this.#afterBlanks(innerEnd)
      if (at === end - 1) break
      if (this.#bytes[at] !== COMMA) throw new Irregular()
      at = this.#afterBlanks(at + 1)
    }
    flush()
    if (total !== shape[0]) throw new Irregular()
  }

  *#endOfArray(start: number, end: number): Generator<void, number> {
    if (this.#bytes[start] !== OPEN) throw new Irregular()
    let depth = 0
    for (let i = start; i < end; i++) {
      const byte = this.#bytes[i]
      if (byte === OPEN) depth++
      else if (byte === CLOSE && --depth === 0) return i + 1
      // Brackets in a string do not count.
      else if (byte === QUOTE) throw new Irregular()
      if ((i - start) % SCAN_STEP_BYTES === SCAN_STEP_BYTES - 1) yield
    }
    throw new Irregular()
  }

  /** Decodes the elements between two positions, as an array of its own. */
  #decodePart(from: number, to: number, shape: readonly number[]): void {
    const text = new Uint8Array(to - from + 2)
    text[0] = OPEN
    text.set(this.#bytes.subarray(from, to), 1)
    text[text.length - 1] = CLOSE
    const count = elementCount(shape)
    if (this.#decoded + count > this.data.length) throw new Irregular()
    const { label, datatype } = this.#expected
    // Both are of the same datatype.
    const target = this.data as { set(part: unknown, at: number): void } & NumericData
    target.set(decodeJsonData(text, { label, datatype, shape, count }), this.#decoded)
    this.#decoded += count
  }

  #checkBrackets(start: number, end: number): void {
    const isArray = end - start >= 2 && this.#bytes[start] === OPEN && this.#bytes[end - 1] === CLOSE
    if (!isArray) throw new Irregular()
  }

  #afterBlanks(at: number): number {
    let i = at
    while (isBlank(this.#bytes[i])) i++
    return i
  }
}

function isBlank(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}
