/** Operators that reduce, normalise, sort or accumulate along axes other than the batch. */
import { COUNT_AS_DATA, requireAligned, requireStretched, unknownShape } from '../broadcast.js'
import {
  axisOf,
  constantInput,
  input,
  literalsOf,
  type Operator,
  optional,
  optionalConstant,
  optionalIntegers,
  type Rule,
  requireConstants,
} from '../operator.js'
import { isNatural, literal, ONE } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  type Constant,
  type Count,
  combined,
  integers,
  type Plain,
  Prevented,
  REMEDY,
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

/** Removes these axes, or sets their size to 1. */
function reduced(
  operator: Operator,
  value: Plain,
  { axes, keeps }: { axes: ReadonlySet<number>; keeps: boolean },
): Value {
  const shape = shapeOf(value)
  const whole = shape.flatMap((size, i) => (axes.has(i) ? (keeps ? [ONE] : []) : [size]))
  if (value.kind !== 'rows') return unfollowed(value, whole)
  if (axes.has(value.axis)) throw acrossBatch('reduces')
  const before = keeps ? 0 : [...axes].filter((axis) => axis < value.axis).length
  return rows(operator.sizes, whole, { ...value, axis: value.axis - before })
}

/** First version with axes as an input. */
function axesInputSince(name: string): number {
  return name === 'ReduceSum' ? 13 : 18
}

const reduce: Rule = (operator) => {
  const { attributes, name, version } = operator
  const value = input(operator, 0)
  const isInput = version >= axesInputSince(name)
  const given = isInput ? optionalIntegers(operator, 1, 'axes') : (attributes.ints('axes') ?? null)
  if (given === null || given.length === 0) {
    if (isInput && attributes.int('noop_with_empty_axes') === 1) {
      return value.kind === 'rows' ? value : unfollowed(value)
    }
  }
  const shape = shapeOf(value)
  const all = given === null || given.length === 0 ? shape.map((_, i) => i) : given
  const axes = new Set(all.map((axis) => axisOf(axis, shape.length)))
  const keeps = (attributes.int('keepdims') ?? 1) !== 0
  return product(operator, value, axes) ?? reduced(operator, value, { axes, keeps })
}

/** The product of a shape: the number of elements. */
function product(
  { name, sizes, attributes }: Operator,
  value: Plain,
  axes: ReadonlySet<number>,
): Value | null {
  if (name !== 'ReduceProd' || value.kind === 'rows' || value.elements === null) return null
  if (value.shape?.length !== 1 || axes.size !== 1) return null
  const keeps = (attributes.int('keepdims') ?? 1) !== 0
  return integers(keeps ? [ONE] : [], [sizes.product(...value.elements)])
}

const argument: Rule = (operator) => {
  const { attributes } = operator
  const value = input(operator, 0)
  const axis = axisOf(attributes.int('axis') ?? 0, shapeOf(value).length)
  return reduced(operator, value, {
    axes: new Set([axis]),
    keeps: (attributes.int('keepdims') ?? 1) !== 0,
  })
}

function requireOther(value: Plain, axis: number, what: string): void {
  if (value.kind === 'rows' && axisOf(axis, value.shape.length) === value.axis) throw acrossBatch(what)
}

function requireBefore(value: Plain, first: number, what: string): void {
  if (value.kind === 'rows' && value.axis >= first) throw acrossBatch(what)
}

function same(value: Plain): Value {
  return value.kind === 'rows' ? value : unfollowed(value)
}

/** Before version 13, all dimensions from `axis` on are flattened. */
const softmax: Rule = (operator) => {
  const { attributes, version } = operator
  const value = input(operator, 0)
  const rank = shapeOf(value).length
  if (version >= 13) requireOther(value, attributes.int('axis') ?? -1, 'normalises')
  else requireBefore(value, axisOf(attributes.int('axis') ?? 1, rank), 'normalises')
  return same(value)
}

const alongAxis =
  (fallback: number, what: string): Rule =>
  (operator) => {
    const value = input(operator, 0)
    shapeOf(value)
    requireOther(value, operator.attributes.int('axis') ?? fallback, what)
    return same(value)
  }

const cumulative: Rule = (operator) => {
  const value = input(operator, 0)
  shapeOf(value)
  const [axis] = optionalIntegers(operator, 1, 'axis') ?? []
  if (axis === undefined) throw new Prevented('has no axis', REMEDY.insideRow)
  requireOther(value, axis, 'accumulates')
  return same(value)
}

const topK: Rule = (operator): Value[] => {
  const { sizes, attributes, version } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  const axis = axisOf(attributes.int('axis') ?? -1, shape.length)
  requireOther(value, axis, 'sorts')
  const given =
    version < 10 ? literal(attributes.int('k') ?? 0) : constantInput(operator, 1, 'k').elements?.[0]
  const k = given !== undefined && isNatural(given) ? given : sizes.fresh()
  const whole = shape.map((size, i) => (i === axis ? k : size))
  const best = value.kind === 'rows' ? rows(sizes, whole, value) : unfollowed(value, whole)
  return [best, best]
}

/** Requires scale and bias to lie within a row, with no extent along the batch. */
function requireWithinRow(operator: Operator, value: Plain, indices: readonly number[]): void {
  for (const index of indices) {
    const constant = optionalConstant(operator, index, 'scale')
    if (constant !== null && value.kind === 'rows')
      requireStretched(constant, value.shape.length - value.axis)
  }
}

/** Mean and deviation have size 1 in the normalised dimensions. */
function statistics(operator: Operator, value: Plain, first: number): Value {
  const whole = shapeOf(value).map((size, i) => (i < first ? size : ONE))
  return value.kind === 'rows' ? rows(operator.sizes, whole, value) : unfollowed(value, whole)
}

const layerNormalization: Rule = (operator) => {
  const value = input(operator, 0)
  const first = axisOf(operator.attributes.int('axis') ?? -1, shapeOf(value).length)
  requireBefore(value, first, 'normalises')
  requireWithinRow(operator, value, [1, 2])
  const beside = statistics(operator, value, first)
  return [same(value), beside, beside]
}

/** Normalises the sum of input, skip and bias along the last dimension. */
const skipLayerNormalization: Rule = (operator) => {
  const value = input(operator, 0)
  const skip = input(operator, 1)
  const rank = shapeOf(value).length
  requireWithinRow(operator, value, operator.name.includes('Simplified') ? [2, 3] : [2, 3, 4])
  if (value.kind !== 'rows') {
    if (skip.kind === 'rows') throw new Prevented('adds rows to a constant', REMEDY.batchFirst)
    return combined([value, skip], value.shape)
  }
  requireBefore(value, rank - 1, 'normalises')
  if (skip.kind === 'count') throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)
  if (skip.kind === 'rows') requireAligned(value, skip)
  else requireStretched(skip, rank - value.axis)
  const beside = statistics(operator, value, rank - 1)
  return [value, beside, beside, value]
}

/** Constant statistics, one per channel in dimension 1. */
const batchNormalization: Rule = (operator) => {
  const { attributes, version, outputCount } = operator
  const value = input(operator, 0)
  const isTraining =
    version >= 14
      ? attributes.int('training_mode') === 1
      : version >= 7
        ? outputCount > 1
        : attributes.int('is_test') !== 1
  if (isTraining)
    throw new Prevented('takes mean and variance from all rows: it is in training mode', REMEDY.inference)
  requireConstants(operator, [1, 2, 3, 4], 'statistics')
  if (value.kind === 'rows' && (value.axis !== 0 || value.shape.length < 2)) {
    throw new Prevented('normalises: the batch is not its first dimension', REMEDY.batchFirst)
  }
  return same(value)
}

/** Processes each image of (N, C, ...) independently. */
const perImage: Rule = (operator) => {
  const value = input(operator, 0)
  const rank = shapeOf(value).length
  requireConstants(operator, [1, 2], 'scale')
  if (value.kind === 'rows' && (value.axis !== 0 || rank < 3)) {
    throw new Prevented('normalises: the batch is not its first dimension', REMEDY.batchFirst)
  }
  return same(value)
}

const meanVariance: Rule = (operator) => {
  const value = input(operator, 0)
  shapeOf(value)
  for (const axis of operator.attributes.ints('axes') ?? [0, 2, 3]) requireOther(value, axis, 'normalises')
  return same(value)
}

/** The Fourier transform along one axis; the last axis has real and imaginary parts. */
const fourier: Rule = (operator) => {
  const { sizes, attributes, version } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  requireConstants(operator, [1], 'length')
  const given =
    version < 20
      ? (attributes.int('axis') ?? 1)
      : optional(operator, 2) === null
        ? -2
        : literalsOf(constantInput(operator, 2, 'axis'))?.[0]
  if (given === undefined) throw new Prevented('has an axis that is not known', REMEDY.fixedSteering)
  const axis = axisOf(given, shape.length)
  requireOther(value, axis, 'transforms')
  requireOther(value, -1, 'transforms')
  const whole = shape.map((size, i) => (i === axis || i === shape.length - 1 ? sizes.fresh() : size))
  return value.kind === 'rows' ? rows(sizes, whole, value) : unfollowed(value, whole)
}

const determinant: Rule = (operator) => {
  const value = input(operator, 0)
  const shape = shapeOf(value)
  requireBefore(value, shape.length - 2, 'takes a determinant')
  const whole = shape.slice(0, -2)
  return value.kind === 'rows'
    ? rows(operator.sizes, whole, value)
    : unfollowed(value as Constant | Count, whole)
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'
const CONTRIB = 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md'

export const REDUCTIONS: readonly OperatorRule[] = [
  {
    says: 'Over axes other than the batch; without axes, over all axes, which is refused.',
    source: `${SPEC}ReduceSum.html`,
    operators: [
      ...['ReduceL1', 'ReduceL2', 'ReduceLogSum', 'ReduceLogSumExp', 'ReduceMax', 'ReduceMean', 'ReduceMin'],
      ...['ReduceProd', 'ReduceSum', 'ReduceSumSquare'],
    ],
    rule: reduce,
  },
  {
    says: 'Along an axis other than the batch; the default is axis 0.',
    source: `${SPEC}ArgMax.html`,
    operators: ['ArgMax', 'ArgMin'],
    rule: argument,
  },
  {
    says: 'Along an axis other than the batch; before opset 13 over all dimensions from the axis on.',
    source: `${SPEC}Softmax.html`,
    operators: ['Hardmax', 'LogSoftmax', 'Softmax'],
    rule: softmax,
  },
  {
    says: 'Along an axis other than the batch.',
    source: `${SPEC}LpNormalization.html`,
    operators: ['LpNormalization'],
    rule: alongAxis(-1, 'normalises'),
  },
  {
    says: 'Along an axis other than the batch.',
    source: `${SPEC}CumSum.html`,
    operators: ['CumSum'],
    rule: cumulative,
  },
  {
    says: 'Along an axis other than the batch, with a constant k.',
    source: `${SPEC}TopK.html`,
    operators: ['TopK'],
    rule: topK,
  },
  {
    says: 'The batch is before the axis; scale and bias lie within a row.',
    source: `${SPEC}LayerNormalization.html`,
    operators: ['LayerNormalization', 'RMSNormalization', 'SimplifiedLayerNormalization'],
    rule: layerNormalization,
  },
  {
    says: 'The batch is not the last dimension; rows are added to rows, or to a constant within a row.',
    source: CONTRIB,
    operators: ['com.microsoft.SkipLayerNormalization', 'com.microsoft.SkipSimplifiedLayerNormalization'],
    rule: skipLayerNormalization,
  },
  {
    says: 'With constant statistics, not in training mode; the batch is the first dimension.',
    source: `${SPEC}BatchNormalization.html`,
    operators: ['BatchNormalization'],
    rule: batchNormalization,
  },
  {
    says: 'Each image independently; the batch is the first dimension.',
    source: `${SPEC}InstanceNormalization.html`,
    operators: ['GroupNormalization', 'InstanceNormalization', 'LRN'],
    rule: perImage,
  },
  {
    says: 'Over axes other than the batch; the default axes include it.',
    source: `${SPEC}MeanVarianceNormalization.html`,
    since: 9,
    operators: ['MeanVarianceNormalization'],
    rule: meanVariance,
  },
  {
    says: 'Along an axis other than the batch.',
    source: `${SPEC}DFT.html`,
    operators: ['DFT'],
    rule: fourier,
  },
  {
    says: 'The batch is before the last two dimensions.',
    source: `${SPEC}Det.html`,
    operators: ['Det'],
    rule: determinant,
  },
]
