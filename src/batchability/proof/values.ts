/**
 * What the proof knows of a tensor.
 *
 * - `constant`: the same for any rows and any number of them. Its shape can hold unknowns (the length of a sequence).
 * - `count`: computed from the number of rows and nothing else, in a shape that does not depend on it. It may steer shapes;
 *   it may not become part of what a row is answered.
 * - `rows`: dimension `axis` has size outer * N * inner and is laid out so: the place of row r is every (o, r, i). What stands
 *   there is what the graph computes for row r alone. No other dimension depends on N.
 * - `place`: integers that say where in the batch a row stands. Only a lookup of that very row may use them.
 * - `mixed`: none of these. It carries the first reason, and so does everything computed from it.
 */
import { dependsOnRows, exactQuotient, isEqual, isNatural, ONE, type Size, type Sizes } from './sizes.js'

export type Shape = readonly Size[]

export interface Constant {
  readonly kind: 'constant'
  /** Null where not even the rank is known. */
  readonly shape: Shape | null
  /** Of a small integer tensor, flat; an element can be an unknown. */
  readonly elements: readonly Size[] | null
  /** Of a small tensor of floats, flat. */
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
  /** All elements of row r are r, or the first of its last dimension is. */
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
/** What holds neither places nor a mixture. */
export type Plain = Constant | Count | Rows

/** Thrown by a rule: the node's outputs are mixed. */
export class Prevented extends Error {
  readonly remedy: string

  constructor(reason: string, remedy: string) {
    super(reason)
    this.remedy = remedy
  }
}

export const REMEDY = {
  insideRow: 'keep the operation inside a row: axes from 1 on (PyTorch: dim=1 or later)',
  batchFirst: 'keep the batch in the first dimension, and take its size from Shape(input)',
  fixedScales: 'quantise statically, with scales that are part of the model, or quantise only the weights',
  fixedSteering:
    'compute shapes, axes and counts from constants or from Shape(input) of a dimension from 1 on',
  pairs: 'compare a row with constants, not with the other rows',
  export: 'export the model with operators of the list in docs/batching.md',
  inference: 'export the model for inference, not for training',
  declare: 'declare the rank of every input, and a value for the dimensions that are fixed',
} as const

export function constant(shape: Shape | null): Constant {
  return { kind: 'constant', shape, elements: null, numbers: null }
}

/** Integers that are known one by one. */
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
 * Rows along `axis`, whose entry in `shape` is not read.
 * @throws Prevented where another dimension depends on the number of rows.
 */
export function rows(sizes: Sizes, shape: Shape, { axis, outer, inner }: Batch): Rows {
  if (axis < 0 || axis >= shape.length) throw new Error(`axis ${axis} of ${shape.length} dimensions`)
  const others = [...shape.filter((_, i) => i !== axis), outer, inner]
  if (others.some(dependsOnRows)) {
    throw new Prevented(
      'gives every row a size that depends on how many rows there are',
      REMEDY.fixedSteering,
    )
  }
  const whole = sizes.product(outer, sizes.rows, inner)
  return { kind: 'rows', shape: shape.map((size, i) => (i === axis ? whole : size)), axis, outer, inner }
}

/** The same kind without rows: its elements are not followed any further. */
export function unfollowed(value: Constant | Count, shape: Shape | null = value.shape): Constant | Count {
  return value.kind === 'count' ? { kind: 'count', shape, elements: null } : constant(shape)
}

/** What is computed from these, none of which holds rows. */
export function combined(values: readonly (Plain | null)[], shape: Shape | null): Constant | Count {
  return values.some((value) => value?.kind === 'count')
    ? { kind: 'count', shape, elements: null }
    : constant(shape)
}

/** N*size without N; null where that is not all that depends on the rows. */
export function withoutRows(size: Size, { rows: all }: Sizes): Size | null {
  const rest = exactQuotient(size, all)
  return rest !== null && !dependsOnRows(rest) && isNatural(rest) ? rest : null
}

export function isSameLayout(a: Rows, b: Rows): boolean {
  return isEqual(a.outer, b.outer) && isEqual(a.inner, b.inner)
}

/** Whether the dimension is the batch and nothing but. */
export function isWholeBatch({ outer, inner }: Rows): boolean {
  return isEqual(outer, ONE) && isEqual(inner, ONE)
}
