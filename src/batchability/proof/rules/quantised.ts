/** Quantised operators, with constant scales and zero points. */
import { broadcast, requireStretched, unknownShape } from '../broadcast.js'
import { axisOf, input, type Operator, optionalConstant, type Rule, requireConstants } from '../operator.js'
import { literalOf } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  combined,
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

function isSingle(shape: Shape): boolean {
  return shape.every((size) => literalOf(size) === 1)
}

/** One scale, one per position of an axis other than the batch, or one per block of such an axis. */
const linear: Rule = (operator): Value => {
  const value = input(operator, 0)
  requireConstants(operator, [1, 2], 'scale')
  if (value.kind !== 'rows') return unfollowed(value)
  const rank = value.shape.length
  for (const index of [1, 2]) {
    const scale = optionalConstant(operator, index, 'scale')
    if (scale === null) continue
    const shape = shapeOf(scale)
    if (isSingle(shape)) continue
    const axis = axisOf(operator.attributes.int('axis') ?? 1, rank)
    if (axis === value.axis) throw new Prevented('has a scale for each row of the batch', REMEDY.fixedScales)
    if (shape.length > 1) requireStretched(scale, rank - value.axis)
  }
  return value
}

/** Requires all other inputs to be constant. */
function requireOnly(operator: Operator, data: readonly number[]): Plain[] {
  const others = operator.inputs.map((_, i) => i).filter((i) => !data.includes(i))
  requireConstants(operator, others, 'scale')
  return data.map((index) => input(operator, index))
}

const quantisedPair: Rule = (operator) => broadcast(operator.sizes, requireOnly(operator, [0, 3]))

const quantisedUnary: Rule = (operator): Value => {
  const [value] = requireOnly(operator, [0]) as [Plain]
  return value.kind === 'rows' ? value : unfollowed(value)
}

const quantisedSoftmax: Rule = (operator): Value => {
  const [value] = requireOnly(operator, [0]) as [Plain]
  const shape = shapeOf(value)
  const { attributes } = operator
  const axis = axisOf(attributes.int('axis') ?? -1, shape.length)
  const isFlat = (attributes.int('opset') ?? 13) < 13
  if (value.kind !== 'rows') return unfollowed(value)
  if (isFlat ? value.axis >= axis : value.axis === axis) throw acrossBatch('normalises')
  return value
}

/** Scale and zero point of the output, then tensor, scale and zero point of each input. */
const quantisedConcat: Rule = (operator): Value => {
  const at = operator.inputs.map((_, i) => i).filter((i) => i >= 2 && (i - 2) % 3 === 0)
  const values = requireOnly(operator, at)
  const shapes = values.map(shapeOf)
  const [first] = values
  if (first === undefined) throw unknownShape()
  const rank = shapeOf(first).length
  const axis = axisOf(operator.attributes.int('axis') ?? 0, rank)
  const { sizes } = operator
  const whole = shapeOf(first).map((size, i) =>
    i === axis ? shapes.map((shape) => shape[i] ?? size).reduce((a, b) => sizes.sum(a, b)) : size,
  )
  if (first.kind !== 'rows' && values.every(({ kind }) => kind !== 'rows')) return combined(values, whole)
  const areRows = values.every((value) => value.kind === 'rows' && value.shape.length === rank)
  if (first.kind !== 'rows' || !areRows) {
    throw new Prevented('joins rows to a constant that is not repeated for every row', REMEDY.batchFirst)
  }
  if (first.axis === axis) throw acrossBatch('joins tensors')
  broadcast(
    sizes,
    values.map((value) => ({ ...value, shape: withoutAxis(value, axis) }) as Plain),
  )
  return rows(sizes, whole, first)
}

/** For comparing the batch axes of tensors that differ along one axis. */
function withoutAxis(value: Plain, axis: number): Shape {
  return shapeOf(value).map((size, i) => (i === axis ? { coefficient: 1, unknowns: [] } : size))
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'
const CONTRIB = 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md'
const microsoft = (name: string) => `com.microsoft.${name}`

export const QUANTISED: readonly OperatorRule[] = [
  {
    says: 'With constant scales: one, or one per position of an axis other than the batch.',
    source: `${SPEC}QuantizeLinear.html`,
    operators: [
      'DequantizeLinear',
      'QuantizeLinear',
      ...['DequantizeLinear', 'QuantizeLinear'].map(microsoft),
    ],
    rule: linear,
  },
  {
    says: 'Element by element, with constant scales.',
    source: CONTRIB,
    operators: ['QLinearAdd', 'QLinearMul'].map(microsoft),
    rule: quantisedPair,
  },
  {
    says: 'Each element independently, with constant scales.',
    source: CONTRIB,
    operators: ['QLinearLeakyRelu', 'QLinearSigmoid'].map(microsoft),
    rule: quantisedUnary,
  },
  {
    says: 'As Softmax, with constant scales.',
    source: CONTRIB,
    operators: [microsoft('QLinearSoftmax')],
    rule: quantisedSoftmax,
  },
  {
    says: 'As Concat, with constant scales.',
    source: CONTRIB,
    operators: [microsoft('QLinearConcat')],
    rule: quantisedConcat,
  },
]
