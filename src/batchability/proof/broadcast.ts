/**
 * Multidirectional broadcasting with operands that may contain rows.
 * https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md
 */
import { isLiteral, ONE, type Size, type Sizes } from './sizes.js'
import {
  combined,
  isSameLayout,
  type Plain,
  Prevented,
  REMEDY,
  type Rows,
  rows,
  type Shape,
} from './values.js'

export const COUNT_AS_DATA = 'makes results of a row depend on the number of rows'

export function unknownShape(): Prevented {
  return new Prevented('has an operand of unknown shape', REMEDY.declare)
}

function shapeOf(value: Plain): Shape {
  if (value.shape === null) throw unknownShape()
  return value.shape
}

/** The dimension at a position counted from the last, which is 1. */
function fromLast(shape: Shape, place: number): Size {
  return shape[shape.length - place] ?? ONE
}

function broadcastShape(sizes: Sizes, shapes: readonly Shape[]): Size[] {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length))
  return Array.from({ length: rank }, (_, i) =>
    shapes.map((shape) => fromLast(shape, rank - i)).reduce((a, b) => sizes.broadcast(a, b)),
  )
}

/**
 * Requires a constant that broadcasts over the rows: it has no dimension, or one of size 1, at the batch
 * axis.
 */
export function requireStretched(value: Plain, placeFromLast: number): void {
  if (isLiteral(fromLast(shapeOf(value), placeFromLast), 1)) return
  throw new Prevented(
    'has a constant with several values along the batch axis, so that results depend on the position of a row',
    REMEDY.batchFirst,
  )
}

/** The result of an element-wise operation on these operands. */
export function broadcast(sizes: Sizes, values: readonly Plain[]): Plain {
  const holders = values.filter((value) => value.kind === 'rows')
  const [first] = holders
  if (first === undefined) {
    const shapes = values.map(({ shape }) => shape)
    const shape = shapes.every((one) => one !== null) ? broadcastShape(sizes, shapes) : null
    return combined(values, shape)
  }
  if (values.some(({ kind }) => kind === 'count')) throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)
  const place = axisFromLast(first)
  for (const value of values) {
    if (value.kind === 'rows') requireSamePlace(first, value)
    else requireStretched(value, place)
  }
  const shape = broadcastShape(
    sizes,
    values.map((value) => withoutBatch(value, place)),
  )
  return rows(sizes, shape, { ...first, axis: shape.length - place })
}

/** The batch axis, counted from the last dimension, which is 1. */
export function axisFromLast({ shape, axis }: Rows): number {
  return shape.length - axis
}

/** Replaces the batch axis, so that it is not treated as an ordinary dimension. */
function withoutBatch(value: Plain, place: number): Shape {
  return shapeOf(value).map((size, i, { length }) => (length - i === place ? ONE : size))
}

/**
 * @throws Prevented unless both have rows along the same dimension, counted from the last, in the same
 *   layout.
 */
export function requireSamePlace(a: Rows, b: Rows): void {
  if (axisFromLast(a) !== axisFromLast(b)) {
    throw new Prevented('combines every row with every other', REMEDY.pairs)
  }
  if (!isSameLayout(a, b)) {
    throw new Prevented('combines rows that are laid out in different ways', REMEDY.batchFirst)
  }
}

/**
 * Requires two tensors of the same rank with the same batch axis and layout; the runtime checks the other
 * dimensions.
 */
export function requireAligned(a: Rows, b: Rows): void {
  if (a.shape.length !== b.shape.length) {
    throw new Prevented('combines rows of different ranks', REMEDY.batchFirst)
  }
  requireSamePlace(a, b)
}

/** @throws Prevented unless the rows of `value` are along `axis`, in the same layout as those of `holder`. */
export function requireFollows(
  value: Plain | null,
  holder: Rows,
  { axis, what }: { readonly axis: number; readonly what: string },
): void {
  if (value === null) return
  if (value.kind !== 'rows' || value.axis !== axis) {
    throw new Prevented(`has ${what} that do not follow the batch`, REMEDY.batchFirst)
  }
  if (!isSameLayout(holder, value)) {
    throw new Prevented(`has ${what} whose rows are laid out differently`, REMEDY.batchFirst)
  }
}
