/**
 * Multidirectional broadcasting, where some operands hold rows.
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

export const COUNT_AS_DATA = 'makes the number of rows part of what a row is answered'

export function unknownShape(): Prevented {
  return new Prevented('has an operand of unknown shape', REMEDY.declare)
}

function shapeOf(value: Plain): Shape {
  if (value.shape === null) throw unknownShape()
  return value.shape
}

/** Dimension counted from the last, which is 1. */
function fromLast(shape: Shape, place: number): Size {
  return shape[shape.length - place] ?? ONE
}

function broadcastShape(sizes: Sizes, shapes: readonly Shape[]): Size[] {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length))
  return Array.from({ length: rank }, (_, i) =>
    shapes.map((shape) => fromLast(shape, rank - i)).reduce((a, b) => sizes.broadcast(a, b)),
  )
}

/** A constant that is stretched over the rows: it has no dimension, or one of size 1, where the batch is. */
export function requireStretched(value: Plain, placeFromLast: number): void {
  if (isLiteral(fromLast(shapeOf(value), placeFromLast), 1)) return
  throw new Prevented(
    'puts a constant of several values along the batch axis, so that what a row meets depends on its place',
    REMEDY.batchFirst,
  )
}

/** Operands of one element-wise operation. */
export function broadcast(sizes: Sizes, values: readonly Plain[]): Plain {
  const holders = values.filter((value) => value.kind === 'rows')
  const [first] = holders
  if (first === undefined) {
    const shapes = values.map(({ shape }) => shape)
    const shape = shapes.every((one) => one !== null) ? broadcastShape(sizes, shapes) : null
    return combined(values, shape)
  }
  if (values.some(({ kind }) => kind === 'count')) throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)
  const place = modelPathOf(first)
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
export function modelPathOf({ shape, axis }: Rows): number {
  return shape.length - axis
}

/** So that the batch is not taken for a dimension of its own. */
function withoutBatch(value: Plain, place: number): Shape {
  return shapeOf(value).map((size, i, { length }) => (length - i === place ? ONE : size))
}

/** @throws Prevented unless both hold their rows along the same dimension, counted from the last, in the same order. */
export function requireSamePlace(a: Rows, b: Rows): void {
  if (modelPathOf(a) !== modelPathOf(b)) {
    throw new Prevented('brings every row together with every other', REMEDY.pairs)
  }
  if (!isSameLayout(a, b)) {
    throw new Prevented('brings together rows that are laid out in different ways', REMEDY.batchFirst)
  }
}

/** Two tensors of the same rank whose other dimensions are the same where the runtime does not refuse them. */
export function requireAligned(a: Rows, b: Rows): void {
  if (a.shape.length !== b.shape.length) {
    throw new Prevented('brings together rows of different ranks', REMEDY.batchFirst)
  }
  requireSamePlace(a, b)
}

/** @throws Prevented unless the rows of `value` lie along `axis`, in the same order as those of `holder`. */
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
    throw new Prevented(`has ${what} whose rows are laid out in another way`, REMEDY.batchFirst)
  }
}
