/**
 * Where the batch is after a reshape. A reshape keeps the elements in their order, and that order is, with rows along an
 * axis: P * outer blocks (P, the dimensions before it), N rows in each, `inner` and the dimensions behind it in each row. The
 * batch axis of the new shape is the one that depends on N, and the blocks before it must be those that were.
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

/** A tensor of rows in another shape. `target` as the Reshape operator reads it. */
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
  // Where N is in no dimension that is given, it must be in the one that is inferred, evenly.
  const holders = resolved.flatMap((size, i) => (dependsOnRows(size) ? [i] : []))
  let [at] = holders
  if (holders.length === 2 && open >= 0) at = holders.find((i) => i !== open)
  else if (holders.length !== 1) throw notShown()
  if (at === undefined) throw notShown()
  // Behind the batch an inferred dimension needs no proof: what is left of a row is what the runtime finds.
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
 * A 0 in a target copies a dimension. An unknown that is 0 would be read so: that is harmless where the tensor is empty
 * then, which it is where the unknown is one of its dimensions.
 */
function requireOwnUnknowns(whole: Size, dimensions: Shape): void {
  const own = new Set(whole.unknowns)
  if (dimensions.some(({ unknowns }) => unknowns.some((unknown) => !own.has(unknown)))) throw notShown()
}

/** Known sizes that contradict each other: the runtime refuses them, and nothing can be said of what comes after. */
function requireFits(behind: Size, inner: Size): void {
  const [whole, part] = [literalOf(behind), literalOf(inner)]
  if (whole !== null && part !== null && whole % part !== 0) throw notShown()
}

/** The same for a tensor that holds no rows: its new shape. */
export function reshapeShape(
  sizes: Sizes,
  shape: Shape | null,
  target: readonly Size[],
  allowZero = false,
): Size[] {
  const { dimensions, open } = readTarget(shape ?? [], target, allowZero)
  if (dimensions.some((size, i) => i !== open && dependsOnRows(size))) {
    throw new Prevented('gives a constant as many values as there are rows', REMEDY.batchFirst)
  }
  if (open < 0) return [...dimensions]
  const known = sizes.product(...dimensions.filter((_, i) => i !== open))
  const whole = shape && sizes.product(...shape)
  const size = (whole && exactQuotient(whole, known)) ?? sizes.fresh()
  return dimensions.map((one, i) => (i === open ? size : one))
}
