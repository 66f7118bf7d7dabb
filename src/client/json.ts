/**
 * Tensors as JSON without loss of values that JSON numbers cannot represent: NaN, infinities, integers beyond
 * 2^53.
 */
import { DATATYPES } from '../tensor.js'
import { type InputTensor, type NumericElements, numericElements, type OutputTensor } from './tensors.js'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** FP16 and BF16 have no JSON form and are always binary. */
export function travelsInJson({ datatype }: Pick<InputTensor, 'datatype'>): boolean {
  return datatype !== 'FP16' && datatype !== 'BF16'
}

function numberText(number: number): string {
  if (!Number.isFinite(number)) return `"${number}"`
  return Object.is(number, -0) ? '-0' : String(number)
}

/** The value of a tensor's `data`. @throws TypeError for BYTES that are not UTF-8. */
export function toJsonText(tensor: InputTensor): string {
  if (tensor.datatype === 'BYTES')
    return JSON.stringify(tensor.data.map((one) => (typeof one === 'string' ? one : decoder.decode(one))))
  const texts: string[] = []
  for (const element of tensor.data) {
    if (tensor.datatype === 'BOOL') texts.push(element ? 'true' : 'false')
    else texts.push(typeof element === 'bigint' ? String(element) : numberText(element))
  }
  return `[${texts.join(',')}]`
}

/** Strings, which are skipped, or integers with so many digits that a double may not represent them. */
const LONG_INTEGER = /"(?:[^"\\]|\\.)*"|-?\b\d{16,}\b(?![.eE\d])/g

/** JSON.parse, with long integers as strings. @throws SyntaxError. */
export function parseExactly(text: string): unknown {
  // Digits after a dot belong to a fraction, not to an integer.
  const exact = text.replace(LONG_INTEGER, (match, at: number) =>
    match.startsWith('"') || text[at - 1] === '.' ? match : `"${match}"`,
  )
  return JSON.parse(exact)
}

type OutputHead = Pick<OutputTensor, 'name' | 'datatype' | 'shape'>

/** @param data The parsed flat `data`. */
export function fromJson({ name, datatype, shape }: OutputHead, data: readonly unknown[]): OutputTensor {
  if (datatype === 'BYTES') {
    const texts = data.map(String)
    return { name, datatype, shape, data: texts, bytes: texts.map((text) => encoder.encode(text)) }
  }
  const { bytes, storage } = DATATYPES[datatype]
  const elements: NumericElements = numericElements(datatype, new Uint8Array(data.length * bytes))
  const isWide = storage === BigInt64Array || storage === BigUint64Array
  // Number also parses the strings of special floats and long integers.
  const read = isWide ? (one: unknown) => BigInt(one as string | number) : Number
  data.forEach((one, i) => {
    elements[i] = read(one) as never
  })
  return { name, datatype, shape, data: elements } as OutputTensor
}
