/**
 * Takes the tensor data out of a request's JSON before anything parses it.
 *
 * Data is most of the bytes, and how to read it depends on the datatype beside it: INT64 would lose
 * digits in JSON.parse, and whether `1.0` was written is gone afterwards. So one pass over the
 * bytes finds the value of every `inputs[i].data`, and a skeleton is built in which each such value
 * is an integer: the index of its range. JSON.parse checks the skeleton; the ranges are decoded
 * when the tensor is known.
 *
 * The pass does not check the grammar and need not: when the skeleton is valid and every range is
 * one valid value, the whole text is valid. A blank after the index keeps it from joining what
 * follows.
 */
import { messageOf } from '../../errors.js'
import { bodyMalformed, requestInvalid } from './faults.js'
import { BARE_SPECIAL } from './json-specials.js'
import { withoutPause } from './slices.js'

export interface JsonLimits {
  /** Nesting of arrays and objects, data included; the outermost object is 1. */
  readonly jsonDepth: number
  /** Tensors in one request: inputs, outputs, and `data` values. */
  readonly maxTensors: number
}

/** A piece of the body: the bytes of one JSON value. */
export type JsonValueBytes = Uint8Array<ArrayBuffer>

export interface JsonSkeleton {
  /** The request without tensor data, as JSON.parse returns it: still unchecked. */
  readonly root: unknown
  /** The data values, in the order of the text; the skeleton's `data` are indices into it. */
  readonly values: readonly JsonValueBytes[]
}

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const BACKSLASH = 0x5c
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const CLOSE_BRACE = 0x7d
/** Brackets and braces differ in one bit only: `c | FOLD` makes both the brace. */
const FOLD = 0x20
const OPEN = 0x7b
const CLOSE = 0x7d

/** The longest way to write `inputs`: six `\uXXXX` escapes. */
const LONGEST_KEY = 36

/** What messages call the JSON outside the tensor data. */
export const BODY = 'the request body'

/** V8's limit on the length of a string on every supported Node, rounded down. */
const MAX_TEXT_BYTES = 0x1fffff00

/** What takes less than a millisecond: native searches, and a loop over the bytes. */
const SEARCH_STEP_BYTES = 1024 * 1024
const LOOP_STEP_BYTES = 256 * 1024

const NULL = Buffer.from('null')

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Separates a request's JSON from its tensor data, in one pass and without recursion.
 *
 * @throws OnecopyError BODY_MALFORMED when the text is not JSON, not UTF-8 or nested too deeply;
 *   REQUEST_INVALID when it holds more than `maxTensors` data values.
 */
export function readSkeleton(json: JsonValueBytes, limits: JsonLimits): JsonSkeleton {
  const { text, values } = withoutPause(takeDataOutInSteps(json, limits))
  return { root: parseSkeleton(text), values }
}

/**
 * The text of the skeleton, unparsed, and the data values, with a yield between steps of less than
 * a millisecond. @throws OnecopyError as readSkeleton, for what it has read.
 */
export function* takeDataOutInSteps(
  json: JsonValueBytes,
  limits: JsonLimits,
): Generator<void, { readonly text: string; readonly values: readonly JsonValueBytes[] }> {
  const ranges = yield* locateData(json, limits)
  const values: JsonValueBytes[] = []
  let text = ''
  let from = 0
  let outside = json.length
  for (let i = 0; i < ranges.length; i += 2) outside -= (ranges[i + 1] as number) - (ranges[i] as number)
  checkTextBytes(outside)
  for (let i = 0; i < ranges.length; i += 2) {
    const [start, end] = [ranges[i] as number, ranges[i + 1] as number]
    text += `${textOf(json.subarray(from, start), BODY)}${values.length} `
    values.push(json.subarray(start, end))
    from = end
  }
  text += textOf(json.subarray(from), BODY)
  return { text, values }
}

/**
 * Parses the text of a skeleton. @throws OnecopyError BODY_MALFORMED. An error names where NaN and
 * infinities are allowed.
 */
export function parseSkeleton(text: string): unknown {
  if (/^\s*$/.test(text)) throw bodyMalformed(`${BODY} is empty: expected a JSON object`)
  try {
    return parse(text, BODY)
  } catch (thrown) {
    if (!BARE_SPECIAL.test(text)) throw thrown
    const rule = 'NaN and Infinity are allowed only in the data of FP32 and FP64 inputs'
    throw bodyMalformed(`${BODY} is not valid JSON: ${rule}`, thrown)
  }
}

/** Whether a value is `null`. */
export function isNull(value: JsonValueBytes): boolean {
  return NULL.equals(value)
}

/** Parses JSON text; `what` names it in the error. */
export function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text)
  } catch (thrown) {
    // Positions would count in the skeleton, not in the body.
    const reason = messageOf(thrown).replace(/ (in JSON )?at position .*$/s, '')
    throw bodyMalformed(`${what} is not valid JSON: ${reason}`, thrown)
  }
}

/** UTF-8 text of bytes, which `what` names in the error: not UTF-8, or too many for one string. */
export function textOf(bytes: JsonValueBytes, what: string): string {
  checkTextBytes(bytes.length)
  try {
    return utf8.decode(bytes)
  } catch (thrown) {
    throw bodyMalformed(`${what} is not valid UTF-8`, thrown)
  }
}

/** Refuses what no string could hold: JavaScript's strings end at half a gigabyte. */
export function checkTextBytes(bytes: number): void {
  if (bytes > MAX_TEXT_BYTES) {
    throw bodyMalformed(`${bytes} bytes of JSON in one piece: send tensors this large as binary data`)
  }
}

/** Start and end of every `inputs[i].data` value, one after the other. */
function* locateData(json: JsonValueBytes, limits: JsonLimits): Generator<void, number[]> {
  const ranges: number[] = []
  let depth = 0
  let inInputs = false
  let at = 0
  while (at < json.length) {
    const byte = json[at] as number
    if (byte === QUOTE) {
      const after = afterString(json, at)
      const colon = depth === 1 || (depth === 3 && inInputs) ? afterBlanks(json, after) : json.length
      // Only a key is followed by a colon.
      if (json[colon] === COLON) {
        if (depth === 1) {
          inInputs = isKey(json, at + 1, after - 1, INPUTS)
        } else if (isKey(json, at + 1, after - 1, DATA)) {
          const start = afterBlanks(json, colon + 1)
          at = yield* afterValue(json, start, limits.jsonDepth - depth)
          ranges.push(start, at)
          if (ranges.length > 2 * limits.maxTensors) {
            throw requestInvalid(`more than ${limits.maxTensors} inputs with data in one request`)
          }
          continue
        }
        at = colon + 1
      } else {
        at = after
      }
      continue
    }
    const folded = byte | FOLD
    if (folded === OPEN && ++depth > limits.jsonDepth) throw tooDeep()
    if (folded === CLOSE) depth--
    at++
  }
  return ranges
}

/** Where the value that starts at `at` ends; `levels` is how much deeper it may nest. */
function* afterValue(json: JsonValueBytes, at: number, levels: number): Generator<void, number> {
  const first = json[at]
  if (first === QUOTE) return afterString(json, at)
  if (first === undefined || (first | FOLD) !== OPEN) return afterScalar(json, at)
  if (first === OPEN_BRACKET && levels > 0) {
    const end = bufferOf(json).indexOf(CLOSE_BRACKET, at)
    if (end > 0 && (yield* isFlat(json, at + 1, end))) return end + 1
  }
  const scan = { at, depth: 0 }
  while (!hasEnded(json, scan, { until: scan.at + LOOP_STEP_BYTES, levels })) yield
  return scan.at
}

/**
 * Continues to the end of a nested value, or at least to `until`. A plain loop: it is slow in a
 * generator.
 */
function hasEnded(
  json: JsonValueBytes,
  scan: { at: number; depth: number },
  { until, levels }: { readonly until: number; readonly levels: number },
): boolean {
  let { at, depth } = scan
  const end = Math.min(until, json.length)
  let isClosed = false
  while (at < end && !isClosed) {
    const byte = json[at] as number
    if (byte === QUOTE) {
      at = afterString(json, at)
      continue
    }
    const folded = byte | FOLD
    if (folded === OPEN && ++depth > levels) throw tooDeep()
    if (folded === CLOSE && --depth === 0) isClosed = true
    at++
  }
  scan.at = at
  scan.depth = depth
  return isClosed || at >= json.length
}

/**
 * Whether only numbers are between two brackets, by native searches, ten times as fast as a loop.
 */
function* isFlat(json: JsonValueBytes, from: number, to: number): Generator<void, boolean> {
  for (let at = from; at < to; at += SEARCH_STEP_BYTES) {
    if (at > from) yield
    const part = bufferOf(json.subarray(at, Math.min(to, at + SEARCH_STEP_BYTES)))
    if (part.includes(QUOTE) || part.includes(OPEN_BRACKET) || part.includes(OPEN)) return false
  }
  return true
}

/** A buffer searches with the C library, a typed array byte by byte. */
function bufferOf(bytes: JsonValueBytes): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function afterScalar(json: JsonValueBytes, at: number): number {
  let i = at
  for (; i < json.length; i++) {
    const byte = json[i] as number
    if (byte === COMMA || byte === CLOSE_BRACKET || byte === CLOSE_BRACE || isBlank(byte)) break
  }
  return i
}

/**
 * Past the closing quote of the string that opens at `at`; the end of the bytes when it never
 * closes.
 */
function afterString(json: JsonValueBytes, at: number): number {
  for (let i = at + 1; i < json.length; i++) {
    const byte = json[i]
    if (byte === QUOTE) return i + 1
    if (byte === BACKSLASH) i++
  }
  return json.length
}

function afterBlanks(json: JsonValueBytes, at: number): number {
  let i = at
  while (i < json.length && isBlank(json[i] as number)) i++
  return i
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09
}

interface Key {
  readonly text: string
  readonly bytes: Uint8Array
}

const INPUTS: Key = { text: 'inputs', bytes: Buffer.from('inputs') }
const DATA: Key = { text: 'data', bytes: Buffer.from('data') }

/** Whether the string between the quotes is this key, written in whatever way. */
function isKey(json: JsonValueBytes, start: number, end: number, { text, bytes }: Key): boolean {
  const length = end - start
  if (length === bytes.length) {
    let same = 0
    while (same < length && json[start + same] === bytes[same]) same++
    return same === length
  }
  // An escape takes two bytes or six.
  if (length < bytes.length || length > LONGEST_KEY) return false
  const raw = String.fromCharCode(...json.subarray(start, end))
  try {
    return raw.includes('\\') && JSON.parse(`"${raw}"`) === text
  } catch {
    return false
  }
}

function tooDeep() {
  return bodyMalformed(`${BODY} is nested too deeply`)
}
