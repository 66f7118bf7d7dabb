/** Operators that concatenate or split tensors along an axis. */
import { requireSamePlace, unknownShape } from '../broadcast.js'
import {
  axisOf,
  firstRows,
  input,
  inputsFrom,
  literalsOf,
  type Operator,
  optionalConstant,
  optionalIntegers,
  type Rule,
  requireConstants,
  unknownValue,
} from '../operator.js'
import {
  dependsOnRows,
  isEqual,
  isLiteral,
  literal,
  literalOf,
  ONE,
  type Size,
  type Sizes,
} from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  type Constant,
  type Count,
  combined,
  constant,
  integers,
  isWholeBatch,
  type Place,
  type Plain,
  Prevented,
  REMEDY,
  type Rows,
  rows,
  type Shape,
  unfollowed,
  type Value,
} from '../values.js'

function shapeOf({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

export function acrossBatch(what: string): Prevented {
  return new Prevented(`${what} along the batch axis`, REMEDY.insideRow)
}

/** `[position, column, ...]` along the last axis: coordinates that start with the row's own position. */
function coordinates({ inputs, sizes, attributes }: Operator): Value | null {
  const [first, ...others] = inputs
  if (first?.kind !== 'place' || first.form !== 'every') return null
  const rank = first.shape.length
  const isLast = rank > 1 && [rank - 1, -1].includes(attributes.int('axis') ?? 0)
  if (!isLast || !isLiteral(first.shape[rank - 1] as Size, 1)) return null
  let width: Size = ONE
  for (const value of others) {
    const isBeside =
      value?.kind === 'rows' && value.shape.length === rank && value.axis === 0 && isWholeBatch(value)
    if (!isBeside) return null
    width = sizes.sum(width, value.shape[rank - 1] as Size)
  }
  return { kind: 'place', form: 'first', shape: [...first.shape.slice(0, -1), width] } satisfies Place
}

const concat: Rule = (operator) => {
  const places = coordinates(operator)
  if (places !== null) return places
  const { sizes, attributes } = operator
  const values = inputsFrom(operator)
  const shapes = values.map(shapeOf)
  const [first] = shapes
  if (first === undefined || shapes.some(({ length }) => length !== first.length)) throw unknownShape()
  const axis = axisOf(attributes.int('axis') ?? 1, first.length)
  const joined = shapes.map((shape) => shape[axis] as Size).reduce((a, b) => sizes.sum(a, b))
  const whole = first.map((_, i) => (i === axis ? joined : agreed(shapes.map((shape) => shape[i] as Size))))
  const holder = firstRows(values)
  if (holder !== null) return joinedRows(sizes, { values, holder, axis, whole })
  const isVector =
    first.length === 1 && values.every((value) => value.kind !== 'rows' && value.elements !== null)
  if (isVector)
    return integers(
      whole,
      values.flatMap((value) => (value as Constant | Count).elements ?? []),
    )
  return combined(values, whole)
}

/** The runtime rejects unequal sizes, so a known number is the most precise one. */
function agreed(some: readonly Size[]): Size {
  return some.find((size) => literalOf(size) !== null) ?? (some[0] as Size)
}

function joinedRows(
  sizes: Sizes,
  parts: { values: readonly Plain[]; holder: Rows; axis: number; whole: Shape },
): Value {
  const { values, holder, axis, whole } = parts
  if (axis === holder.axis) throw acrossBatch('joins tensors')
  for (const value of values) {
    if (value.kind === 'rows') requireSamePlace(holder, value)
    else {
      throw new Prevented(
        value.kind === 'count'
          ? 'joins the number of rows to the data of rows'
          : 'joins rows to a constant that is not repeated for every row',
        REMEDY.batchFirst,
      )
    }
  }
  return rows(sizes, whole, holder)
}

const split: Rule = (operator) => {
  const { sizes, attributes, outputCount } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  const axis = axisOf(attributes.int('axis') ?? 0, shape.length)
  const lengths = attributes.ints('split') ?? null
  const given = lengths ?? optionalIntegers(operator, 1, 'lengths')
  if (value.kind === 'rows' && value.axis === axis) throw acrossBatch('splits a tensor')
  const whole = literalOf(shape[axis] as Size)
  const length = (i: number): Size => {
    if (given !== null) return literal(given[i] ?? Number.NaN)
    if (whole === null)
      return operator.version < 18 ? sizes.quotient(shape[axis] as Size, literal(outputCount)) : sizes.fresh()
    // The last part is smaller if the split is uneven.
    const each = Math.ceil(whole / (attributes.int('num_outputs') ?? outputCount))
    return literal(Math.max(0, Math.min(each, whole - i * each)))
  }
  if (given !== null && given.length !== outputCount) throw unknownValue('lengths')
  let from = 0
  return Array.from({ length: outputCount }, (_, i): Value => {
    const part = length(i)
    const partShape = shape.map((size, at) => (at === axis ? part : size))
    if (value.kind === 'rows') return rows(sizes, partShape, value)
    const count = literalOf(part)
    if (value.elements === null || shape.length !== 1 || count === null) return unfollowed(value, partShape)
    const elements = value.elements.slice(from, from + count)
    from += count
    return integers(partShape, elements)
  })
}

interface Cut {
  readonly axis: number
  readonly start: Size | null
  readonly end: Size | null
  readonly step: number | null
}

function cutsOf(operator: Operator, rank: number): Cut[] {
  const { attributes, version } = operator
  const read = (index: number, name: string): readonly (Size | null)[] | null => {
    if (version < 10) return attributes.ints(name)?.map(literal) ?? null
    const value = operator.inputs[index] === undefined ? null : (operator.inputs[index] ?? null)
    if (value === null) return null
    if (value.kind === 'rows' || value.kind === 'place') {
      throw new Prevented(`takes its ${name} from the data of rows`, REMEDY.fixedSteering)
    }
    if (value.elements !== null) return value.elements
    if (value.kind === 'count')
      throw new Prevented(`takes its ${name} from the number of rows`, REMEDY.fixedSteering)
    const count = value.shape?.length === 1 ? literalOf(value.shape[0] as Size) : null
    if (count === null) throw unknownValue(name)
    return Array(count).fill(null)
  }
  const starts = read(1, 'starts')
  const ends = read(2, 'ends')
  if (starts === null || ends === null) throw unknownValue('starts')
  const axes = read(3, 'axes') ?? starts.map((_, i) => literal(i))
  const steps = read(4, 'steps') ?? starts.map(() => ONE)
  return axes.map((given, i) => {
    const axis = given && literalOf(given)
    if (axis === null) throw unknownValue('axes')
    const step = steps[i]
    return {
      axis: axisOf(axis, rank),
      start: starts[i] ?? null,
      end: ends[i] ?? null,
      step: step ? literalOf(step) : null,
    }
  })
}

/**
 * Larger than every dimension that fits into memory. Exporters write this, or the largest integer, for "to
 * the end".
 */
const OPEN_END = 1e9

function isWholeCut({ start, end, step }: Cut, size: Size): boolean {
  if (start === null || end === null || step !== 1 || !isLiteral(start, 0)) return false
  return isEqual(end, size) || (literalOf(end) ?? 0) >= OPEN_END
}

/** The number of elements in a slice; null if unknown. */
function cutLength({ start, end, step }: Cut, size: Size): number | null {
  const [from, to, whole] = [start && literalOf(start), end && literalOf(end), literalOf(size)]
  if (from === null || to === null || whole === null || step === null || step === 0) return null
  const clamp = (at: number, low: number, high: number) =>
    Math.min(Math.max(at < 0 ? at + whole : at, low), high)
  const [first, last] =
    step > 0
      ? [clamp(from, 0, whole), clamp(to, 0, whole)]
      : [clamp(from, 0, whole - 1), clamp(to, -1, whole - 1)]
  return Math.max(0, Math.ceil((last - first) / step))
}

const slice: Rule = (operator) => {
  const { sizes } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  const whole = [...shape]
  const cuts = cutsOf(operator, shape.length).filter((cut) => !isWholeCut(cut, shape[cut.axis] as Size))
  for (const cut of cuts) {
    const size = shape[cut.axis] as Size
    if (value.kind === 'rows' && value.axis === cut.axis)
      throw acrossBatch('takes some of the rows, or another order,')
    if ([cut.start, cut.end].some((one) => one !== null && dependsOnRows(one))) {
      throw new Prevented('takes its bounds from the number of rows', REMEDY.fixedSteering)
    }
    const length = cutLength(cut, size)
    const operands = [size, cut.start, cut.end]
    const isKnown = operands.every((one) => one !== null) && cut.step !== null
    whole[cut.axis] =
      length !== null
        ? literal(length)
        : isKnown
          ? sizes.derived('slice', [...(operands as Size[]), literal(cut.step as number)], true)
          : sizes.fresh()
  }
  if (value.kind === 'rows') return rows(sizes, whole, value)
  return cutElements(value, cuts, whole) ?? unfollowed(value, whole)
}

function cutElements(value: Constant | Count, cuts: readonly Cut[], whole: Shape): Value | null {
  const { elements, shape } = value
  if (elements === null || shape?.length !== 1) return null
  const [cut] = cuts
  if (cut === undefined) return value
  const [start, count] = [cut.start && literalOf(cut.start), literalOf(whole[0] as Size)]
  if (cuts.length > 1 || start === null || count === null || cut.step === null) return null
  const length = elements.length
  const first = start < 0 ? Math.max(0, start + length) : Math.min(start, cut.step < 0 ? length - 1 : length)
  const taken = Array.from({ length: count }, (_, i) => elements[first + i * (cut.step as number)])
  return taken.every((one) => one !== undefined) ? integers(whole, taken) : null
}

const pad: Rule = (operator) => {
  const { sizes, attributes, version } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  const rank = shape.length
  const isAttribute = version < 11
  const pads = isAttribute
    ? (attributes.ints('pads') ?? attributes.ints('paddings') ?? null)
    : literalsOf(optionalConstant(operator, 1, 'pads') ?? constant(null))
  if (!isAttribute) requireConstants(operator, [2], 'value')
  const axes = isAttribute ? null : optionalIntegers(operator, 3, 'axes')
  const padded = (axes ?? shape.map((_, i) => i)).map((axis) => axisOf(axis, rank))
  if (pads === null || pads.length !== 2 * padded.length) throw unknownValue('pads')
  const whole = [...shape]
  for (const [i, axis] of padded.entries()) {
    const [before, after] = [pads[i] as number, pads[padded.length + i] as number]
    if (before === 0 && after === 0) continue
    if (value.kind === 'rows' && axis === value.axis) throw acrossBatch('pads')
    whole[axis] = grown(sizes, whole[axis] as Size, before + after)
  }
  return value.kind === 'rows' ? rows(sizes, whole, value) : unfollowed(value, whole)
}

function grown(sizes: Sizes, size: Size, by: number): Size {
  const known = literalOf(size)
  if (known !== null) return literal(Math.max(0, known + by))
  return by >= 0 ? sizes.sum(size, literal(by)) : sizes.fresh()
}

const reverseSequence: Rule = (operator) => {
  const { attributes } = operator
  const value = input(operator, 0)
  const lengths = input(operator, 1)
  const batch = attributes.int('batch_axis') ?? 1
  const time = attributes.int('time_axis') ?? 0
  const holder = firstRows([value, lengths])
  if (holder === null) return combined([value, lengths], value.shape)
  if (value.kind !== 'rows' || lengths.kind === 'count') {
    throw new Prevented('reverses a constant by the data of rows', REMEDY.pairs)
  }
  if (value.axis === time) throw acrossBatch('reverses a sequence')
  if (lengths.kind === 'rows') {
    requireSamePlace({ ...value, shape: [value.shape[value.axis] as Size], axis: 0 }, lengths)
    if (value.axis !== batch)
      throw new Prevented('reverses every row by the lengths of all', REMEDY.batchFirst)
  } else if (value.axis === batch) throw unknownValue('lengths')
  return value
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'

export const PARTS: readonly OperatorRule[] = [
  {
    says: 'Concatenates rows with rows, along an axis other than the batch.',
    source: `${SPEC}Concat.html`,
    since: 4,
    operators: ['Concat'],
    rule: concat,
  },
  {
    says: 'Along an axis other than the batch, into constant lengths.',
    source: `${SPEC}Split.html`,
    since: 2,
    operators: ['Split'],
    rule: split,
  },
  {
    says: 'Along axes other than the batch, or the whole batch; bounds are constant.',
    source: `${SPEC}Slice.html`,
    operators: ['Slice'],
    rule: slice,
  },
  {
    says: 'Along axes other than the batch, by constant widths.',
    source: `${SPEC}Pad.html`,
    since: 2,
    operators: ['Pad'],
    rule: pad,
  },
  {
    says: 'Along an axis other than the batch; lengths may differ by row if the batch is batch_axis.',
    source: `${SPEC}ReverseSequence.html`,
    operators: ['ReverseSequence'],
    rule: reverseSequence,
  },
]
