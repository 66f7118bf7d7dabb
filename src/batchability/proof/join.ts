/** Joins what is known of two alternatives for a tensor: two branches, or two iterations of a loop. */
import { dependsOnRows, isEqual, type Size, type Sizes, type Unknown } from './sizes.js'
import {
  type Constant,
  type Count,
  isSameLayout,
  Prevented,
  REMEDY,
  rows,
  type Shape,
  type Value,
} from './values.js'

/** Sizes of loop-carried values that represent those of any iteration. */
export type Carried = Set<Unknown>

interface Joining {
  readonly sizes: Sizes
  readonly carried: Carried
}

function joinSize(a: Size, b: Size, { sizes, carried }: Joining, isSize: boolean): Size {
  if (isEqual(a, b)) return a
  const [unknown] = a.unknowns
  if (unknown !== undefined && a.unknowns.length === 1 && a.coefficient === 1 && carried.has(unknown)) {
    if (unknown.dependsOnRows || !dependsOnRows(b)) return a
  }
  const joined = sizes.fresh({ dependsOnRows: dependsOnRows(a) || dependsOnRows(b), isSize })
  carried.add(joined.unknowns[0] as Unknown)
  return joined
}

function joinShapes(a: Shape | null, b: Shape | null, joining: Joining): Size[] | null {
  if (a === null || b === null || a.length !== b.length) return null
  return a.map((size, i) => joinSize(size, b[i] as Size, joining, true))
}

function joinElements(a: Constant | Count, b: Constant | Count, joining: Joining): Size[] | null {
  if (a.elements === null || b.elements === null || a.elements.length !== b.elements.length) return null
  return a.elements.map((element, i) => joinSize(element, b.elements?.[i] as Size, joining, false))
}

/**
 * Joins both values; sizes that differ become unknowns in `carried`.
 * @throws Prevented if the values differ in how they contain rows.
 */
export function join(sizes: Sizes, a: Value, b: Value, carried: Carried = new Set()): Value {
  const joining = { sizes, carried }
  if (a.kind === 'mixed') return a
  if (b.kind === 'mixed') return b
  if (a.kind === 'place' || b.kind === 'place') {
    throw new Prevented("chooses between a row's position in the batch and another value", REMEDY.insideRow)
  }
  if (a.kind === 'rows' || b.kind === 'rows') {
    const shape = joinShapes(a.shape, b.shape, joining)
    const isSame =
      a.kind === 'rows' && b.kind === 'rows' && shape !== null && a.axis === b.axis && isSameLayout(a, b)
    if (!isSame)
      throw new Prevented('gives rows in one case and something else in another', REMEDY.batchFirst)
    return rows(sizes, shape, a)
  }
  const shape = joinShapes(a.shape, b.shape, joining)
  const elements = shape === null ? null : joinElements(a, b, joining)
  const isCount = a.kind === 'count' || b.kind === 'count'
  return isCount ? { kind: 'count', shape, elements } : { kind: 'constant', shape, elements, numbers: null }
}

/** Whether joining changed nothing. */
export function isUnchanged(a: Value, b: Value): boolean {
  if (a.kind !== b.kind) return false
  if (a.kind === 'mixed' || b.kind === 'mixed') return true
  const areSame = (some: Shape | null, others: Shape | null): boolean =>
    some === null || others === null
      ? some === others
      : some.length === others.length && some.every((size, i) => isEqual(size, others[i] as Size))
  if (!areSame(a.shape, b.shape)) return false
  if (a.kind === 'rows' || b.kind === 'rows' || a.kind === 'place' || b.kind === 'place') return true
  return areSame(a.elements, b.elements)
}
