/**
 * Classification: an output as the names of its highest values, `value:index[:label]`, in place of all of
 * them.
 *
 * Source: Triton's classification extension; values are written as its server writes them, with C's `%f` or,
 * for integers, as they are.
 */
import type { Datatype, NumericData, Tensor, TensorSpec } from '../../tensor.js'
import { elementCount } from '../../tensor.js'
import { quoted, requestInvalid, shown } from './faults.js'
import type { RequestParameters } from './schema.js'

/** Strings in one answer: each is made here, on the thread that answers everybody. */
const MAX_CLASSIFICATIONS = 100_000
/** From here on toFixed writes an exponent. */
const EXPONENT_FROM = 1e21

const CLASSIFIED: ReadonlySet<Datatype> = new Set([
  'UINT8',
  'UINT16',
  'UINT32',
  'UINT64',
  'INT8',
  'INT16',
  'INT32',
  'INT64',
  'FP32',
  'FP64',
])

/**
 * The number of classes that the request wants of an output; null if it wants the output itself.
 * @throws OnecopyError REQUEST_INVALID.
 */
export function classesAskedFor(parameters: RequestParameters, spec: TensorSpec): number | null {
  const value = parameters.classification
  if (value === undefined) return null
  const label = `output ${quoted(spec.name)}`
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) {
    throw requestInvalid(`${label}: classification must be a number of classes from 1, got ${shown(value)}`)
  }
  if (!CLASSIFIED.has(spec.datatype)) {
    throw requestInvalid(
      `${label}: expected an output of integers, FP32 or FP64 to classify, got ${spec.datatype}`,
    )
  }
  return value
}

export interface ClassificationOptions {
  readonly classes: number
  /** Whether the first dimension is the batch: each of its rows is then classified by itself. */
  readonly isBatched: boolean
  /** Names of the classes in the order of a row's elements, as many as there are. */
  readonly labels: readonly string[]
}

/**
 * The `classes` highest values of an output, descending, the first of equal ones first, NaN last: BYTES of
 * shape [n] or [batch, n], where n is `classes` or the number of elements if that is smaller.
 *
 * @throws OnecopyError REQUEST_INVALID when that is too many strings.
 */
export function classify(output: Tensor, { classes, isBatched, labels }: ClassificationOptions): Tensor {
  const { name, shape } = output
  const rows = isBatched ? (shape[0] ?? 1) : 1
  const rowElements = elementCount(isBatched ? shape.slice(1) : shape)
  const n = Math.min(classes, rowElements)
  if (rows * n > MAX_CLASSIFICATIONS) {
    const most = `at most ${MAX_CLASSIFICATIONS} can be answered`
    throw requestInvalid(`output ${quoted(name)}: ${rows * n} classifications asked for, ${most}`)
  }
  const values = output.data as NumericData
  const text = output.datatype === 'FP32' || output.datatype === 'FP64' ? sixDecimals : String
  const data: string[] = []
  for (let row = 0; row < rows; row++) {
    const of = values.subarray(row * rowElements, (row + 1) * rowElements)
    for (const index of highest(of, n)) {
      const label = labels[index]
      data.push(`${text(of[index] as number | bigint)}:${index}${label === undefined ? '' : `:${label}`}`)
    }
  }
  return { name, datatype: 'BYTES', shape: isBatched ? [rows, n] : [n], data }
}

/** Indices of the n highest values, descending. */
function highest(values: NumericData, n: number): number[] {
  const compare = comparing(values)
  if (n === values.length) return Array.from({ length: n }, (_, index) => index).sort(compare)
  /** The best so far; the worst of them is at the root. */
  const heap: number[] = []
  for (let index = 0; index < values.length; index++) {
    if (heap.length < n) {
      heap.push(index)
      if (heap.length === n) for (let at = n >> 1; at >= 0; at--) sink(heap, at, compare)
    } else if (compare(index, heap[0] as number) < 0) {
      heap[0] = index
      sink(heap, 0, compare)
    }
  }
  return heap.sort(compare)
}

type Compare = (a: number, b: number) => number

/** Orders indices by falling value; NaN is below everything. */
function comparing(values: NumericData): Compare {
  return (a, b) => {
    const [x, y] = [values[a] as number, values[b] as number]
    if (x > y) return -1
    if (y > x) return 1
    if (x === y) return a - b
    const order = Number(Number.isNaN(x)) - Number(Number.isNaN(y))
    return order === 0 ? a - b : order
  }
}

function sink(heap: number[], from: number, compare: Compare): void {
  for (let at = from; ; ) {
    let worst = at
    for (const child of [2 * at + 1, 2 * at + 2]) {
      if (child < heap.length && compare(heap[child] as number, heap[worst] as number) > 0) worst = child
    }
    if (worst === at) return
    const moved = heap[at] as number
    heap[at] = heap[worst] as number
    heap[worst] = moved
    at = worst
  }
}

function sixDecimals(value: number | bigint): string {
  const number = Number(value)
  if (Number.isNaN(number)) return 'nan'
  if (!Number.isFinite(number)) return number > 0 ? 'inf' : '-inf'
  if (Object.is(number, -0)) return '-0.000000'
  return Math.abs(number) < EXPONENT_FROM ? number.toFixed(6) : `${BigInt(number)}.000000`
}
