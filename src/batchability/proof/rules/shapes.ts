/** Operators that read shapes, create tensors of a given shape, or reshape tensors. */
import { smallTensor } from '../../../onnx/attributes.js'
import { unknownShape } from '../broadcast.js'
import { elementCountOf, MAX_ELEMENTS } from '../elements.js'
import {
  axisOf,
  input,
  integersFrom,
  type Operator,
  type Rule,
  requireConstants,
  unknownValue,
} from '../operator.js'
import { reshapeRows, reshapeShape } from '../reshape.js'
import { dependsOnRows, isEqual, isLiteral, isNatural, literal, literalOf, ONE, type Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  type Constant,
  type Count,
  constant,
  integers,
  type Plain,
  Prevented,
  REMEDY,
  rows,
  type Shape,
  unfollowed,
  type Value,
  withoutRows,
} from '../values.js'

/** Elements of a constant or count that is used as a shape. */
export function shapeInput(operator: Operator, index: number, what: string): readonly Size[] {
  const value = input(operator, index)
  if (value.kind === 'rows')
    throw new Prevented(`takes its ${what} from the data of rows`, REMEDY.fixedSteering)
  if (value.elements === null) throw unknownValue(what)
  return value.elements
}

export function knownShape({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

const shape: Rule = ({ inputs: [value], attributes, sizes }): Value => {
  const dimensions = value?.shape ?? null
  // The number of dimensions is unknown as well.
  if (dimensions === null) return constant([sizes.fresh()])
  const rank = dimensions.length
  const clamp = (at: number) => Math.min(Math.max(at < 0 ? at + rank : at, 0), rank)
  const elements = dimensions.slice(
    clamp(attributes.int('start') ?? 0),
    Math.max(clamp(attributes.int('start') ?? 0), clamp(attributes.int('end') ?? rank)),
  )
  return integers([literal(elements.length)], elements)
}

const size: Rule = ({ inputs: [value], sizes }): Value => {
  const dimensions = value?.shape ?? null
  return dimensions === null ? constant([]) : integers([], [sizes.product(...dimensions)])
}

/** The same value everywhere, and therefore in every row. */
function filled(operator: Operator, dimensions: readonly Size[]): Value {
  const { sizes } = operator
  if (!dimensions.every(isNatural)) throw unknownValue('shape')
  const axes = dimensions.flatMap((one, i) => (dependsOnRows(one) ? [i] : []))
  const [axis] = axes
  if (axis === undefined) return constant(dimensions)
  const inner = withoutRows(dimensions[axis] as Size, sizes)
  if (axes.length > 1 || inner === null) {
    throw new Prevented(
      'creates a tensor with two dimensions that depend on the number of rows',
      REMEDY.batchFirst,
    )
  }
  return rows(sizes, dimensions, { axis, outer: ONE, inner })
}

const constantOfShape: Rule = (operator) => {
  const made = filled(operator, shapeInput(operator, 0, 'shape'))
  if (made.kind !== 'constant' || made.shape === null) return made
  const tensor = operator.attributes.tensor('value')
  const fill = tensor === undefined ? [0] : smallTensor(tensor, 1)?.elements
  const isInteger = tensor !== undefined && [6, 7, 9].includes(tensor.dataType)
  const count = elementCountOf(made.shape)
  if (!isInteger || fill === undefined || count === null || count > MAX_ELEMENTS) return made
  return integers(made.shape, Array(count).fill(literal(fill[0] as number)))
}

const range: Rule = (operator): Value => {
  const { sizes } = operator
  const values = [0, 1, 2].map((index) => input(operator, index))
  const [start, limit, delta] = values.map((value) =>
    value.kind === 'rows' ? null : (value.elements?.[0] ?? null),
  )
  const isUpwards = start != null && delta != null && isLiteral(start, 0) && isLiteral(delta, 1)
  if (values.every(({ kind }) => kind === 'constant')) {
    const elements = steps([start, limit, delta].map((one) => (one ? literalOf(one) : null)))
    if (elements !== null) return integers([literal(elements.length)], elements)
    return constant([isUpwards && limit && isNatural(limit) ? limit : sizes.fresh()])
  }
  if (isUpwards && limit && isEqual(limit, sizes.rows))
    return { kind: 'place', shape: [sizes.rows], form: 'every' }
  throw new Prevented('counts up to the number of rows, or to the data of one', REMEDY.insideRow)
}

/** A short range with known elements; null otherwise. */
function steps([start, limit, delta]: readonly (number | null)[]): Size[] | null {
  if (start == null || limit == null || delta == null || delta === 0) return null
  const length = Math.max(0, Math.ceil((limit - start) / delta))
  return length > MAX_ELEMENTS ? null : Array.from({ length }, (_, i) => literal(start + i * delta))
}

/** Reshapes a tensor without rows and keeps its elements. */
export function reshaped(value: Constant | Count, dimensions: Shape): Constant | Count {
  if (value.elements !== null) return integers(dimensions, value.elements)
  return { ...value, shape: dimensions }
}

function placeReshaped(
  value: Value,
  dimensions: readonly (Size | null)[],
  { sizes }: Operator,
): Value | null {
  if (value.kind !== 'place' || value.form !== 'every') return null
  // Only dimensions of size 1 may follow the batch: then the batch axis stays, and every element is still the
  // position of its row.
  const [first, ...others] = dimensions
  const isFirst = first != null && (isEqual(first, sizes.rows) || isLiteral(first, -1))
  const isFlat = value.shape.slice(1).every((one) => isLiteral(one, 1))
  if (!isFirst || !isFlat || !others.every((one) => one !== null && isLiteral(one, 1))) return null
  return { ...value, shape: [sizes.rows, ...others.map(() => ONE)] }
}

const reshape: Rule = (operator) => {
  const { attributes, sizes, inputs } = operator
  const target =
    operator.version < 5 ? (attributes.ints('shape') ?? []).map(literal) : shapeInput(operator, 1, 'shape')
  const place = inputs[0] && placeReshaped(inputs[0], target, operator)
  if (place) return place
  const value = input(operator, 0)
  const allowZero = attributes.int('allowzero') === 1
  if (value.kind === 'rows') return reshapeRows(sizes, value, target, allowZero)
  return reshaped(value, reshapeShape(sizes, value.shape, target, allowZero))
}

const flatten: Rule = (operator) => {
  const { attributes, sizes } = operator
  const value = input(operator, 0)
  const dimensions = knownShape(value)
  const given = attributes.int('axis') ?? 1
  const axis = given < 0 ? given + dimensions.length : given
  if (axis < 0 || axis > dimensions.length) throw unknownValue('axis')
  const target = [sizes.product(...dimensions.slice(0, axis)), sizes.product(...dimensions.slice(axis))]
  // Here a size of 0 has no special meaning, unlike in Reshape.
  return value.kind === 'rows' ? reshapeRows(sizes, value, target, true) : reshaped(value, target)
}

/** Rearranges dimensions, given by their old positions; null adds a dimension of size 1. */
function rearranged(operator: Operator, value: Plain, from: readonly (number | null)[]): Value {
  const dimensions = knownShape(value)
  const target = from.map((at) => (at === null ? ONE : (dimensions[at] as Size)))
  if (value.kind !== 'rows') return reshaped(value, target)
  const axis = from.indexOf(value.axis)
  if (axis < 0) {
    throw new Prevented('removes the batch axis, which has size 1 for one row only', REMEDY.batchFirst)
  }
  return rows(operator.sizes, target, { ...value, axis })
}

const squeeze: Rule = (operator) => {
  const value = input(operator, 0)
  const dimensions = knownShape(value)
  const rank = dimensions.length
  const given = integersFrom(operator, { attribute: 'axes', index: 1 })
  // The runtime treats an empty list like an omitted one.
  const axes = given?.length === 0 ? null : given
  if (axes === null) {
    // The dimensions of size 1 must be known.
    const isKnown = (one: Size) => literalOf(one) !== null
    if (!dimensions.every(isKnown)) {
      throw new Prevented(
        'removes every dimension of size 1, which includes the batch axis for a single row',
        'name the axes to squeeze',
      )
    }
  }
  const removed = new Set(
    axes?.map((axis) => axisOf(axis, rank)) ?? dimensions.flatMap((one, i) => (isLiteral(one, 1) ? [i] : [])),
  )
  const kept = dimensions.map((_, i) => i).filter((i) => !removed.has(i))
  return rearranged(operator, value, kept)
}

const unsqueeze: Rule = (operator) => {
  const axes = integersFrom(operator, { attribute: 'axes', index: 1 })
  if (axes === null) throw unknownValue('axes')
  const [first] = operator.inputs
  const rank = (first?.shape?.length ?? 0) + axes.length
  const added = new Set(axes.map((axis) => axisOf(axis, rank)))
  let next = 0
  const from = Array.from({ length: rank }, (_, i) => (added.has(i) ? null : next++))
  if (first?.kind === 'place' && first.form === 'every' && !added.has(0)) {
    return { ...first, shape: from.map((at) => (at === null ? ONE : (first.shape[at] as Size))) }
  }
  const value = input(operator, 0)
  knownShape(value)
  return rearranged(operator, value, from)
}

const transpose: Rule = (operator) => {
  const value = input(operator, 0)
  const rank = knownShape(value).length
  const order = operator.attributes.ints('perm') ?? Array.from({ length: rank }, (_, i) => rank - 1 - i)
  if (order.length !== rank) throw unknownValue('order of dimensions')
  const moved = rearranged(
    operator,
    value,
    order.map((axis) => axisOf(axis, rank)),
  )
  return moved.kind === 'rows' ? moved : constantLike(moved as Constant | Count)
}

/** Drops the elements, whose order is no longer known. */
export function constantLike(value: Constant | Count): Value {
  if (value.shape !== null && value.shape.length < 2) return value
  return unfollowed(value)
}

const trilu: Rule = (operator) => {
  const value = input(operator, 0)
  requireConstants(operator, [1], 'diagonal')
  if (value.kind === 'rows' && value.axis >= value.shape.length - 2) {
    throw new Prevented('keeps or clears a row by its position in the batch', REMEDY.insideRow)
  }
  return value.kind === 'rows' ? value : constantLike(value)
}

/** Rearranges the dimensions after the first, which is the batch. */
const blocks: Rule = (operator): Value => {
  const { sizes, attributes, name } = operator
  const value = input(operator, 0)
  const side = literal(attributes.int('blocksize') ?? 1)
  const area = sizes.product(side, side)
  const [n, c, h, w] = knownShape(value)
  if (n === undefined || c === undefined || h === undefined || w === undefined) throw unknownShape()
  const isDeeper = name === 'SpaceToDepth'
  const whole = isDeeper
    ? [n, sizes.product(c, area), sizes.quotient(h, side), sizes.quotient(w, side)]
    : [n, sizes.quotient(c, area), sizes.product(h, side), sizes.product(w, side)]
  if (value.kind !== 'rows') return unfollowed(value, whole)
  if (value.axis !== 0) throw new Prevented('moves elements across the batch axis', REMEDY.batchFirst)
  return rows(sizes, whole, value)
}

const constantNode: Rule = ({ attributes }): Value => {
  const tensor = attributes.tensor('value')
  if (tensor !== undefined) return ofTensor(tensor)
  const number = attributes.int('value_int')
  if (number !== undefined) return integers([], [literal(number)])
  const numbers = attributes.ints('value_ints')
  if (numbers !== undefined) return integers([literal(numbers.length)], numbers.map(literal))
  const floats = attributes.floats('value_floats')
  if (floats !== undefined) return { ...constant([literal(floats.length)]), numbers: floats }
  const texts = attributes.texts('value_strings')
  if (attributes.has('value_strings')) return constant([literal(texts?.length ?? 0)])
  if (attributes.has('sparse_value')) return constant(null)
  return constant([])
}

/** An initializer, or the tensor of an attribute. */
export function ofTensor(tensor: Parameters<typeof smallTensor>[0]): Constant {
  const dimensions = tensor.dims.map((one) => literal(Number(one)))
  const small = smallTensor(tensor, MAX_ELEMENTS)
  const isFollowed = small?.kind === 'integers' && [6, 7, 9].includes(tensor.dataType)
  return {
    ...constant(dimensions),
    elements: isFollowed ? small.elements.map(literal) : null,
    numbers: small?.kind === 'floats' ? small.elements : null,
  }
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'

export const SHAPES: readonly OperatorRule[] = [
  {
    says: 'A constant, or the number of rows.',
    source: `${SPEC}Shape.html`,
    operators: ['Shape'],
    rule: shape,
  },
  { says: 'A constant, or the number of rows.', source: `${SPEC}Size.html`, operators: ['Size'], rule: size },
  { says: 'A constant.', source: `${SPEC}Constant.html`, operators: ['Constant'], rule: constantNode },
  {
    says: 'The same value in every row, if one dimension is the number of rows.',
    source: `${SPEC}ConstantOfShape.html`,
    operators: ['ConstantOfShape'],
    rule: constantOfShape,
  },
  {
    says: 'A constant; a range from 0 to the number of rows gives row positions, which only GatherND may use.',
    source: `${SPEC}Range.html`,
    operators: ['Range'],
    rule: range,
  },
  {
    says: 'The batch, times a constant, stays in one dimension, and the blocks before it do not change.',
    source: `${SPEC}Reshape.html`,
    operators: ['Reshape'],
    rule: reshape,
  },
  { says: 'As Reshape.', source: `${SPEC}Flatten.html`, operators: ['Flatten'], rule: flatten },
  {
    says: 'Removes given dimensions other than the batch.',
    source: `${SPEC}Squeeze.html`,
    operators: ['Squeeze'],
    rule: squeeze,
  },
  { says: 'Adds dimensions.', source: `${SPEC}Unsqueeze.html`, operators: ['Unsqueeze'], rule: unsqueeze },
  {
    says: 'Moves the batch axis.',
    source: `${SPEC}Transpose.html`,
    operators: ['Transpose'],
    rule: transpose,
  },
  {
    says: 'The batch is neither of the last two dimensions.',
    source: `${SPEC}Trilu.html`,
    operators: ['Trilu', 'com.microsoft.Trilu'],
    rule: trilu,
  },
  {
    says: 'The batch is the first dimension.',
    source: `${SPEC}DepthToSpace.html`,
    operators: ['DepthToSpace', 'SpaceToDepth'],
    rule: blocks,
  },
]
