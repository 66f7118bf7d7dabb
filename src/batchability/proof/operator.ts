/** What a rule is given: one node, what is known of its inputs, and ways to ask for what it needs. */
import type { Attributes } from '../../onnx/attributes.js'
import type { GraphProto } from '../../onnx/onnx_pb.js'
import { literalOf, type Sizes } from './sizes.js'
import { type Constant, type Place, type Plain, Prevented, REMEDY, type Rows, type Value } from './values.js'

export interface Operator {
  readonly name: string
  /** Version of its domain that the model imports. */
  readonly version: number
  /** Null for one that is left out. None is mixed: what a mixture is used for is mixed, without asking a rule. */
  readonly inputs: readonly (Plain | Place | null)[]
  readonly outputCount: number
  readonly attributes: Attributes
  readonly sizes: Sizes
  /** What a graph in an attribute gives for these inputs. */
  interpret(graph: GraphProto, inputs: readonly Value[]): Value[]
}

/**
 * What a node's outputs are; one value is its first output. An output that a rule does not name is mixed.
 * @throws Prevented where rows do not stay apart, or that cannot be shown.
 */
export type Rule = (operator: Operator) => Value | readonly Value[]

export const PLACE_REASON = "uses a row's place in the batch as data"

/** Null where the input is left out. */
export function optional({ inputs }: Operator, index: number): Plain | null {
  const value = inputs[index] ?? null
  if (value?.kind === 'place') throw new Prevented(PLACE_REASON, REMEDY.insideRow)
  return value
}

export function input(operator: Operator, index: number): Plain {
  const value = optional(operator, index)
  if (value === null) throw new Prevented(`has no input ${index}`, REMEDY.export)
  return value
}

/** All inputs that are not left out, from one on. */
export function inputsFrom(operator: Operator, first = 0): Plain[] {
  return operator.inputs
    .map((_, index) => (index < first ? null : optional(operator, index)))
    .filter((value) => value !== null)
}

/** The first of these that holds rows; null where none does. */
export function firstRows(values: readonly (Plain | null)[]): Rows | null {
  return values.find((value) => value?.kind === 'rows') ?? null
}

function notConstant(what: string, kind: Plain['kind']): Prevented {
  return kind === 'rows'
    ? new Prevented(`takes its ${what} from the data of rows`, REMEDY.fixedSteering)
    : new Prevented(`takes its ${what} from the number of rows`, REMEDY.fixedSteering)
}

/** @throws Prevented unless the input is left out or constant. */
export function optionalConstant(operator: Operator, index: number, what: string): Constant | null {
  const value = optional(operator, index)
  if (value !== null && value.kind !== 'constant') throw notConstant(what, value.kind)
  return value
}

export function constantInput(operator: Operator, index: number, what: string): Constant {
  const value = input(operator, index)
  if (value.kind !== 'constant') throw notConstant(what, value.kind)
  return value
}

/** All of these inputs, where they are there, are the same for any rows. */
export function requireConstants(operator: Operator, indices: readonly number[], what: string): void {
  for (const index of indices) optionalConstant(operator, index, what)
}

/** Integers of a constant that are known; null where they are not. */
export function literalsOf({ elements }: Constant): number[] | null {
  const values = elements?.map(literalOf)
  return values?.every((value) => value !== null) ? values : null
}

export function unknownValue(what: string): Prevented {
  return new Prevented(`takes its ${what} from values that cannot be worked out`, REMEDY.fixedSteering)
}

/** Integers that an input must hold, known from the graph; null where it is left out. */
export function optionalIntegers(operator: Operator, index: number, what: string): number[] | null {
  const value = optionalConstant(operator, index, what)
  if (value === null) return null
  const literals = literalsOf(value)
  if (literals === null) throw unknownValue(what)
  return literals
}

/** An axis counted from the front. */
export function axisOf(axis: number, rank: number): number {
  const positive = axis < 0 ? axis + rank : axis
  if (!Number.isInteger(positive) || positive < 0 || positive >= rank) {
    throw new Prevented(`has axis ${axis} for ${rank} dimensions`, REMEDY.declare)
  }
  return positive
}

/** From an attribute of that name, or an input. Null where there is neither. */
export function integersFrom(
  operator: Operator,
  { attribute, index }: { attribute: string; index: number },
): number[] | null {
  return operator.attributes.ints(attribute) ?? optionalIntegers(operator, index, attribute)
}
