/** Tensor data to JSON, in pieces: a tensor may be larger than the longest string. */
import type { NumericData, Tensor } from '../../tensor.js'
import { travelsInJson } from './datatypes.js'
import { quoted, requestInvalid } from './faults.js'

/** Elements per piece: small enough for the young generation, large enough to be few. */
const PIECE_ELEMENTS = 4096

/** Refuses FP16 and BF16, which are binary only: REQUEST_INVALID, naming the output. */
export function requireJsonForm({ name, datatype }: Pick<Tensor, 'name' | 'datatype'>): void {
  if (travelsInJson(datatype)) return
  const remedy = 'ask for it with the output parameter binary_data: true'
  throw requestInvalid(`output ${quoted(name)}: ${datatype} has no JSON form; ${remedy}`)
}

/**
 * The `data` of one tensor: a flat JSON array in row-major order, as pieces of text to be written one after
 * the other. NaN and infinities are the strings "NaN", "Infinity", "-Infinity"; -0 is `-0.0`, because `-0` is
 * the integer 0 to many readers; INT64 and UINT64 have all their digits; BOOL is true or false.
 *
 * @throws OnecopyError REQUEST_INVALID for FP16 and BF16.
 */
export function* encodeJsonData(tensor: Tensor): Generator<string, void, undefined> {
  requireJsonForm(tensor)
  const { data } = tensor
  yield '['
  if (tensor.datatype === 'BYTES') {
    for (let i = 0; i < data.length; i++) yield (i > 0 ? ',' : '') + JSON.stringify(data[i])
    yield ']'
    return
  }
  for (let from = 0; from < data.length; from += PIECE_ELEMENTS) {
    if (from > 0) yield ','
    yield elementsText(tensor, from, Math.min(data.length, from + PIECE_ELEMENTS))
  }
  yield ']'
}

function elementsText({ datatype, data }: Tensor, from: number, to: number): string {
  const part = (data as NumericData).subarray(from, to)
  if (part instanceof BigInt64Array || part instanceof BigUint64Array) return part.join(',')
  if (datatype === 'BOOL') return Array.from(part, (element) => element !== 0).join(',')
  if (datatype === 'FP32' || datatype === 'FP64') return floatsText(part)
  return inside(JSON.stringify(Array.from(part)))
}

/** JSON.stringify writes plain numbers fast; what it would write wrongly goes in as strings first. */
function floatsText(part: Exclude<NumericData, BigInt64Array | BigUint64Array>): string {
  const plain: number[] = Array.from(part)
  let mixed: (number | string)[] | null = null
  let negativeZero = false
  for (let i = 0; i < plain.length; i++) {
    const value = plain[i] as number
    const isNegativeZero = value === 0 && 1 / value < 0
    if (value - value === 0 && !isNegativeZero) continue
    mixed ??= [...plain]
    mixed[i] = isNegativeZero ? '-0' : String(value)
    negativeZero ||= isNegativeZero
  }
  const text = inside(JSON.stringify(mixed ?? plain))
  return negativeZero ? text.replaceAll('"-0"', '-0.0') : text
}

function inside(array: string): string {
  return array.slice(1, -1)
}
