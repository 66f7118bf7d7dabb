/**
 * The fast way through the commonest tensor: a flat array of numbers for FP32. Digits go straight from the
 * bytes into the tensor, without a string, a list or a number object in between; about three times as fast
 * as JSON.parse. Bare `NaN`, `Infinity` and `-Infinity` are numbers here. Anything else (nesting, strings, a
 * wrong count, bad syntax) is left to the general parser, which also reports what is wrong.
 *
 * Exact: fifteen digits fit a double, and one multiplication or division by a power of ten up to 10^22 is
 * rounded once (Clinger, "How to Read Floating Point Numbers Accurately", 1990). What is dropped behind
 * them moves the double by less than 100 units in its last place, which can only matter where the double
 * is that near to the middle between two floats; those, and extreme exponents, are read by Number().
 */

const ZERO = 0x30
const NINE = 0x39
const MINUS = 0x2d
const PLUS = 0x2b
const DOT = 0x2e
const COMMA = 0x2c
const OPEN = 0x5b
const CLOSE = 0x5d
const LOWER_E = 0x65
const UPPER_E = 0x45
const UPPER_N = 0x4e
const UPPER_I = 0x49
const SPACE = 0x20

const MAX_DIGITS = 15
const POWERS_OF_TEN = Float64Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`))
/**
 * The normal floats, with a margin: subnormals have fewer bits, and overflow is for the general way to
 * refuse.
 */
const SMALLEST_NORMAL = 1.2e-38
const LARGEST = 3.4e38
/** The 29 bits that a double has beyond a float: their middle is where rounding turns. */
const EXTRA_BITS = 0x1fffffff
const HALF = 0x10000000
const NEAR_HALF = 256

const double = new Float64Array(1)
/** Low word first: onnxruntime and this server run on little-endian machines only. */
const words = new Uint32Array(double.buffer)

function isWhiteSpace(byte: number | undefined): boolean {
  return byte === SPACE || byte === 0x0a || byte === 0x0d || byte === 0x09
}

const NAN = Buffer.from('NaN')
const INFINITY = Buffer.from('Infinity')

/** Whether `word` is at `at`. */
function standsAt(json: Uint8Array, at: number, word: Uint8Array): boolean {
  for (let i = 0; i < word.length; i++) if (json[at + i] !== word[i]) return false
  return true
}

/** Whether rounding `value` to a float could depend on digits that were dropped. */
function isNearHalf(value: number): boolean {
  double[0] = value
  const distance = ((words[0] as number) & EXTRA_BITS) - HALF
  return distance > -NEAR_HALF && distance < NEAR_HALF
}

/**
 * `count` floats of a JSON array, or null where it is not a flat array of that many numbers, or one of them
 * overflows FP32.
 */
export function scanFloat32(json: Uint8Array, count: number): Float32Array<ArrayBuffer> | null {
  const floats = new Float32Array(count)
  const { length } = json
  let at = 0
  while (isWhiteSpace(json[at])) at++
  if (json[at++] !== OPEN) return null
  for (let i = 0; i < count; i++) {
    while (isWhiteSpace(json[at])) at++
    const start = at
    const isNegative = json[at] === MINUS
    if (isNegative) at++

    let value = 0
    let digits = 0
    let mantissa = 0
    let exponent = 0
    let byte = json[at] as number
    if (byte === ZERO) byte = json[++at] as number
    else if (byte > ZERO && byte <= NINE) {
      for (; byte >= ZERO && byte <= NINE; byte = json[++at] as number) {
        if (digits < MAX_DIGITS) {
          mantissa = mantissa * 10 + (byte - ZERO)
          digits++
        } else exponent++
      }
    } else if (byte === UPPER_N && !isNegative && standsAt(json, at, NAN)) {
      value = Number.NaN
      at += NAN.length
    } else if (byte === UPPER_I && standsAt(json, at, INFINITY)) {
      value = Number.POSITIVE_INFINITY
      at += INFINITY.length
    } else return null
    if (byte === DOT) {
      byte = json[++at] as number
      if (!(byte >= ZERO && byte <= NINE)) return null
      for (; byte >= ZERO && byte <= NINE; byte = json[++at] as number) {
        if (digits >= MAX_DIGITS) continue
        mantissa = mantissa * 10 + (byte - ZERO)
        exponent--
        if (mantissa !== 0) digits++
      }
    }
    if (byte === LOWER_E || byte === UPPER_E) {
      byte = json[++at] as number
      const isBelow = byte === MINUS
      if (isBelow || byte === PLUS) byte = json[++at] as number
      if (!(byte >= ZERO && byte <= NINE)) return null
      let written = 0
      for (; byte >= ZERO && byte <= NINE; byte = json[++at] as number) {
        if (written < 1000) written = written * 10 + (byte - ZERO)
      }
      exponent += isBelow ? -written : written
    }

    if (mantissa !== 0) {
      if (exponent >= -22 && exponent <= 22) {
        value =
          exponent < 0
            ? mantissa / (POWERS_OF_TEN[-exponent] as number)
            : mantissa * (POWERS_OF_TEN[exponent] as number)
      }
      if (value < SMALLEST_NORMAL || value > LARGEST || isNearHalf(value)) {
        value = Math.abs(
          Number(Buffer.from(json.buffer, json.byteOffset + start, at - start).toString('latin1')),
        )
        if (!(value < LARGEST)) return null
      }
    }
    floats[i] = isNegative ? -value : value

    while (isWhiteSpace(json[at])) at++
    if (json[at++] !== (i === count - 1 ? CLOSE : COMMA)) return null
  }
  if (count === 0) {
    while (isWhiteSpace(json[at])) at++
    if (json[at++] !== CLOSE) return null
  }
  while (isWhiteSpace(json[at])) at++
  return at === length ? floats : null
}
