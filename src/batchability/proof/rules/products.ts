/** Products of matrices and tensors: rows may be along any axis that is not summed over. */
import { broadcast, COUNT_AS_DATA, requireSamePlace, requireStretched, unknownShape } from '../broadcast.js'
import {
  firstRows,
  input,
  type Operator,
  optional,
  optionalConstant,
  type Rule,
  requireConstants,
  unknownValue,
} from '../operator.js'
import { ONE, type Size, type Sizes } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  type Batch,
  combined,
  constant,
  isSameLayout,
  type Plain,
  Prevented,
  REMEDY,
  type Rows,
  rows,
  type Shape,
} from '../values.js'

function shapeOf({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

function summedOver(): Prevented {
  return new Prevented('sums over the batch axis', REMEDY.insideRow)
}

function pairwise(): Prevented {
  return new Prevented('multiplies every row with every other', REMEDY.pairs)
}

/** Swaps the last two dimensions. */
function turned(value: Plain): Plain {
  const shape = shapeOf(value)
  if (shape.length < 2) return value
  const swap = (i: number) => (i < shape.length - 2 ? i : 2 * shape.length - 3 - i)
  const whole = shape.map((_, i) => shape[swap(i)] as Size)
  if (value.kind === 'rows') return { ...value, shape: whole, axis: swap(value.axis) }
  return combined([value], whole)
}

/**
 * The product of stacks of matrices. A vector is a matrix with one row on the left or one column on the
 * right, and the added dimension is removed from the result.
 */
export function matrixProduct(sizes: Sizes, left: Plain, right: Plain): Plain {
  const [a, b] = [shapeOf(left), shapeOf(right)]
  if (a.length === 0 || b.length === 0) throw unknownShape()
  const leftStack = a.slice(0, -2)
  const rightStack = b.slice(0, -2)
  const rank = Math.max(leftStack.length, rightStack.length)
  const row = a.length > 1 ? [a[a.length - 2] as Size] : []
  const column = b.length > 1 ? [b[b.length - 1] as Size] : []
  const at = (stack: Shape, i: number) => stack[i - rank + stack.length] ?? ONE
  const whole = (batch: number) => [
    ...Array.from({ length: rank }, (_, i) =>
      i === batch ? ONE : sizes.broadcast(at(leftStack, i), at(rightStack, i)),
    ),
    ...row,
    ...column,
  ]
  if (left.kind !== 'rows' && right.kind !== 'rows') return combined([left, right], whole(-1))
  if (left.kind === 'count' || right.kind === 'count') throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)

  /** The batch axis of an operand in the result. */
  const axisInResult = (value: Rows, stack: Shape, summed: number): number => {
    if (value.axis === summed) throw summedOver()
    if (value.axis < stack.length) return value.axis + rank - stack.length
    return value === left ? rank : rank + row.length
  }
  if (left.kind === 'rows' && right.kind === 'rows') {
    const place = axisInResult(left, leftStack, a.length - 1)
    const other = axisInResult(right, rightStack, Math.max(0, b.length - 2))
    if (place !== other || place >= rank) throw pairwise()
    if (!isSameLayout(left, right)) requireSamePlace(left, right)
    return rows(sizes, whole(place), { ...left, axis: place })
  }
  const holder = (left.kind === 'rows' ? left : right) as Rows
  const place =
    holder === left
      ? axisInResult(left, leftStack, a.length - 1)
      : axisInResult(holder, rightStack, Math.max(0, b.length - 2))
  if (place < rank) {
    // The stack of the other operand is broadcast over the rows.
    const others = holder === left ? rightStack : leftStack
    requireStretched(constant(others), rank - place)
  }
  return rows(sizes, whole(place), { ...holder, axis: place })
}

const matMul: Rule = (operator) => matrixProduct(operator.sizes, input(operator, 0), input(operator, 1))

/** Scales and zero points of quantised products must be constant: one, or one per column of a weight. */
function requireScales(
  operator: Operator,
  { left, right, shared }: { left: readonly number[]; right: readonly number[]; shared: readonly number[] },
): void {
  const [a, b] = [input(operator, 0), right.length > 0 ? rightOperand(operator) : null]
  requireConstants(operator, [...left, ...right, ...shared], 'scale')
  for (const index of left) if (a.kind === 'rows') requireSingle(operator, index)
  for (const index of right) if (b?.kind === 'rows') requireSingle(operator, index)
  for (const index of shared) if (a.kind === 'rows' || b?.kind === 'rows') requireSingle(operator, index)
}

function rightOperand(operator: Operator): Plain {
  return input(operator, operator.name.startsWith('QLinear') ? 3 : 1)
}

function requireSingle(operator: Operator, index: number): void {
  const value = optionalConstant(operator, index, 'scale')
  if (value !== null && shapeOf(value).some((size) => size.unknowns.length > 0 || size.coefficient !== 1)) {
    throw new Prevented('has a scale for each row of the batch', REMEDY.fixedScales)
  }
}

const matMulInteger: Rule = (operator) => {
  requireScales(operator, { left: [2], right: [3], shared: [] })
  return matrixProduct(operator.sizes, input(operator, 0), input(operator, 1))
}

const matMulIntegerToFloat: Rule = (operator) => {
  requireScales(operator, { left: [2, 4], right: [3, 5], shared: [] })
  const whole = matrixProduct(operator.sizes, input(operator, 0), input(operator, 1))
  const bias = optionalConstant(operator, 6, 'bias')
  return bias === null ? whole : broadcast(operator.sizes, [whole, bias])
}

const qLinearMatMul: Rule = (operator) => {
  requireScales(operator, { left: [1, 2], right: [4, 5], shared: [6, 7] })
  return matrixProduct(operator.sizes, input(operator, 0), input(operator, 3))
}

/** Moves the first dimension behind the other stack dimensions: [1, ..., rank - 2, 0, rank - 1]. */
function stackMoved(value: Plain): Plain {
  const shape = shapeOf(value)
  const rank = shape.length
  const order = [...shape.keys()].slice(1, rank - 1).concat(0, rank - 1)
  const whole = order.map((i) => shape[i] as Size)
  if (value.kind === 'rows') return { ...value, shape: whole, axis: order.indexOf(value.axis) }
  return combined([value], whole)
}

const fusedMatMul: Rule = (operator) => {
  const { attributes, sizes } = operator
  const operands = [input(operator, 0), input(operator, 1)] as const
  const [first, second] = operands
  const movesStack = ['transBatchA', 'transBatchB'].map((name) => attributes.int(name) === 1)
  if (movesStack.includes(true)) {
    const rank = shapeOf(first).length
    if (rank < 3 || shapeOf(second).length !== rank) throw unknownShape()
  }
  const [left, right] = operands.map((value, i) => {
    const moved = movesStack[i] ? stackMoved(value) : value
    return attributes.int(i === 0 ? 'transA' : 'transB') === 1 ? turned(moved) : moved
  }) as [Plain, Plain]
  return matrixProduct(sizes, left, right)
}

const gemm: Rule = (operator) => {
  const { attributes, sizes } = operator
  const [left, right] = [input(operator, 0), input(operator, 1)]
  if (shapeOf(left).length !== 2 || shapeOf(right).length !== 2) throw unknownShape()
  const whole = matrixProduct(
    sizes,
    attributes.int('transA') === 1 ? turned(left) : left,
    attributes.int('transB') === 1 ? turned(right) : right,
  )
  const bias = optional(operator, 2)
  return bias === null ? whole : broadcastInto(sizes, whole, bias)
}

/** One-directional broadcasting: the result has the shape of `whole`. */
function broadcastInto(sizes: Sizes, whole: Plain, bias: Plain): Plain {
  if (shapeOf(bias).length > shapeOf(whole).length) throw unknownShape()
  if (bias.kind === 'rows' && whole.kind !== 'rows')
    throw new Prevented('adds rows to a constant', REMEDY.batchFirst)
  return broadcast(sizes, [whole, bias])
}

/** Block-quantised weights with a few bits: N columns of K. */
const blockedWeights: Rule = (operator) => {
  const { attributes, sizes } = operator
  const value = input(operator, 0)
  requireConstants(
    operator,
    operator.inputs.map((_, i) => i).filter((i) => i > 0),
    'weights',
  )
  const shape = shapeOf(value)
  const columns = attributes.int('N')
  if (shape.length === 0 || columns === undefined) throw unknownValue('size')
  if (value.kind === 'rows' && value.axis === shape.length - 1) throw summedOver()
  const whole = [...shape.slice(0, -1), { coefficient: columns, unknowns: [] }]
  return value.kind === 'rows' ? rows(sizes, whole, value) : combined([value], whole)
}

interface Equation {
  readonly operands: readonly (readonly string[])[]
  readonly result: readonly string[]
}

/**
 * Parses the labels of an equation. Dimensions of an ellipsis get labels counted from the last, as in
 * broadcasting.
 */
function readEquation(text: string, ranks: readonly number[]): Equation | null {
  const [left = '', right, ...more] = text.replaceAll(' ', '').split('->')
  const terms = left.split(',')
  if (more.length > 0 || terms.length !== ranks.length) return null
  const expand = (term: string, count: number): string[] | null => {
    const [before = '', after, ...others] = term.split('...')
    if (others.length > 0 || !/^[A-Za-z]*$/.test(before + (after ?? ''))) return null
    if (after === undefined) return [...before]
    const dots = Array.from({ length: Math.max(0, count) }, (_, i) => `.${count - i}`)
    return [...before, ...dots, ...after]
  }
  const dotCounts = terms.map((term, i) => (ranks[i] as number) - term.replace('...', '').length)
  const operands = terms.map((term, i) => expand(term, dotCounts[i] as number))
  if (!operands.every((operand, i): operand is string[] => operand?.length === ranks[i])) return null
  const all = operands.flat()
  const dots = [...new Set(all.filter((label) => label.startsWith('.')))].sort(
    (a, b) => Number(b.slice(1)) - Number(a.slice(1)),
  )
  if (right === undefined) {
    const once = [...new Set(all)].filter(
      (label) => !label.startsWith('.') && all.indexOf(label) === all.lastIndexOf(label),
    )
    return { operands, result: [...dots, ...once.sort()] }
  }
  const result = expand(right, right.includes('...') ? dots.length : 0)
  return result === null || new Set(result).size !== result.length ? null : { operands, result }
}

/** Rows have one label, which is in the result and in no operand without rows. */
const einsum: Rule = (operator) => {
  const { attributes, sizes } = operator
  const values = operator.inputs.map((_, i) => input(operator, i))
  const shapes = values.map(shapeOf)
  const equation = readEquation(
    attributes.text('equation') ?? '',
    shapes.map(({ length }) => length),
  )
  if (equation === null) throw unknownValue('equation')
  const { operands, result } = equation
  const known = new Map<string, Size>()
  for (const [i, labels] of operands.entries()) {
    for (const [axis, label] of labels.entries()) {
      const size = shapes[i]?.[axis] as Size
      known.set(label, sizes.broadcast(known.get(label) ?? ONE, size))
    }
  }
  const whole = result.map((label) => known.get(label) ?? ONE)
  const holder = firstRows(values)
  if (holder === null) return combined(values, whole)
  if (values.some(({ kind }) => kind === 'count')) throw new Prevented(COUNT_AS_DATA, REMEDY.pairs)
  const label = operands[values.indexOf(holder)]?.[holder.axis] as string
  for (const [i, value] of values.entries()) {
    const labels = operands[i] as readonly string[]
    if (value.kind !== 'rows') {
      if (labels.includes(label))
        throw new Prevented('puts a constant along the batch axis', REMEDY.batchFirst)
      continue
    }
    if (labels[value.axis] !== label || labels.filter((one) => one === label).length !== 1) throw pairwise()
    if (!isSameLayout(holder, value)) throw pairwise()
  }
  const axis = result.indexOf(label)
  if (axis < 0) throw summedOver()
  return rows(sizes, whole, { ...(holder as Batch), axis })
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'
const CONTRIB = 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md'

export const PRODUCTS: readonly OperatorRule[] = [
  {
    says: 'The batch is not summed over; rows are multiplied by rows only if the batch is a stack dimension of both.',
    source: `${SPEC}MatMul.html`,
    operators: ['MatMul'],
    rule: matMul,
  },
  {
    says: 'As MatMul, with constant zero points.',
    source: `${SPEC}MatMulInteger.html`,
    operators: ['MatMulInteger'],
    rule: matMulInteger,
  },
  {
    says: 'As MatMul, with constant scales.',
    source: `${SPEC}QLinearMatMul.html`,
    operators: ['QLinearMatMul'],
    rule: qLinearMatMul,
  },
  {
    says: 'As MatMul, with constant scales.',
    source: CONTRIB,
    operators: ['com.microsoft.MatMulIntegerToFloat'],
    rule: matMulIntegerToFloat,
  },
  {
    says: 'As MatMul, with optionally transposed operands.',
    source: CONTRIB,
    operators: ['com.microsoft.FusedMatMul', 'com.microsoft.TransposeMatMul'],
    rule: fusedMatMul,
  },
  {
    says: 'Rows times a constant matrix, plus rows or a broadcast constant.',
    source: `${SPEC}Gemm.html`,
    since: 7,
    operators: ['Gemm'],
    rule: gemm,
  },
  {
    says: 'As Gemm, with an activation.',
    source: CONTRIB,
    operators: ['com.microsoft.FusedGemm'],
    rule: gemm,
  },
  {
    says: 'Rows times constant weights; the batch is not summed over.',
    source: CONTRIB,
    operators: ['com.microsoft.MatMulBnb4', 'com.microsoft.MatMulNBits'],
    rule: blockedWeights,
  },
  {
    says: 'The batch has one label, which is in the result and in no constant.',
    source: `${SPEC}Einsum.html`,
    operators: ['Einsum'],
    rule: einsum,
  },
]
