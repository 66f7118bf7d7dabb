/**
 * If, Loop and Scan. Conditions and trip counts must be constant, and bodies must keep rows independent.
 * Loop-carried values are joined with the results of the body until nothing changes.
 */
import type { GraphProto } from '../../../onnx/onnx_pb.js'
import { type Carried, isUnchanged, join } from '../join.js'
import { axisOf, constantInput, type Operator, optionalConstant, type Rule } from '../operator.js'
import type { Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import { constant, Prevented, REMEDY, rows, type Shape, unfollowed, type Value } from '../values.js'

/**
 * Each iteration makes a value less specific, so the analysis terminates. The limit guards against a bug in a
 * rule.
 */
const MAX_ROUNDS = 16

function bodyOf({ attributes }: Operator, name: string): GraphProto {
  const body = attributes.graph(name)
  if (body === undefined) throw new Prevented(`has no ${name}`, REMEDY.export)
  return body
}

const choose: Rule = (operator): Value[] => {
  constantInput(operator, 0, 'condition')
  const yes = operator.interpret(bodyOf(operator, 'then_branch'), [])
  const no = operator.interpret(bodyOf(operator, 'else_branch'), [])
  return yes.map((value, i) => join(operator.sizes, value, no[i] as Value))
}

interface Rounds {
  readonly carried: readonly Value[]
  /** Outputs of the last iteration. */
  readonly outputs: readonly Value[]
}

/** `run` interprets one iteration; the first of its outputs are carried into the next. */
function repeat(
  { sizes }: Operator,
  initial: readonly Value[],
  run: (carried: readonly Value[]) => { readonly next: readonly Value[]; readonly others: readonly Value[] },
): Rounds {
  const unknowns: Carried = new Set()
  let carried = initial
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const { next, others } = run(carried)
    const before = carried
    const joined = before.map((value, i) => join(sizes, value, next[i] ?? value, unknowns))
    if (joined.every((value, i) => isUnchanged(value, before[i] as Value)))
      return { carried, outputs: others }
    carried = joined
  }
  throw new Prevented('carries values whose analysis does not converge', REMEDY.export)
}

function inputs(operator: Operator, from: number, to = operator.inputs.length): Value[] {
  return operator.inputs.slice(from, to).map((value) => {
    if (value === null) throw new Prevented('omits a loop-carried value', REMEDY.export)
    return value
  })
}

/** A scan output: the values of all iterations along a new axis. */
function stacked(
  operator: Operator,
  value: Value,
  { axis, count, oldest }: { axis: number; count: Size; oldest: number },
): Value {
  const { sizes } = operator
  if (value.kind === 'mixed') return value
  if (value.kind === 'place') throw new Prevented("collects a row's position in the batch", REMEDY.insideRow)
  if (value.shape === null) return unfollowed(value as never, null)
  const rank = value.shape.length + 1
  const at = axisOf(axis, rank)
  // Sizes inside a body are those of one iteration, so they are unknown outside.
  const isOutside = (size: Size) => size.unknowns.every(({ id }) => id < oldest)
  const shape: Shape = value.shape.map((size) => (isOutside(size) ? size : sizes.fresh()))
  const whole = [...shape.slice(0, at), count, ...shape.slice(at)]
  if (value.kind !== 'rows') return unfollowed(value, whole)
  if (!isOutside(value.outer) || !isOutside(value.inner)) {
    throw new Prevented('keeps rows in blocks whose size its iterations determine', REMEDY.batchFirst)
  }
  return rows(sizes, whole, { ...value, axis: value.axis + (value.axis >= at ? 1 : 0) })
}

/** trip count, condition, carried values */
const loop: Rule = (operator): Value[] => {
  const { sizes } = operator
  const body = bodyOf(operator, 'body')
  optionalConstant(operator, 0, 'trip count')
  optionalConstant(operator, 1, 'condition')
  const oldest = sizes.nextId
  const initial = inputs(operator, 2)
  const { carried, outputs } = repeat(operator, initial, (values) => {
    const [going, ...given] = operator.interpret(body, [constant([]), constant([]), ...values])
    if (going?.kind === 'mixed')
      throw new Prevented(
        `continues depending on a mixture of rows: ${going.cause.reason}`,
        going.cause.remedy,
      )
    if (going?.kind !== 'constant')
      throw new Prevented('continues depending on the data of rows', REMEDY.fixedSteering)
    return { next: given.slice(0, initial.length), others: given.slice(initial.length) }
  })
  const count = sizes.fresh()
  return [...carried, ...outputs.map((value) => stacked(operator, value, { axis: 0, count, oldest }))]
}

/** One slice of a tensor along the scanned axis. */
function step({ sizes }: Operator, value: Value, axis: number): { step: Value; count: Size | null } {
  if (value.kind === 'mixed' || value.kind === 'place') {
    throw new Prevented('iterates over the positions of rows in the batch', REMEDY.insideRow)
  }
  if (value.shape === null) return { step: unfollowed(value as never, null), count: null }
  const at = axisOf(axis, value.shape.length)
  const shape = value.shape.filter((_, i) => i !== at)
  const count = value.shape[at] as Size
  if (value.kind !== 'rows') return { step: unfollowed(value, shape), count }
  if (value.axis === at) throw new Prevented('iterates over the rows', REMEDY.insideRow)
  return { step: rows(sizes, shape, { ...value, axis: value.axis - (value.axis > at ? 1 : 0) }), count }
}

/** Carried values, then scanned tensors. */
const scan: Rule = (operator): Value[] => {
  const { sizes, attributes } = operator
  const body = bodyOf(operator, 'body')
  const scanned = attributes.int('num_scan_inputs') ?? 0
  const first = operator.inputs.length - scanned
  const axes = attributes.ints('scan_input_axes') ?? []
  const oldest = sizes.nextId
  const steps = inputs(operator, first).map((value, i) => step(operator, value, axes[i] ?? 0))
  const { carried, outputs } = repeat(operator, inputs(operator, 0, first), (values) => {
    const given = operator.interpret(body, [...values, ...steps.map((one) => one.step)])
    return { next: given.slice(0, first), others: given.slice(first) }
  })
  const count = steps[0]?.count ?? sizes.fresh()
  const outputAxes = attributes.ints('scan_output_axes') ?? []
  return [
    ...carried,
    ...outputs.map((value, i) => stacked(operator, value, { axis: outputAxes[i] ?? 0, count, oldest })),
  ]
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'

export const CONTROL_FLOW: readonly OperatorRule[] = [
  {
    says: 'The condition is constant; both branches return rows in the same layout.',
    source: `${SPEC}If.html`,
    operators: ['If'],
    rule: choose,
  },
  {
    says: 'Trip count and condition are constant; carried values keep the layout of rows.',
    source: `${SPEC}Loop.html`,
    operators: ['Loop'],
    rule: loop,
  },
  {
    says: 'Iterates over an axis other than the batch; carried values keep the layout of rows.',
    source: `${SPEC}Scan.html`,
    since: 9,
    operators: ['Scan'],
    rule: scan,
  },
]
