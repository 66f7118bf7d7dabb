import { COUNT_AS_DATA, requireStretched } from '../broadcast.js'
import { elementCountOf, MAX_ELEMENTS } from '../elements.js'
import { input, type Operator, PLACE_REASON, type Rule, unknownValue } from '../operator.js'
import { dependsOnRows, isEqual, isLiteral, isNatural, ONE, type Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  integers,
  type Place,
  Prevented,
  REMEDY,
  rows,
  type Shape,
  unfollowed,
  type Value,
  withoutRows,
} from '../values.js'
import { knownShape, shapeInput } from './shapes.js'

/** A position broadcast along other dimensions is the same in every element of its row. */
function placeExpanded(value: Place, target: readonly Size[], { sizes }: Operator): Value {
  const [first, ...others] = target
  const isSameBatch = first !== undefined && (isLiteral(first, 1) || isEqual(first, sizes.rows))
  const isFlat = value.shape.slice(1).every((one) => isLiteral(one, 1))
  const isFree = others.every((one) => isNatural(one) && !dependsOnRows(one))
  if (value.form !== 'every' || target.length !== value.shape.length || !isSameBatch || !isFlat || !isFree)
    throw new Prevented(PLACE_REASON, REMEDY.insideRow)
  return { ...value, shape: [sizes.rows, ...others] }
}

/** Broadcasts to a shape; rows can be broadcast along any dimension except the batch. */
const expand: Rule = (operator) => {
  const { sizes, inputs } = operator
  const target = shapeInput(operator, 1, 'shape')
  const [first] = inputs
  if (first?.kind === 'place') return placeExpanded(first, target, operator)
  const value = input(operator, 0)
  const dimensions = knownShape(value)
  if (!target.every(isNatural)) throw unknownValue('shape')
  const rank = Math.max(dimensions.length, target.length)
  const at = (one: Shape, i: number): Size => one[i - rank + one.length] ?? ONE
  const axes = Array.from({ length: rank }, (_, i) => i)
  if (value.kind === 'rows') {
    const axis = value.axis + rank - dimensions.length
    const wanted = at(target, axis)
    if (!isLiteral(wanted, 1) && !isEqual(wanted, dimensions[value.axis] as Size)) {
      throw new Prevented('repeats the batch axis', REMEDY.batchFirst)
    }
    const whole = axes.map((i) => (i === axis ? ONE : sizes.broadcast(at(dimensions, i), at(target, i))))
    return rows(sizes, whole, { ...value, axis })
  }
  const holders = axes.filter((i) => dependsOnRows(at(target, i)))
  if (holders.length === 0) {
    const whole = axes.map((i) => sizes.broadcast(at(dimensions, i), at(target, i)))
    const count = elementCountOf(whole)
    const isUniform = value.elements?.length === 1 && count !== null && count <= MAX_ELEMENTS
    if (isUniform) return integers(whole, Array(count).fill(value.elements?.[0] as Size))
    return unfollowed(value, whole)
  }
  if (value.kind === 'count') throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)
  const [axis = 0] = holders
  requireStretched(value, rank - axis)
  const inner = withoutRows(at(target, axis), sizes)
  if (holders.length > 1 || inner === null) throw unknownValue('shape')
  const whole = axes.map((i) => (i === axis ? ONE : sizes.broadcast(at(dimensions, i), at(target, i))))
  return rows(sizes, whole, { axis, outer: ONE, inner })
}

const tile: Rule = (operator) => {
  const { sizes } = operator
  const value = input(operator, 0)
  const repeats = shapeInput(operator, 1, 'repeats')
  const dimensions = knownShape(value)
  if (repeats.length !== dimensions.length || !repeats.every(isNatural)) throw unknownValue('repeats')
  const whole = dimensions.map((one, i) => sizes.product(one, repeats[i] as Size))
  if (value.kind === 'rows') {
    // Repeats all rows after all rows, which adds outer blocks.
    const outer = sizes.product(value.outer, repeats[value.axis] as Size)
    return rows(sizes, whole, { ...value, outer })
  }
  const holders = whole.flatMap((one, i) => (dependsOnRows(one) ? [i] : []))
  const [axis] = holders
  if (axis === undefined) return unfollowed(value, whole)
  if (value.kind === 'count') throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)
  const inner = withoutRows(whole[axis] as Size, sizes)
  if (holders.length > 1 || inner === null) throw unknownValue('repeats')
  return rows(sizes, whole, { axis, outer: ONE, inner })
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'

export const STRETCHES: readonly OperatorRule[] = [
  {
    says: 'Broadcasts dimensions of a row, or a constant over the rows.',
    source: `${SPEC}Expand.html`,
    operators: ['Expand'],
    rule: expand,
  },
  {
    says: 'Repeats dimensions of a row, all rows, or a constant once for each row.',
    source: `${SPEC}Tile.html`,
    since: 6,
    operators: ['Tile'],
    rule: tile,
  },
]
