/**
 * Decodes the text of a CSV file: UTF-8, or UTF-16 with a byte order mark as written by spreadsheets. No
 * character is ever replaced.
 */
import { OnecopyError } from '../errors.js'

const EXPECTED = 'expected UTF-8, or UTF-16 with a byte order mark'

function invalid(message: string): OnecopyError {
  return new OnecopyError('INPUT_INVALID', message)
}

function startsWith(bytes: Uint8Array, ...mark: number[]): boolean {
  return mark.every((byte, i) => bytes[i] === byte)
}

/** The number of the line after `text`. */
function lineBehind(text: string): number {
  return text.split(/\r\n|\n|\r/).length
}

/** @throws OnecopyError INPUT_INVALID naming the line with invalid bytes. */
export function decodeText(bytes: Uint8Array): string {
  if (startsWith(bytes, 0xff, 0xfe, 0, 0) || startsWith(bytes, 0, 0, 0xfe, 0xff))
    throw invalid(`${EXPECTED}, got UTF-32`)
  if (startsWith(bytes, 0xff, 0xfe)) return decodeUtf16(bytes.subarray(2))
  if (startsWith(bytes, 0xfe, 0xff)) {
    if (bytes.length % 2 === 1) throw invalid('expected whole UTF-16 characters, the last byte is missing')
    return decodeUtf16(Buffer.from(bytes.subarray(2)).swap16())
  }
  const text = decodeUtf8(bytes)
  const nul = text.indexOf('\0')
  if (nul < 0) return text
  // Plain letters in UTF-16 are also valid UTF-8, with a NUL next to each.
  const isUtf16 = bytes.length > 1 && (bytes[0] === 0) !== (bytes[1] === 0)
  throw invalid(
    isUtf16
      ? `${EXPECTED}, got what looks like UTF-16 without one`
      : `expected text, got a NUL in line ${lineBehind(text.slice(0, nul))}`,
  )
}

function decodeUtf16(bytes: Uint8Array): string {
  let text: string
  try {
    text = new TextDecoder('utf-16le', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (thrown) {
    throw refused(thrown, 'expected UTF-16 according to the byte order mark, got an unpaired surrogate')
  }
  const nul = text.indexOf('\0')
  if (nul < 0) return text
  throw invalid(`expected text, got a NUL in line ${lineBehind(text.slice(0, nul))}`)
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (thrown) {
    const before = new TextDecoder('utf-8').decode(bytes.subarray(0, validBytes(bytes)))
    throw refused(thrown, `${EXPECTED}: line ${lineBehind(before)} is not UTF-8`)
  }
}

/** The decoder also fails if the text exceeds the maximum string length. */
function refused(thrown: unknown, message: string): OnecopyError {
  const isTooLong = (thrown as NodeJS.ErrnoException).code !== 'ERR_ENCODING_INVALID_ENCODED_DATA'
  return invalid(isTooLong ? 'expected a file of at most half a gigabyte' : message)
}

/** The number of leading bytes that are valid UTF-8, including a truncated last character. */
function validBytes(bytes: Uint8Array): number {
  let valid = 0
  let beyond = bytes.length
  while (beyond - valid > 1) {
    const middle = Math.floor((valid + beyond) / 2)
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, middle), { stream: true })
      valid = middle
    } catch {
      beyond = middle
    }
  }
  return valid
}
