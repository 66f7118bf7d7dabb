/**
 * The minimum size of a response from its shapes and datatypes. One that is too large is refused before
 * it is encoded, and before it leaves the thread that computed it.
 */
import { OnecopyError } from '../../errors.js'
import { DATATYPES, type Datatype, elementCount, type Tensor } from '../../tensor.js'
import { JSON_RULES, type JsonRule } from './datatypes.js'
import type { OutputRequest } from './plan.js'

/** With the comma behind it: `0,`, `true,`, `"",`. */
const LEAST_JSON_BYTES: Record<JsonRule['kind'], number> = {
  bool: 5,
  integer: 2,
  integer64: 2,
  float: 2,
  text: 3,
  none: 0,
}
/** In front of each text in binary data. */
const TEXT_LENGTH_BYTES = 4

/** The least that one element takes in an answer. */
export function leastElementBytes(datatype: Datatype, isBinary: boolean): number {
  if (isBinary) return DATATYPES[datatype].bytes ?? TEXT_LENGTH_BYTES
  return LEAST_JSON_BYTES[JSON_RULES[datatype].kind]
}

/** The same for every output of the request; 0 for those that are not returned as they are. */
export function leastAnswered(
  outputs: readonly OutputRequest[],
  specs: readonly { readonly name: string; readonly datatype: Datatype }[],
): number[] {
  return outputs.map(({ name, binary, classes, place }) => {
    const spec = specs.find((one) => one.name === name)
    if (spec === undefined || classes !== undefined || place !== undefined) return 0
    return leastElementBytes(spec.datatype, binary)
  })
}

/**
 * The least that tensors take together: their elements, and the letters of texts; the last comma is not
 * written.
 */
export function leastBytes(tensors: readonly Tensor[], elementBytes: readonly number[]): number {
  return tensors.reduce((sum, { data }, i) => {
    const perElement = elementBytes[i] ?? 0
    if (perElement === 0) return sum
    let bytes = data.length * perElement - 1
    if (!ArrayBuffer.isView(data)) for (const text of data) bytes += text.length
    return sum + Math.max(0, bytes)
  }, 0)
}

export function responseTooLarge(options: {
  readonly maxBytes: number
  readonly bytes: number
  readonly isExact: boolean
  readonly outputs: readonly Pick<Tensor, 'name' | 'datatype' | 'shape'>[]
}): OnecopyError {
  const { maxBytes, bytes, isExact, outputs } = options
  const most = outputs.toSorted((a, b) => elementCount(b.shape) - elementCount(a.shape))[0]
  const about =
    most === undefined
      ? ''
      : `: output ${JSON.stringify(most.name)} is ${most.datatype} [${most.shape.join(', ')}]`
  return new OnecopyError(
    'RESPONSE_TOO_LARGE',
    `expected an answer of at most ${maxBytes} bytes (--max-response), got ${isExact ? '' : 'at least '}${bytes}${about}`,
  )
}
