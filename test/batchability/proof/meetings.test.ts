/** What is said of graphs of a few nodes, many of them made to be taken for row-wise ones: looking up, broadcasting and products. */
import { ELEMENT, int64s, intAttribute, node, value, weights } from '../../helpers/onnx-builder.js'
import { textAttribute } from './random-graphs.js'
import { attributes, axis, int, ints, microsoft, notProven, proven, shaped, x, zero } from './small-graphs.js'

const { float, int64 } = ELEMENT

// Looking up.
proven('an embedding', {
  inputs: [value('x', int64, ['n', 's'])],
  nodes: [node('Gather', ['w', 'x'], ['y'])],
  constants: [weights('w', [9, 4])],
})
notProven(
  'rows looked up by the data of rows',
  { inputs: [x(4), value('i', int64, ['n'])], nodes: [node('Gather', ['x', 'i'], ['y'])] },
  /looks up in the data of all rows/,
)
notProven(
  'the same row for all',
  { nodes: [node('Gather', ['x', 'zero'], ['y'])], constants: [zero] },
  /looks up along the batch axis/,
)
notProven(
  'a row by a place that was computed',
  {
    nodes: [
      ...shaped,
      node('Squeeze', ['count', 'zero'], ['c']),
      node('Range', ['z', 'c', 'o'], ['at']),
      node('Add', ['at', 'o'], ['next']),
      node('Mod', ['next', 'c'], ['around']),
      node('Gather', ['x', 'around'], ['y']),
    ],
    constants: [zero, int('z', 0), int('o', 1)],
  },
  /place in the batch/,
)
notProven(
  'its place in the batch as an answer',
  {
    outputs: ['y'],
    nodes: [...shaped, node('Squeeze', ['count', 'zero'], ['c']), node('Range', ['z', 'c', 'o'], ['y'])],
    constants: [zero, int('z', 0), int('o', 1)],
  },
  /place in the batch/,
)
notProven(
  'its place, counted from one',
  {
    nodes: [
      ...shaped,
      node('Squeeze', ['count', 'zero'], ['c']),
      node('Range', ['o', 'c', 'o'], ['at']),
      node('Gather', ['x', 'at'], ['y']),
    ],
    constants: [zero, int('o', 1)],
  },
  /counts up to the number of rows/,
)
notProven(
  'a table of constants by place',
  {
    nodes: [
      ...shaped,
      node('Squeeze', ['count', 'zero'], ['c']),
      node('Range', ['z', 'c', 'o'], ['at']),
      node('Unsqueeze', ['at', 'axis'], ['at2']),
      node('GatherND', ['table', 'at2'], ['p']),
      node('Add', ['x', 'p'], ['y']),
    ],
    constants: [zero, int('z', 0), int('o', 1), ints('axis', 1), weights('table', [99, 4])],
  },
  /place in the batch/,
)
notProven(
  'coordinates whose second number is the place',
  {
    inputs: [x(4), value('i', int64, ['n', 1])],
    nodes: [
      ...shaped,
      node('Squeeze', ['count', 'zero'], ['c']),
      node('Range', ['z', 'c', 'o'], ['at']),
      node('Unsqueeze', ['at', 'one'], ['at2']),
      node('Concat', ['i', 'at2'], ['both'], axis(1)),
      node('GatherND', ['x', 'both'], ['y']),
    ],
    constants: [zero, int('z', 0), int('o', 1), ints('one', 1)],
  },
  /place in the batch/,
)
notProven(
  'writing over another row',
  {
    nodes: [node('ScatterND', ['x', 'at', 'u'], ['y'])],
    constants: [int64s('at', [1, 1], [0]), weights('u', [1, 4])],
  },
  /writes/,
)
notProven(
  'a constant over the first rows',
  {
    nodes: [node('ScatterElements', ['x', 'at', 'u'], ['y'], axis(1))],
    constants: [int64s('at', [1, 1], [0]), weights('u', [1, 1])],
  },
  /writes/,
)
notProven(
  'elements of a constant, by the place of a row',
  {
    inputs: [value('x', int64, ['n', 4])],
    nodes: [node('GatherElements', ['w', 'x'], ['y'], axis(1))],
    constants: [weights('w', [99, 4])],
  },
  /by the place of a row/,
)

// Broadcasting.
notProven(
  'a constant along the batch',
  { nodes: [node('Add', ['x', 'w'], ['y'])], constants: [weights('w', [3, 4])] },
  /along the batch axis/,
)
notProven(
  'each row with each',
  {
    inputs: [x(1)],
    nodes: [
      node('Transpose', ['x'], ['t']),
      node('Sub', ['x', 't'], ['d']),
      node('ReduceSum', ['d', 'one'], ['y']),
    ],
    constants: [ints('one', 1)],
  },
  /every row together with every other/,
)
notProven(
  'a vector of rows along the columns of rows',
  { inputs: [x(4), value('v', float, ['n'])], nodes: [node('Add', ['x', 'v'], ['y'])] },
  /every row together/,
)
notProven(
  'divided by the number of rows',
  {
    nodes: [
      ...shaped,
      node('Cast', ['count'], ['c'], attributes(intAttribute('to', float))),
      node('Div', ['x', 'c'], ['y']),
    ],
    constants: [zero],
  },
  /number of rows part of/,
)
notProven(
  'a mask by the number of rows',
  {
    nodes: [...shaped, node('Greater', ['count', 'zero'], ['m']), node('Where', ['m', 'x', 'w'], ['y'])],
    constants: [zero, weights('w', [4])],
  },
  /number of rows part of/,
)
notProven('the number of rows as an answer', { nodes: [node('Shape', ['x'], ['y'])] }, /says how many rows/)
notProven(
  'a constant as an answer',
  { nodes: [node('Identity', ['w'], ['y'])], constants: [weights('w', [1, 4])] },
  /holds nothing of the rows/,
)

// Products.
notProven(
  'similarities',
  { nodes: [node('Transpose', ['x'], ['t']), node('MatMul', ['x', 't'], ['y'])] },
  /every row with every other/,
)
notProven(
  'a sum over rows',
  { nodes: [node('MatMul', ['ones', 'x'], ['y'])], constants: [weights('ones', [1, 4])] },
  /sums over the batch axis/,
)
notProven(
  'Gemm whose first operand is transposed',
  {
    nodes: [node('Gemm', ['x', 'w'], ['y'], attributes(intAttribute('transA', 1)))],
    constants: [weights('w', [4, 4])],
  },
  /sums over the batch axis/,
)
notProven(
  'Gemm of rows by rows',
  { nodes: [node('Gemm', ['x', 'x'], ['y'], attributes(intAttribute('transB', 1)))] },
  /every row with every other/,
)
notProven(
  'Gemm plus a constant for each row',
  { nodes: [node('Gemm', ['x', 'w', 'c'], ['y'])], constants: [weights('w', [4, 4]), weights('c', [3, 4])] },
  /along the batch axis/,
)
notProven(
  'an equation over rows',
  { nodes: [node('Einsum', ['x', 'x'], ['y'], attributes(textAttribute('equation', 'nd,md->nm')))] },
  /every row with every other/,
)
notProven(
  'an equation that sums rows',
  { nodes: [node('Einsum', ['x'], ['y'], attributes(textAttribute('equation', 'nd->d')))] },
  /sums over the batch axis/,
)
notProven(
  'an equation whose labels are ordered by the alphabet',
  { nodes: [node('Einsum', ['x'], ['y'], attributes(textAttribute('equation', 'za')))] },
  /elsewhere/,
)
notProven(
  'a stack of constants for the rows',
  { inputs: [x(2, 4)], nodes: [node('MatMul', ['x', 'w'], ['y'])], constants: [weights('w', [5, 4, 4])] },
  /along the batch axis/,
)
notProven(
  'a fused product over the batch',
  {
    inputs: [x(4, 4)],
    nodes: [
      node(
        'FusedMatMul',
        ['x', 'x'],
        ['y'],
        microsoft(intAttribute('transBatchA', 1), intAttribute('transA', 1)),
      ),
    ],
  },
  /sums over|every row/,
)
