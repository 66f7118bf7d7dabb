/**
 * Symbolic sizes of dimensions: products of one integer and named unknowns. Two sizes are equal if they are
 * the same product. A size that is not a product (a sum, a rounded quotient) becomes a separate unknown,
 * which is the same for the same operands.
 */

export interface Unknown {
  readonly id: number
  readonly text: string
  /** Whether it depends on the number of rows. */
  readonly dependsOnRows: boolean
  /** Whether it is never negative, like the size of a dimension. */
  readonly isSize: boolean
}

export interface Size {
  readonly coefficient: number
  /** Sorted by id; a square contains its unknown twice. */
  readonly unknowns: readonly Unknown[]
}

/** Above this, 32-bit integers wrap, so such products are not tracked. */
const MAX_COEFFICIENT = 2 ** 31

/** More factors than in any shape; stops graphs that square a size repeatedly. */
const MAX_UNKNOWNS = 32

export function literal(value: number): Size {
  return { coefficient: value, unknowns: [] }
}

export const ONE = literal(1)

export function literalOf({ coefficient, unknowns }: Size): number | null {
  return unknowns.length === 0 ? coefficient : null
}

/** Whether it fits into a 32-bit integer, so that casts and comparisons behave as in the runtime. */
export function isExact({ coefficient }: Size): boolean {
  return Number.isInteger(coefficient) && Math.abs(coefficient) < MAX_COEFFICIENT
}

export function isLiteral(size: Size, value: number): boolean {
  return size.unknowns.length === 0 && size.coefficient === value
}

export function isEqual(a: Size, b: Size): boolean {
  return (
    a.coefficient === b.coefficient &&
    a.unknowns.length === b.unknowns.length &&
    a.unknowns.every((unknown, i) => unknown === b.unknowns[i])
  )
}

export function dependsOnRows({ unknowns }: Size): boolean {
  return unknowns.some((unknown) => unknown.dependsOnRows)
}

/** Whether it is a valid dimension size for any values of the unknowns. */
export function isNatural({ coefficient, unknowns }: Size): boolean {
  return coefficient >= 0 && unknowns.every(({ isSize }) => isSize)
}

export function sizeText({ coefficient, unknowns }: Size): string {
  const names = unknowns.map(({ text }) => text)
  return coefficient === 1 && names.length > 0 ? names.join('*') : [coefficient, ...names].join('*')
}

function keyOf({ coefficient, unknowns }: Size): string {
  return `${coefficient}:${unknowns.map(({ id }) => id).join('.')}`
}

/** The quotient of two products; null if the division is not exact. */
export function exactQuotient(dividend: Size, divisor: Size): Size | null {
  if (divisor.coefficient === 0 || dividend.coefficient % divisor.coefficient !== 0) return null
  const left = [...dividend.unknowns]
  for (const unknown of divisor.unknowns) {
    const at = left.indexOf(unknown)
    if (at < 0) return null
    left.splice(at, 1)
  }
  return { coefficient: dividend.coefficient / divisor.coefficient, unknowns: left }
}

/** The unknowns of one proof. */
export class Sizes {
  #count = 0
  readonly #derived = new Map<string, Size>()
  /** The number of rows. */
  readonly rows: Size

  constructor() {
    this.rows = this.fresh({ text: 'N', dependsOnRows: true })
  }

  /** An unknown that equals no other. */
  fresh({ text = '?', dependsOnRows = false, isSize = true }: Partial<Omit<Unknown, 'id'>> = {}): Size {
    const unknown = { id: this.#count++, text, dependsOnRows, isSize }
    return { coefficient: 1, unknowns: [unknown] }
  }

  /** A lower bound for the ids of all unknowns created from now on. */
  get nextId(): number {
    return this.#count
  }

  /** One unknown for each operation and its operands. */
  derived(operation: string, operands: readonly Size[], isSize: boolean): Size {
    const key = `${operation}(${operands.map(keyOf).join(',')})`
    let size = this.#derived.get(key)
    if (size === undefined) {
      size = this.fresh({ text: operation, dependsOnRows: operands.some(dependsOnRows), isSize })
      this.#derived.set(key, size)
    }
    return size
  }

  product(...factors: readonly Size[]): Size {
    let coefficient = 1
    const unknowns: Unknown[] = []
    for (const factor of factors) {
      coefficient *= factor.coefficient
      unknowns.push(...factor.unknowns)
    }
    if (coefficient === 0) return literal(0)
    if (!(Math.abs(coefficient) < MAX_COEFFICIENT) || unknowns.length > MAX_UNKNOWNS)
      return this.derived('product', factors, factors.every(isNatural))
    unknowns.sort((a, b) => a.id - b.id)
    return { coefficient, unknowns }
  }

  sum(a: Size, b: Size): Size {
    return this.#linear({ a, b, sign: 1 })
  }

  difference(a: Size, b: Size): Size {
    return this.#linear({ a, b, sign: -1 })
  }

  #linear({ a, b, sign }: { a: Size; b: Size; sign: 1 | -1 }): Size {
    if (isLiteral(b, 0)) return a
    if (isLiteral(a, 0) && sign === 1) return b
    const coefficient = a.coefficient + sign * b.coefficient
    const isLike = isEqual({ ...a, coefficient: 1 }, { ...b, coefficient: 1 })
    if (isLike && Math.abs(coefficient) < MAX_COEFFICIENT)
      return coefficient === 0 ? literal(0) : { coefficient, unknowns: a.unknowns }
    if (sign === -1) return this.derived('difference', [a, b], false)
    const operands = keyOf(a) < keyOf(b) ? [a, b] : [b, a]
    return this.derived('sum', operands, isNatural(a) && isNatural(b))
  }

  /** Integer division, which truncates towards zero. */
  quotient(dividend: Size, divisor: Size): Size {
    const [a, b] = [literalOf(dividend), literalOf(divisor)]
    if (a !== null && b !== null && b !== 0 && Number.isSafeInteger(a)) return literal(Math.trunc(a / b))
    return (
      exactQuotient(dividend, divisor) ??
      this.derived('quotient', [dividend, divisor], isNatural(dividend) && isNatural(divisor))
    )
  }

  /** The broadcast size of two dimensions that are not the batch. */
  broadcast(a: Size, b: Size): Size {
    if (isEqual(a, b) || isLiteral(b, 1)) return a
    if (isLiteral(a, 1)) return b
    if (literalOf(a) !== null) return a
    if (literalOf(b) !== null) return b
    return this.derived('broadcast', keyOf(a) < keyOf(b) ? [a, b] : [b, a], true)
  }
}
