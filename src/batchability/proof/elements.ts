/**
 * Arithmetic on small integer tensors whose elements are tracked individually, because shapes are calculated
 * from them.
 */
import type { Operator } from './operator.js'
import { isEqual, isExact, isNatural, literal, literalOf, type Size, type Sizes } from './sizes.js'
import { integers, type Plain } from './values.js'

/** Larger tensors are not tracked. */
export const MAX_ELEMENTS = 64

type Arithmetic = (sizes: Sizes, operands: readonly Size[], operation: string) => Size

function flag(value: boolean): Size {
  return literal(value ? 1 : 0)
}

const compare =
  (holds: (a: number, b: number) => boolean): Arithmetic =>
  (sizes, operands, operation) => {
    const [a, b] = operands.map(literalOf) as [number | null, number | null]
    return a !== null && b !== null ? flag(holds(a, b)) : sizes.derived(operation, operands, false)
  }

/** A size never equals a negative number, which exporters compare it with. */
const equal: Arithmetic = (sizes, operands, operation) => {
  const [a, b] = operands as [Size, Size]
  if (isEqual(a, b)) return flag(true)
  const [first, second] = [literalOf(a), literalOf(b)]
  const isNever = (one: Size, other: number | null) => isNatural(one) && other !== null && other < 0
  if ((first !== null && second !== null) || isNever(a, second) || isNever(b, first)) return flag(false)
  return sizes.derived(operation, operands, false)
}

const extreme =
  (choose: (a: number, b: number) => number): Arithmetic =>
  (sizes, operands, operation) => {
    return operands.reduce((a, b) => {
      const [first, second] = [literalOf(a), literalOf(b)]
      if (first !== null && second !== null) return literal(choose(first, second))
      return isEqual(a, b) ? a : sizes.derived(operation, [a, b], isNatural(a) && isNatural(b))
    })
  }

const select: Arithmetic = (sizes, operands, operation) => {
  const [condition, yes, no] = operands as [Size, Size, Size]
  const chosen = literalOf(condition)
  if (chosen !== null) return chosen === 0 ? no : yes
  return isEqual(yes, no) ? yes : sizes.derived(operation, operands, isNatural(yes) && isNatural(no))
}

const ARITHMETIC: Record<string, Arithmetic> = {
  Add: (sizes, [a, b]) => sizes.sum(a as Size, b as Size),
  Sub: (sizes, [a, b]) => sizes.difference(a as Size, b as Size),
  Mul: (sizes, [a, b]) => sizes.product(a as Size, b as Size),
  Div: (sizes, [a, b]) => sizes.quotient(a as Size, b as Size),
  Equal: equal,
  Greater: compare((a, b) => a > b),
  GreaterOrEqual: compare((a, b) => a >= b),
  Less: compare((a, b) => a < b),
  LessOrEqual: compare((a, b) => a <= b),
  Max: extreme(Math.max),
  Min: extreme(Math.min),
  Neg: (sizes, [a]) => sizes.product(literal(-1), a as Size),
  Where: select,
}

/**
 * The operator's result with its elements; null if it or an operand is not tracked. `whole` has the shape of
 * the result.
 */
export function arithmetic(operator: Operator, values: readonly Plain[], whole: Plain): Plain | null {
  const compute = ARITHMETIC[operator.name]
  if (compute === undefined || whole.kind === 'rows' || whole.shape === null) return null
  const count = elementCountOf(whole.shape)
  if (count === null || count > MAX_ELEMENTS || whole.shape.length > 1) return null
  const operands: (readonly Size[])[] = []
  for (const value of values) {
    const elements = value.kind === 'rows' ? null : value.elements
    if (elements === null || (elements.length !== 1 && elements.length !== count)) return null
    if (!elements.every(isExact)) return null
    operands.push(elements)
  }
  const elements = Array.from({ length: count }, (_, i) =>
    compute(
      operator.sizes,
      operands.map((one) => one[one.length === 1 ? 0 : i] as Size),
      operator.name,
    ),
  )
  return integers(whole.shape, elements)
}

/** Null unless every dimension is known. */
export function elementCountOf(shape: readonly Size[]): number | null {
  let count = 1
  for (const size of shape) {
    const known = literalOf(size)
    if (known === null) return null
    count *= known
  }
  return count
}
