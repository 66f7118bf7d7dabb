/**
 * Rejects requests that supply invalid operands of integer divisions in the graph: a divisor of 0, for which
 * the runtime fails the whole batch, and the smallest integer divided by -1, which crashes the process.
 *
 * Operands that the graph computes are not checked; the model's circuit breaker handles those.
 */
import { tensorInvalid } from '../protocol/v2/faults.js'
import type { Division, DivisionOperand } from '../segment/layout.js'
import { elementCount, type Tensor, type TensorData } from '../tensor.js'

const SMALLEST_INT32 = -(2 ** 31)

type Kind = 'zero' | 'minus one' | 'smallest'

/** Finds positions of elements without creating an object per element. */
function* positions(data: TensorData, kind: Kind): Generator<number> {
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    // The low half comes first; comparing BigInts would create an object for each.
    const halves = new Int32Array(data.buffer, data.byteOffset, 2 * data.length)
    const low = kind === 'minus one' ? -1 : 0
    const high = kind === 'minus one' ? -1 : kind === 'zero' ? 0 : SMALLEST_INT32
    for (let i = 0; i < data.length; i++) if (halves[2 * i] === low && halves[2 * i + 1] === high) yield i
    return
  }
  if (!ArrayBuffer.isView(data)) return
  const wanted = kind === 'zero' ? 0 : kind === 'minus one' ? -1 : SMALLEST_INT32
  for (let i = data.indexOf(wanted); i >= 0; i = data.indexOf(wanted, i + 1)) yield i
}

/** An operand supplied by a request. */
interface Given {
  /** Null if only the number of elements is known. */
  readonly shape: readonly number[] | null
  readonly count: number
  readonly hazards: () => Iterable<number>
  /** Undefined for a constant. */
  readonly tensor: Tensor | undefined
}

function given(operand: DivisionOperand, inputs: readonly Tensor[], kind: Kind): Given | null {
  if (operand.from === 'elsewhere') return null
  if (operand.from === 'constant') {
    const { shape, hazards } = operand
    return { shape, count: elementCount(shape), hazards: () => hazards, tensor: undefined }
  }
  const tensor = inputs.find(({ name }) => name === operand.name)
  if (tensor === undefined) return null
  const shape = operand.isReshaped ? null : tensor.shape
  return { shape, count: elementCount(tensor.shape), hazards: () => positions(tensor.data, kind), tensor }
}

/**
 * The position of an element on the axes that both operands have: elements with the same position are
 * divided. Multidirectional broadcasting: https://onnx.ai/onnx/repo-docs/Broadcasting.html
 */
function placeOnSharedAxes(shape: readonly number[], other: readonly number[], position: number): number {
  let rest = position
  let place = 0
  let stride = 1
  for (let axis = 1; axis <= shape.length; axis++) {
    const size = shape.at(-axis) ?? 1
    const at = rest % size
    rest = Math.floor(rest / size)
    if (size === 1 || (other.at(-axis) ?? 1) === 1) continue
    place += at * stride
    stride *= size
  }
  return place
}

/**
 * An element of the dividend and the element of the divisor that it is divided by; null if none. Takes linear
 * time.
 */
function meeting(dividend: Given, divisor: Given): readonly [number, number] | null {
  const [firstDivisor] = divisor.hazards()
  if (firstDivisor === undefined) return null
  const [firstDividend] = dividend.hazards()
  if (firstDividend === undefined) return null
  if (dividend.count === 1 || divisor.count === 1) return [firstDividend, firstDivisor]
  const [a, b] = [dividend.shape, divisor.shape]
  if (a === null || b === null) return null
  const byPlace = new Map<number, number>()
  for (const at of divisor.hazards()) byPlace.set(placeOnSharedAxes(b, a, at), at)
  for (const at of dividend.hazards()) {
    const met = byPlace.get(placeOnSharedAxes(a, b, at))
    if (met !== undefined) return [at, met]
  }
  return null
}

function nodeOf({ operator, node }: Division): string {
  return node === '' ? `a node ${operator}` : `node ${JSON.stringify(node)} (${operator})`
}

function label({ name }: Tensor): string {
  return `input ${JSON.stringify(name)}`
}

function checkZero(division: Division, divisor: Given): void {
  if (divisor.tensor === undefined) return
  const [at] = positions(divisor.tensor.data, 'zero')
  if (at === undefined) return
  throw tensorInvalid(
    label(divisor.tensor),
    `element ${at}: expected an integer other than 0, which ${nodeOf(division)} divides by, got 0`,
  )
}

function checkOverflow(division: Division, inputs: readonly Tensor[]): void {
  const dividend = given(division.dividend, inputs, 'smallest')
  const divisor = given(division.divisor, inputs, 'minus one')
  if (dividend === null || divisor === null) return
  const met = meeting(dividend, divisor)
  if (met === null) return
  const [dividendAt, divisorAt] = met
  const tensor = dividend.tensor ?? divisor.tensor
  if (tensor === undefined) return
  const smallest = tensor.datatype === 'INT64' ? '-9223372036854775808' : String(SMALLEST_INT32)
  const isDividend = tensor === dividend.tensor
  const by = divisor.tensor === undefined ? '-1' : `-1 (${label(divisor.tensor)}, element ${divisorAt})`
  throw tensorInvalid(
    label(tensor),
    `element ${isDividend ? dividendAt : divisorAt}: ${nodeOf(division)} divides ${smallest} by ${isDividend ? by : '-1'}, ` +
      `which has no result in ${tensor.datatype}`,
  )
}

/**
 * Checks the inputs of one request.
 * @throws OnecopyError TENSOR_INVALID naming tensor, element and node.
 */
export function checkDivisions(divisions: readonly Division[], inputs: readonly Tensor[]): void {
  for (const division of divisions) {
    const divisor = given(division.divisor, inputs, 'zero')
    if (divisor !== null) checkZero(division, divisor)
    if (division.hasOverflow) checkOverflow(division, inputs)
  }
}
