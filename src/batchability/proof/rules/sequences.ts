/** Recurrent layers: parallel sequences, each with its own state. */
import { requireFollows, unknownShape } from '../broadcast.js'
import {
  firstRows,
  input,
  inputsFrom,
  type Operator,
  optional,
  type Rule,
  requireConstants,
} from '../operator.js'
import { literal, ONE, type Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import { combined, Prevented, REMEDY, rows, type Value } from '../values.js'

/** Index of the sequence lengths, and of the initial states. */
const LENGTHS = 4
const STATES = [5, 6]

/** X, W, R, B, sequence_lens, initial_h, and for LSTM initial_c and P. */
const recurrent: Rule = (operator: Operator): Value[] => {
  const { attributes, sizes, name } = operator
  const value = input(operator, 0)
  const lengths = optional(operator, LENGTHS)
  const isLstm = name === 'LSTM'
  const states = (isLstm ? STATES : [5]).map((index) => optional(operator, index))
  requireConstants(operator, isLstm ? [1, 2, 3, 7] : [1, 2, 3], 'weights')
  if (firstRows(inputsFrom(operator)) === null) {
    const same = combined(inputsFrom(operator), null)
    return [same, same, same]
  }
  if (value.kind !== 'rows') throw new Prevented('combines constant sequences with rows', REMEDY.batchFirst)
  if (value.shape.length !== 3) throw unknownShape()
  const isBatchFirst = attributes.int('layout') === 1
  if (value.axis !== (isBatchFirst ? 0 : 1)) {
    throw new Prevented('goes through the rows as the steps of a sequence', REMEDY.batchFirst)
  }
  requireFollows(lengths, value, { axis: 0, what: 'lengths' })
  for (const state of states)
    requireFollows(state, value, { axis: isBatchFirst ? 0 : 1, what: 'initial states' })
  const hidden = literal(attributes.int('hidden_size') ?? 0)
  const directions = literal(attributes.text('direction') === 'bidirectional' ? 2 : 1)
  const steps = value.shape[isBatchFirst ? 1 : 0] as Size
  const all = isBatchFirst
    ? rows(sizes, [ONE, steps, directions, hidden], value)
    : rows(sizes, [steps, directions, ONE, hidden], { ...value, axis: 2 })
  const last = isBatchFirst
    ? rows(sizes, [ONE, directions, hidden], value)
    : rows(sizes, [directions, ONE, hidden], { ...value, axis: 1 })
  return [all, last, last]
}

export const SEQUENCES: readonly OperatorRule[] = [
  {
    says: 'The batch is the batch dimension of sequences, lengths and initial states; weights are constant.',
    source: 'https://onnx.ai/onnx/operators/onnx__LSTM.html',
    since: 7,
    operators: ['GRU', 'LSTM', 'RNN'],
    rule: recurrent,
  },
]
