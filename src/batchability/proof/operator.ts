/** The context of a rule: one node, the known values of its inputs, and accessors for what it requires. */
import type { Attributes } from '../../onnx/attributes.js'
import type { GraphProto } from '../../onnx/onnx_pb.js'
import { literalOf, type Sizes } from './sizes.js'
import { type Constant, type Place, type Plain, Prevented, REMEDY, type Rows, type Value } from './values.js'

export interface Operator {
  readonly name: string
  /** Opset version of its domain that the model imports. */
  readonly version: number
  /**
   * Null for an omitted input. None is mixed: outputs of nodes with mixed inputs are mixed without applying a
   * rule.
   */
  readonly inputs: readonly (Plain | Place | null)[]
  readonly outputCount: number
  readonly attributes: Attributes
  readonly sizes: Sizes
  /** The outputs of a subgraph for these inputs. */
  interpret(graph: GraphProto, inputs: readonly Value[]): Value[]
}

/**
 * The values of a node's outputs; a single value is the first output. Outputs that a rule does not return are
 * mixed.
 * @throws Prevented if rows influence each other, or if independence cannot be shown.
 */
export type Rule = (operator: Operator) => Value | readonly Value[]

export const PLACE_REASON = "uses a row's position in the batch as data"

/** Null if the input is omitted. */
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

/** All inputs from `first` on that are not omitted. */
export function inputsFrom(operator: Operator, first = 0): Plain[] {
  return operator.inputs
    .map((_, index) => (index < first ? null : optional(operator, index)))
    .filter((value) => value !== null)
}

/** The first of these values with rows; null if there is none. */
export function firstRows(values: readonly (Plain | null)[]): Rows | null {
  return values.find((value) => value?.kind === 'rows') ?? null
}

function notConstant(what: string, kind: Plain['kind']): Prevented {
  return kind === 'rows'
    ? new Prevented(`takes its ${what} from the data of rows`, REMEDY.fixedSteering)
    : new Prevented(`takes its ${what} from the number of rows`, REMEDY.fixedSteering)
}

/** @throws Prevented unless the input is omitted or constant. */
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

/** Requires all of these inputs to be constant or omitted. */
export function requireConstants(operator: Operator, indices: readonly number[], what: string): void {
  for (const index of indices) optionalConstant(operator, index, what)
}

/** The elements of a constant; null if they are not all known. */
export function literalsOf({ elements }: Constant): number[] | null {
  const values = elements?.map(literalOf)
  return values?.every((value) => value !== null) ? values : null
}

export function unknownValue(what: string): Prevented {
  return new Prevented(`takes its ${what} from values that cannot be determined`, REMEDY.fixedSteering)
}

/** The known integers of an input; null if it is omitted. */
export function optionalIntegers(operator: Operator, index: number, what: string): number[] | null {
  const value = optionalConstant(operator, index, what)
  if (value === null) return null
  const literals = literalsOf(value)
  if (literals === null) throw unknownValue(what)
  return literals
}

/** Converts a negative axis to a non-negative one. */
export function axisOf(axis: number, rank: number): number {
  const positive = axis < 0 ? axis + rank : axis
  if (!Number.isInteger(positive) || positive < 0 || positive >= rank) {
    throw new Prevented(`has axis ${axis} for ${rank} dimensions`, REMEDY.declare)
  }
  return positive
}

/** From an attribute of this name or an input; null if there is neither. */
export function integersFrom(
  operator: Operator,
  { attribute, index }: { attribute: string; index: number },
): number[] | null {
  return operator.attributes.ints(attribute) ?? optionalIntegers(operator, index, attribute)
}
