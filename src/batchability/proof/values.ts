/**
 * What the proof knows about a tensor:
 *
 * - `constant`: the same for any rows and any number of rows. Its shape can contain unknowns (the length of a
 *   sequence).
 * - `count`: depends only on the number of rows, with a shape independent of it. It may determine shapes, but
 *   must not become part of a row's result.
 * - `rows`: dimension `axis` has size outer * N * inner. The elements of row r are at every (o, r, i) and are
 *   what the graph computes for row r alone. No other dimension depends on N.
 * - `place`: integers with the position of a row in the batch. Only a lookup of that row may use them.
 * - `mixed`: none of these. It contains the first reason, which propagates to everything computed from it.
 */
import { dependsOnRows, exactQuotient, isEqual, isNatural, ONE, type Size, type Sizes } from './sizes.js'

export type Shape = readonly Size[]

export interface Constant {
  readonly kind: 'constant'
  /** Null if not even the rank is known. */
  readonly shape: Shape | null
  /** Elements of a small integer tensor, flattened; an element can be an unknown. */
  readonly elements: readonly Size[] | null
  /** Elements of a small float tensor, flattened. */
  readonly numbers: readonly number[] | null
}

export interface Count {
  readonly kind: 'count'
  readonly shape: Shape | null
  readonly elements: readonly Size[] | null
}

export interface Rows {
  readonly kind: 'rows'
  readonly shape: Shape
  readonly axis: number
  readonly outer: Size
  readonly inner: Size
}

export interface Place {
  readonly kind: 'place'
  /** Dimension 0 is the batch. */
  readonly shape: Shape
  /** Either all elements of row r are r, or the first element of its last dimension is. */
  readonly form: 'every' | 'first'
}

export interface Cause {
  readonly node: string
  readonly operator: string
  readonly reason: string
  readonly remedy: string
}

export interface Mixed {
  readonly kind: 'mixed'
  readonly cause: Cause
}

export type Value = Constant | Count | Rows | Place | Mixed
/** Values that are neither positions nor mixtures. */
export type Plain = Constant | Count | Rows

/** Thrown by a rule to mark the node's outputs as mixed. */
export class Prevented extends Error {
  readonly remedy: string

  constructor(reason: string, remedy: string) {
    super(reason)
    this.remedy = remedy
  }
}

export const REMEDY = {
  insideRow: 'apply the operation within a row: axes from 1 on (PyTorch: dim=1 or later)',
  batchFirst: 'keep the batch in the first dimension, and take its size from Shape(input)',
  fixedScales: 'quantise statically, with constant scales, or quantise only the weights',
  fixedSteering:
    'compute shapes, axes and counts from constants or from Shape(input) of a dimension from 1 on',
  pairs: 'compare a row with constants, not with the other rows',
  export: 'export the model with operators listed in docs/batching.md',
  inference: 'export the model for inference, not for training',
  declare: 'declare the rank of every input, and the size of fixed dimensions',
} as const

export function constant(shape: Shape | null): Constant {
  return { kind: 'constant', shape, elements: null, numbers: null }
}

/** Integers whose elements are tracked individually. */
export function integers(shape: Shape, elements: readonly Size[]): Constant | Count {
  return elements.some(dependsOnRows)
    ? { kind: 'count', shape, elements }
    : { kind: 'constant', shape, elements, numbers: null }
}

export interface Batch {
  readonly axis: number
  readonly outer: Size
  readonly inner: Size
}

/**
 * Rows along `axis`, whose entry in `shape` is ignored.
 * @throws Prevented if another dimension depends on the number of rows.
 */
export function rows(sizes: Sizes, shape: Shape, { axis, outer, inner }: Batch): Rows {
  if (axis < 0 || axis >= shape.length) throw new Error(`axis ${axis} of ${shape.length} dimensions`)
  const others = [...shape.filter((_, i) => i !== axis), outer, inner]
  if (others.some(dependsOnRows)) {
    throw new Prevented('gives every row a size that depends on the number of rows', REMEDY.fixedSteering)
  }
  const whole = sizes.product(outer, sizes.rows, inner)
  return { kind: 'rows', shape: shape.map((size, i) => (i === axis ? whole : size)), axis, outer, inner }
}

/** The same kind without elements, which are no longer tracked. */
export function unfollowed(value: Constant | Count, shape: Shape | null = value.shape): Constant | Count {
  return value.kind === 'count' ? { kind: 'count', shape, elements: null } : constant(shape)
}

/** The result of a computation on values without rows. */
export function combined(values: readonly (Plain | null)[], shape: Shape | null): Constant | Count {
  return values.some((value) => value?.kind === 'count')
    ? { kind: 'count', shape, elements: null }
    : constant(shape)
}

/** N*size without N; null if the size depends on the rows in another way. */
export function withoutRows(size: Size, { rows: all }: Sizes): Size | null {
  const rest = exactQuotient(size, all)
  return rest !== null && !dependsOnRows(rest) && isNatural(rest) ? rest : null
}

export function isSameLayout(a: Rows, b: Rows): boolean {
  return isEqual(a.outer, b.outer) && isEqual(a.inner, b.inner)
}

/** Whether the dimension is exactly the batch. */
export function isWholeBatch({ outer, inner }: Rows): boolean {
  return isEqual(outer, ONE) && isEqual(inner, ONE)
}
