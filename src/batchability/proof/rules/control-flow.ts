/**
 * If, Loop and Scan: what they branch and count on is part of the model, and their bodies keep rows apart. What a loop
 * carries is joined with what comes out until nothing changes.
 */
import type { GraphProto } from '../../../onnx/onnx_pb.js'
import { type Carried, isUnchanged, join } from '../join.js'
import { axisOf, constantInput, type Operator, optionalConstant, type Rule } from '../operator.js'
import type { Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import { constant, Prevented, REMEDY, rows, type Shape, unfollowed, type Value } from '../values.js'

/** Each round makes a tensor less known, and there is an end to that; this is for a mistake in a rule. */
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
  /** Of the last round. */
  readonly outputs: readonly Value[]
}

/** `run` gives what a round gives for what it is given; the first of its outputs are carried into the next. */
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
  throw new Prevented('carries values through its rounds that do not settle', REMEDY.export)
}

function inputs(operator: Operator, from: number, to = operator.inputs.length): Value[] {
  return operator.inputs.slice(from, to).map((value) => {
    if (value === null) throw new Prevented('leaves out a value that it carries', REMEDY.export)
    return value
  })
}

/** A tensor of every round along a new axis. */
function stacked(
  operator: Operator,
  value: Value,
  { axis, count, oldest }: { axis: number; count: Size; oldest: number },
): Value {
  const { sizes } = operator
  if (value.kind === 'mixed') return value
  if (value.kind === 'place') throw new Prevented("keeps a row's place in the batch", REMEDY.insideRow)
  if (value.shape === null) return unfollowed(value as never, null)
  const rank = value.shape.length + 1
  const at = axisOf(axis, rank)
  // Sizes of a body are those of one round: outside they stand for others.
  const isOutside = (size: Size) => size.unknowns.every(({ id }) => id < oldest)
  const shape: Shape = value.shape.map((size) => (isOutside(size) ? size : sizes.fresh()))
  const whole = [...shape.slice(0, at), count, ...shape.slice(at)]
  if (value.kind !== 'rows') return unfollowed(value, whole)
  if (!isOutside(value.outer) || !isOutside(value.inner)) {
    throw new Prevented('keeps rows in blocks of a size that its rounds give', REMEDY.batchFirst)
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
      throw new Prevented(`goes on by a mixture: ${going.cause.reason}`, going.cause.remedy)
    if (going?.kind !== 'constant') throw new Prevented('goes on by the data of rows', REMEDY.fixedSteering)
    return { next: given.slice(0, initial.length), others: given.slice(initial.length) }
  })
  const count = sizes.fresh()
  return [...carried, ...outputs.map((value) => stacked(operator, value, { axis: 0, count, oldest }))]
}

/** One step of a tensor along the axis that is gone through. */
function step({ sizes }: Operator, value: Value, axis: number): { step: Value; count: Size | null } {
  if (value.kind === 'mixed' || value.kind === 'place') {
    throw new Prevented('goes through the places of rows in the batch', REMEDY.insideRow)
  }
  if (value.shape === null) return { step: unfollowed(value as never, null), count: null }
  const at = axisOf(axis, value.shape.length)
  const shape = value.shape.filter((_, i) => i !== at)
  const count = value.shape[at] as Size
  if (value.kind !== 'rows') return { step: unfollowed(value, shape), count }
  if (value.axis === at) throw new Prevented('goes through the rows one after another', REMEDY.insideRow)
  return { step: rows(sizes, shape, { ...value, axis: value.axis - (value.axis > at ? 1 : 0) }), count }
}

/** carried values, then tensors that are gone through */
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
    says: 'The condition is constant; both branches give rows in the same way.',
    source: `${SPEC}If.html`,
    operators: ['If'],
    rule: choose,
  },
  {
    says: 'Trip count and condition are constant; what is carried stays rows in the same way.',
    source: `${SPEC}Loop.html`,
    operators: ['Loop'],
    rule: loop,
  },
  {
    says: 'Goes through another axis than the batch; what is carried stays rows in the same way.',
    source: `${SPEC}Scan.html`,
    since: 9,
    operators: ['Scan'],
    rule: scan,
  },
]
