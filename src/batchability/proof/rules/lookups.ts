/** Operators that read or write elements by index. */
import { requireAligned, requireSamePlace, unknownShape } from '../broadcast.js'
import {
  axisOf,
  constantInput,
  firstRows,
  input,
  type Operator,
  type Rule,
  requireConstants,
  unknownValue,
} from '../operator.js'
import { isLiteral, literalOf, ONE, type Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  type Constant,
  type Count,
  combined,
  integers,
  isWholeBatch,
  type Plain,
  Prevented,
  REMEDY,
  type Rows,
  rows,
  type Shape,
  unfollowed,
  type Value,
} from '../values.js'
import { acrossBatch } from './parts.js'

function shapeOf({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

function byAllRows(): Prevented {
  return new Prevented('looks up in the data of all rows by the data of a row', REMEDY.insideRow)
}

function requireNoCount(values: readonly Plain[]): void {
  if (values.some(({ kind }) => kind === 'count')) {
    throw new Prevented('looks up by the number of rows', REMEDY.fixedSteering)
  }
}

const gather: Rule = (operator) => {
  const { sizes, attributes } = operator
  const data = input(operator, 0)
  const indices = input(operator, 1)
  const dimensions = shapeOf(data)
  const places = shapeOf(indices)
  const axis = axisOf(attributes.int('axis') ?? 0, dimensions.length)
  const whole = [...dimensions.slice(0, axis), ...places, ...dimensions.slice(axis + 1)]
  if (data.kind !== 'rows' && indices.kind !== 'rows') {
    return gathered(data, indices, { whole, axis }) ?? combined([data, indices], whole)
  }
  requireNoCount([data, indices])
  if (data.kind === 'rows' && indices.kind === 'rows') throw byAllRows()
  if (indices.kind === 'rows') return rows(sizes, whole, { ...indices, axis: axis + indices.axis })
  const holder = data as Rows
  if (holder.axis === axis) throw acrossBatch('looks up')
  const moved = holder.axis < axis ? holder.axis : holder.axis + places.length - 1
  return rows(sizes, whole, { ...holder, axis: moved })
}

/** Elements gathered from a vector whose elements are tracked. */
function gathered(
  data: Constant | Count,
  indices: Constant | Count,
  { whole, axis }: { whole: Shape; axis: number },
): Value | null {
  const { elements, shape } = data
  if (elements === null || indices.elements === null || shape?.length !== 1 || axis !== 0) return null
  const taken = indices.elements.map((one) => {
    const at = literalOf(one)
    return at === null ? undefined : elements[at < 0 ? at + elements.length : at]
  })
  return taken.every((one) => one !== undefined) ? integers(whole, taken) : null
}

const gatherElements: Rule = (operator) => {
  const { sizes, attributes } = operator
  const data = input(operator, 0)
  const indices = input(operator, 1)
  const holder = firstRows([data, indices])
  if (holder === null) return combined([data, indices], indices.shape)
  requireNoCount([data, indices])
  if (data.kind !== 'rows' || indices.kind !== 'rows') {
    throw new Prevented(
      'looks up in a constant by the position of a row, or in rows by constant indices',
      REMEDY.batchFirst,
    )
  }
  requireAligned(data, indices)
  if (axisOf(attributes.int('axis') ?? 0, data.shape.length) === data.axis) throw acrossBatch('looks up')
  return rows(sizes, indices.shape, indices)
}

/** Number of coordinates in the last dimension. */
function widthOf(shape: Shape): number {
  const width = shape.length > 0 ? literalOf(shape.at(-1) as Size) : null
  if (width === null) throw unknownValue('coordinates')
  return width
}

const gatherNd: Rule = (operator) => {
  const { sizes, attributes, inputs } = operator
  const batchDims = attributes.int('batch_dims') ?? 0
  const data = input(operator, 0)
  const dimensions = shapeOf(data)
  const [, coordinates] = inputs
  if (coordinates?.kind === 'place') {
    // [own position, column, ...]: each row is looked up in itself.
    const isOwn =
      data.kind === 'rows' &&
      data.axis === 0 &&
      isWholeBatch(data) &&
      batchDims === 0 &&
      (coordinates.form === 'first' || isLiteral(coordinates.shape.at(-1) as Size, 1)) &&
      coordinates.shape.length > 1
    if (!isOwn) throw new Prevented("looks up by a row's position in the batch", REMEDY.insideRow)
    const rest = dimensions.slice(widthOf(coordinates.shape))
    return rows(sizes, [...coordinates.shape.slice(0, -1), ...rest], { axis: 0, outer: ONE, inner: ONE })
  }
  const indices = input(operator, 1)
  const places = shapeOf(indices)
  const width = widthOf(places)
  const whole = [...places.slice(0, -1), ...dimensions.slice(batchDims + width)]
  if (data.kind !== 'rows' && indices.kind !== 'rows') return combined([data, indices], whole)
  requireNoCount([data, indices])
  if (data.kind === 'rows' && indices.kind === 'rows') {
    if (data.axis !== indices.axis || data.axis >= batchDims) throw byAllRows()
    requireSameLayout(data, indices)
    return rows(sizes, whole, indices)
  }
  if (indices.kind === 'rows') {
    // In a constant that all rows share.
    if (batchDims > 0) throw byAllRows()
    if (indices.axis === places.length - 1) throw acrossBatch('looks up')
    return rows(sizes, whole, indices)
  }
  const holder = data as Rows
  if (batchDims > 0 || holder.axis < width) throw acrossBatch('looks up')
  return rows(sizes, whole, { ...holder, axis: places.length - 1 + holder.axis - width })
}

function requireSameLayout(a: Rows, b: Rows): void {
  requireSamePlace({ ...a, shape: [ONE], axis: 0 }, { ...b, shape: [ONE], axis: 0 })
}

const scatterElements: Rule = (operator) => {
  const { attributes } = operator
  const values = [0, 1, 2].map((index) => input(operator, index))
  const [data, indices, updates] = values as [Plain, Plain, Plain]
  const holder = firstRows(values)
  if (holder === null) return combined(values, data.shape)
  if (data.kind !== 'rows' || indices.kind !== 'rows' || updates.kind !== 'rows') {
    throw new Prevented(
      'writes rows into a constant, or constants into rows by their position',
      REMEDY.batchFirst,
    )
  }
  requireAligned(data, indices)
  requireAligned(data, updates)
  if (axisOf(attributes.int('axis') ?? 0, data.shape.length) === data.axis) throw acrossBatch('writes')
  return data
}

const scatterNd: Rule = (operator) => {
  const data = input(operator, 0)
  const indices = constantInput(operator, 1, 'coordinates')
  const updates = input(operator, 2)
  if (firstRows([data, updates]) === null) return combined([data, updates], data.shape)
  if (data.kind !== 'rows' || updates.kind !== 'rows') {
    throw new Prevented(
      'writes rows into a constant, or a constant into rows by their position',
      REMEDY.batchFirst,
    )
  }
  const places = shapeOf(indices)
  const width = widthOf(places)
  if (data.axis < width) throw acrossBatch('writes')
  if (updates.axis !== places.length - 1 + data.axis - width) throw acrossBatch('writes')
  requireSameLayout(data, updates)
  return data
}

/** Selects elements along another axis with a constant condition. */
const compress: Rule = (operator) => {
  const { sizes, attributes } = operator
  const value = input(operator, 0)
  const axis = attributes.int('axis')
  requireConstants(operator, [1], 'condition')
  const shape = shapeOf(value)
  if (axis === undefined) {
    if (value.kind === 'rows') throw acrossBatch('chooses among all elements')
    return unfollowed(value, [sizes.fresh()])
  }
  const at = axisOf(axis, shape.length)
  const whole = shape.map((size, i) => (i === at ? sizes.fresh() : size))
  if (value.kind !== 'rows') return unfollowed(value, whole)
  if (at === value.axis) throw acrossBatch('chooses')
  return rows(sizes, whole, value)
}

const oneHot: Rule = (operator) => {
  const { sizes, attributes } = operator
  const indices = input(operator, 0)
  const depth = constantInput(operator, 1, 'depth')
  requireConstants(operator, [2], 'values')
  const shape = shapeOf(indices)
  const axis = axisOf(attributes.int('axis') ?? -1, shape.length + 1)
  const known = depth.elements?.[0]
  const width = known !== undefined && (literalOf(known) ?? -1) >= 0 ? known : sizes.fresh()
  const whole = [...shape.slice(0, axis), width, ...shape.slice(axis)]
  if (indices.kind !== 'rows') return unfollowed(indices, whole)
  return rows(sizes, whole, { ...indices, axis: indices.axis < axis ? indices.axis : indices.axis + 1 })
}

/** A table of quantised blocks, looked up along its first dimension. */
const gatherBlocks: Rule = (operator: Operator) => {
  const { sizes, attributes } = operator
  requireConstants(operator, [0, 2, 3], 'table')
  const table = shapeOf(input(operator, 0))
  const indices = input(operator, 1)
  if (axisOf(attributes.int('gather_axis') ?? 0, table.length) !== 0) throw unknownValue('axis')
  const whole = [...shapeOf(indices), ...table.slice(1).map(() => sizes.fresh())]
  return indices.kind === 'rows' ? rows(sizes, whole, indices) : unfollowed(indices, whole)
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'

export const LOOKUPS: readonly OperatorRule[] = [
  {
    says: 'Rows of indices into a constant, or constant indices along an axis other than the batch.',
    source: `${SPEC}Gather.html`,
    operators: ['Gather'],
    rule: gather,
  },
  {
    says: 'Rows of indices into rows, along an axis other than the batch.',
    source: `${SPEC}GatherElements.html`,
    operators: ['GatherElements'],
    rule: gatherElements,
  },
  {
    says: 'As Gather; rows of indices into rows if the batch is one of batch_dims, or if coordinates start with the position of the row.',
    source: `${SPEC}GatherND.html`,
    operators: ['GatherND'],
    rule: gatherNd,
  },
  {
    says: 'Writes rows at rows of indices into rows, along an axis other than the batch.',
    source: `${SPEC}ScatterElements.html`,
    operators: ['ScatterElements', 'Scatter'],
    rule: scatterElements,
  },
  {
    says: 'Writes rows into rows, at constant coordinates of later dimensions than the batch.',
    source: `${SPEC}ScatterND.html`,
    operators: ['ScatterND'],
    rule: scatterNd,
  },
  {
    says: 'Along an axis other than the batch, by a constant condition.',
    source: `${SPEC}Compress.html`,
    operators: ['Compress'],
    rule: compress,
  },
  {
    says: 'A row of indices becomes a row of vectors, of constant depth.',
    source: `${SPEC}OneHot.html`,
    operators: ['OneHot'],
    rule: oneHot,
  },
  {
    says: 'Rows of indices into a constant table.',
    source: 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md',
    operators: ['com.microsoft.GatherBlockQuantized'],
    rule: gatherBlocks,
  },
]
