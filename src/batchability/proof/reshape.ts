/**
 * Tracks the batch through a reshape. A reshape keeps the order of the elements. With rows along an axis,
 * that order is: P * outer blocks (P: the product of the dimensions before the axis), N rows in each, and
 * `inner` and the later dimensions in each row. The batch axis of the new shape is the one that depends on N,
 * and the blocks before it must stay the same.
 */
import { dependsOnRows, exactQuotient, isNatural, literalOf, type Size, type Sizes } from './sizes.js'
import { Prevented, REMEDY, type Rows, rows, type Shape } from './values.js'

function notShown(): Prevented {
  return new Prevented('reshapes in a way that cannot be shown to keep rows apart', REMEDY.batchFirst)
}

interface Target {
  readonly dimensions: Shape
  /** Position of the dimension that the runtime infers; -1 for none. */
  readonly open: number
}

/** Replaces 0 by the dimension that it copies; -1 stays. */
function readTarget(shape: Shape, target: readonly Size[], allowZero: boolean): Target {
  let open = -1
  const dimensions = target.map((size, i) => {
    const value = literalOf(size)
    if (value === 0 && !allowZero) {
      const copied = shape[i]
      if (copied === undefined) throw notShown()
      return copied
    }
    if (value === -1) {
      if (open >= 0) throw notShown()
      open = i
      return size
    }
    if (!isNatural(size)) throw notShown()
    return size
  })
  return { dimensions, open }
}

/** Rows in another shape. `target` has the semantics of the Reshape operator. */
export function reshapeRows(sizes: Sizes, value: Rows, target: readonly Size[], allowZero = false): Rows {
  const { shape, axis, outer, inner } = value
  const { dimensions, open } = readTarget(shape, target, allowZero)
  const known = sizes.product(...dimensions.filter((_, i) => i !== open))
  const whole = sizes.product(...shape)
  requireOwnUnknowns(whole, dimensions)
  const resolved = dimensions.map((size, i) => {
    if (i !== open) return size
    return exactQuotient(whole, known) ?? sizes.derived('inferred', [whole, known], true)
  })
  // If no given dimension contains N, the inferred one must, as an exact multiple.
  const holders = resolved.flatMap((size, i) => (dependsOnRows(size) ? [i] : []))
  let [at] = holders
  if (holders.length === 2 && open >= 0) at = holders.find((i) => i !== open)
  else if (holders.length !== 1) throw notShown()
  if (at === undefined) throw notShown()
  // An inferred dimension after the batch needs no proof: the runtime infers it from the rest of a row.
  if (open > at && dependsOnRows(resolved[open] as Size)) resolved[open] = sizes.fresh()
  if (open >= 0 && open <= at && exactQuotient(whole, known) === null) throw notShown()

  const before = sizes.product(...resolved.slice(0, at))
  const blocks = sizes.product(...shape.slice(0, axis), outer)
  const newOuter = exactQuotient(blocks, before)
  const size = resolved[at] as Size
  const newInner = newOuter && exactQuotient(size, sizes.product(newOuter, sizes.rows))
  if (newOuter === null || newInner === null || dependsOnRows(newInner) || !isNatural(newInner))
    throw notShown()
  const behind = sizes.product(inner, ...shape.slice(axis + 1))
  requireFits(behind, newInner)
  return rows(sizes, resolved, { axis: at, outer: newOuter, inner: newInner })
}

/**
 * A 0 in a target copies a dimension. An unknown that is 0 would be interpreted as a copy. That is harmless
 * if the tensor is then empty, which is the case if the unknown is one of its dimensions.
 */
function requireOwnUnknowns(whole: Size, dimensions: Shape): void {
  const own = new Set(whole.unknowns)
  if (dimensions.some(({ unknowns }) => unknowns.some((unknown) => !own.has(unknown)))) throw notShown()
}

/** Contradictory known sizes: the runtime rejects them, so nothing can be derived from the result. */
function requireFits(behind: Size, inner: Size): void {
  const [whole, part] = [literalOf(behind), literalOf(inner)]
  if (whole !== null && part !== null && whole % part !== 0) throw notShown()
}

/** The new shape of a tensor without rows. */
export function reshapeShape(
  sizes: Sizes,
  shape: Shape | null,
  target: readonly Size[],
  allowZero = false,
): Size[] {
  const { dimensions, open } = readTarget(shape ?? [], target, allowZero)
  if (dimensions.some((size, i) => i !== open && dependsOnRows(size))) {
    throw new Prevented('gives a constant one value per row', REMEDY.batchFirst)
  }
  if (open < 0) return [...dimensions]
  const known = sizes.product(...dimensions.filter((_, i) => i !== open))
  const whole = shape && sizes.product(...shape)
  const size = (whole && exactQuotient(whole, known)) ?? sizes.fresh()
  return dimensions.map((one, i) => (i === open ? size : one))
}
