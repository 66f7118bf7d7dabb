/**
 * Tensor data from JSON. The engine's own JSON.parse reads the range (nothing in JavaScript is faster), a
 * loop per row checks and stores the elements, and where numbers cannot distinguish them (`1.0` from `1`,
 * 2^53 from 2^53 + 1) the bytes are scanned again.
 *
 * Source: Open Inference Protocol V2, "Tensor Data": flat or nested, row-major.
 */
import type { NumericData, TensorData } from '../../tensor.js'
import { type ExpectedData, JSON_RULES, type JsonRule, newStorage, SPECIAL_FLOATS } from './datatypes.js'
import { bodyMalformed, checkNoNul, shown, shownShape, tensorInvalid } from './faults.js'
import { checkTextBytes, type JsonValueBytes, parse, textOf } from './json.js'
import { checkWholeNumbers, storeLongIntegers } from './json-digits.js'
import { scanFloat32 } from './json-floats.js'
import { BARE_SPECIAL, quoteSpecials } from './json-specials.js'

/** Stores one row of elements from element `at` on. */
type StoreRow = (row: readonly unknown[], at: number) => void

/**
 * Decodes the bytes of one JSON value into `count` elements.
 *
 * Floats are numbers, or NaN, Infinity, -Infinity, bare or as strings. Integers are written without fraction
 * or exponent; INT64 and UINT64 keep every digit. BOOL is true, false, 1 or 0. BYTES are strings without NUL.
 *
 * @throws OnecopyError TENSOR_INVALID (wrong count, nesting, type or range; the message names tensor and
 *   element), BODY_MALFORMED (not JSON).
 */
export function decodeJsonData(bytes: JsonValueBytes, expected: ExpectedData): TensorData {
  const { label, datatype, shape, count } = expected
  const rule = JSON_RULES[datatype]
  if (rule.kind === 'none') {
    throw tensorInvalid(label, `${datatype} has no JSON form: send binary data (parameter binary_data_size)`)
  }
  // Refused below before anything is allocated for it.
  if (datatype === 'FP32' && 2 * count - 1 <= bytes.length) {
    const floats = scanFloat32(bytes, count)
    if (floats !== null) return floats
  }
  const parsed = parseData(bytes, label, rule)
  // Each element takes a byte and all but the last a comma: refuse before allocating.
  if (2 * count - 1 > bytes.length) {
    const wanted = `expected ${count} elements for shape ${shownShape(shape)}`
    throw tensorInvalid(label, `${wanted}, but ${bytes.length} bytes of JSON cannot hold them`)
  }
  if (datatype === 'BYTES') {
    const texts: string[] = []
    storeRows(parsed, expected, (row, at) => storeTexts(row, texts, at, label))
    return texts
  }
  const data = newStorage(datatype, count)
  if (rule.kind === 'bool') {
    storeRows(parsed, expected, (row, at) => storeBools(row, data as Uint8Array, at, label))
  } else if (rule.kind === 'float') {
    const floats = data as Float32Array | Float64Array
    storeRows(parsed, expected, (row, at) => storeFloats(row, floats, at, rule.overflow, expected))
  } else if (rule.kind === 'integer') {
    storeRows(parsed, expected, (row, at) => storeIntegers(row, data, at, rule, expected))
    checkWholeNumbers(bytes, expected)
  } else if (rule.kind === 'integer64') {
    let exact = true
    const halves = new Uint32Array(data.buffer)
    storeRows(parsed, expected, (row, at) => {
      if (!storeIntegers64(row, halves, at, rule.min === 0n, expected)) exact = false
    })
    checkWholeNumbers(bytes, expected)
    if (!exact) storeLongIntegers(bytes, data as BigInt64Array | BigUint64Array, rule, expected)
  }
  return data
}

function parseData(bytes: JsonValueBytes, label: string, { kind }: JsonRule): unknown {
  const what = `${label}: data`
  if (kind === 'text') return parse(textOf(bytes, what), what)
  checkTextBytes(bytes.length)
  // Valid numbers are ASCII, and a string with anything else in it is refused whichever way it is read.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
  try {
    return parse(text, what)
  } catch (thrown) {
    if (!BARE_SPECIAL.test(text)) throw thrown
    if (kind === 'float') return parseWithSpecials(text, what)
    const rule = 'NaN and Infinity are allowed only in the data of FP32 and FP64 inputs'
    throw bodyMalformed(`${what} is not valid JSON: ${rule}`, thrown)
  }
}

/**
 * After JSON.parse did not take it: data with NaN or infinities among the numbers, written as Python does.
 */
function parseWithSpecials(text: string, what: string): unknown {
  let quoted: string
  try {
    quoted = quoteSpecials(text)
  } catch (thrown) {
    throw bodyMalformed(`${what} is too long with NaN or infinities: send it as binary data`, thrown)
  }
  try {
    return parse(quoted, what)
  } catch (thrown) {
    const rule = 'expected numbers, NaN, Infinity or -Infinity'
    throw bodyMalformed(`${what} is not valid JSON: ${rule}`, thrown)
  }
}

/** Hands the rows of parsed data, flat or nested, to `store` in row-major order, and checks their lengths. */
function storeRows(parsed: unknown, expected: ExpectedData, store: StoreRow): void {
  const { label, shape, count } = expected
  if (!Array.isArray(parsed)) {
    if (shape.length > 0) throw tensorInvalid(label, `data must be an array, got ${shown(parsed)}`)
    store([parsed], 0)
  } else if (shape.length > 1 && Array.isArray(parsed[0])) {
    storeNested(parsed, 0, 0)
  } else if (parsed.length !== count) {
    const wanted = `expected ${count} elements for shape ${shownShape(shape)}`
    throw tensorInvalid(label, `${wanted}, got ${parsed.length}`)
  } else {
    store(parsed, 0)
  }

  // As deep as the data really is, which the depth limit on the body bounds.
  function storeNested(list: readonly unknown[], axis: number, at: number): number {
    const size = shape[axis] as number
    if (list.length !== size) {
      const where = `data nested for shape ${shownShape(shape)}`
      throw tensorInvalid(label, `${where}: expected ${size} elements along axis ${axis}, got ${list.length}`)
    }
    if (axis === shape.length - 1) {
      store(list, at)
      return at + size
    }
    let next = at
    for (const inner of list) {
      if (!Array.isArray(inner)) {
        const where = `data nested for shape ${shownShape(shape)}`
        throw tensorInvalid(label, `${where}: expected arrays along axis ${axis}, got ${shown(inner)}`)
      }
      next = storeNested(inner, axis + 1, next)
    }
    return next
  }
}

function elementInvalid(label: string, index: number, wanted: string, got: unknown) {
  return tensorInvalid(label, `element ${index}: expected ${wanted}, got ${shown(got)}`)
}

function storeTexts(row: readonly unknown[], texts: string[], at: number, label: string): void {
  for (let i = 0; i < row.length; i++) {
    const text = row[i]
    if (typeof text !== 'string') throw elementInvalid(label, at + i, 'a string', text)
    // Only half of a surrogate pair matches: such a string has no UTF-8 form.
    if (/\p{Surrogate}/u.test(text)) throw elementInvalid(label, at + i, 'Unicode text', text)
    checkNoNul(text, label, at + i)
    texts.push(text)
  }
}

function storeBools(row: readonly unknown[], bools: Uint8Array, at: number, label: string): void {
  for (let i = 0; i < row.length; i++) {
    const value = row[i]
    if (value === true || value === 1) bools[at + i] = 1
    else if (value !== false && value !== 0) throw elementInvalid(label, at + i, 'true or false', value)
  }
}

function storeFloats(
  row: readonly unknown[],
  floats: Float32Array | Float64Array,
  at: number,
  overflow: number,
  { label, datatype }: ExpectedData,
): void {
  for (let i = 0; i < row.length; i++) {
    const value = row[i]
    if (typeof value === 'number') {
      if (value >= overflow || value <= -overflow) {
        throw tensorInvalid(label, `element ${at + i}: the number is too large for ${datatype}`)
      }
      floats[at + i] = value
    } else {
      const special = SPECIAL_FLOATS.get(value)
      if (special === undefined) {
        throw elementInvalid(label, at + i, 'a number, "NaN", "Infinity" or "-Infinity"', value)
      }
      floats[at + i] = special
    }
  }
}

function storeIntegers(
  row: readonly unknown[],
  data: NumericData,
  at: number,
  { min, max }: { min: number; max: number },
  { label, datatype }: ExpectedData,
): void {
  for (let i = 0; i < row.length; i++) {
    const value = row[i]
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw elementInvalid(label, at + i, `an integer of ${datatype}, ${min} to ${max}`, value)
    }
    data[at + i] = value
  }
}

/**
 * Stores what a number holds exactly as two 32-bit halves, the low one first: BigInts would cost an object
 * per element. Returns false when some elements need all their digits; those are left for another look.
 */
function storeIntegers64(
  row: readonly unknown[],
  halves: Uint32Array,
  at: number,
  unsigned: boolean,
  { label, datatype }: ExpectedData,
): boolean {
  let exact = true
  for (let i = 0; i < row.length; i++) {
    const value = row[i]
    const bad = typeof value !== 'number' || !Number.isInteger(value) || (unsigned && value < 0)
    if (bad) throw elementInvalid(label, at + i, `an integer of ${datatype}`, value)
    if (Number.isSafeInteger(value)) {
      halves[2 * (at + i)] = value
      halves[2 * (at + i) + 1] = Math.floor(value / 2 ** 32)
    } else {
      exact = false
    }
  }
  return exact
}
