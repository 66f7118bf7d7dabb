/** Proofs of small graphs, many of which look row-wise but are not: lookups, broadcasting and products. */
import { ELEMENT, int64s, intAttribute, node, value, weights } from '../../helpers/onnx-builder.js'
import { textAttribute } from './random-graphs.js'
import { attributes, axis, int, ints, microsoft, notProven, proven, shaped, x, zero } from './small-graphs.js'

const { float, int64 } = ELEMENT

// Lookups.
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
  'the same row looked up for all',
  { nodes: [node('Gather', ['x', 'zero'], ['y'])], constants: [zero] },
  /looks up along the batch axis/,
)
notProven(
  'a row looked up by a computed position',
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
  /position in the batch/,
)
notProven(
  'the position in the batch as an output',
  {
    outputs: ['y'],
    nodes: [...shaped, node('Squeeze', ['count', 'zero'], ['c']), node('Range', ['z', 'c', 'o'], ['y'])],
    constants: [zero, int('z', 0), int('o', 1)],
  },
  /position in the batch/,
)
notProven(
  'the position counted from one',
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
  'a constant table looked up by position',
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
  /position in the batch/,
)
notProven(
  'coordinates whose second element is the position',
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
  /position in the batch/,
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
  'a constant written over the first rows',
  {
    nodes: [node('ScatterElements', ['x', 'at', 'u'], ['y'], axis(1))],
    constants: [int64s('at', [1, 1], [0]), weights('u', [1, 1])],
  },
  /writes/,
)
notProven(
  'elements of a constant looked up by the position of a row',
  {
    inputs: [value('x', int64, ['n', 4])],
    nodes: [node('GatherElements', ['w', 'x'], ['y'], axis(1))],
    constants: [weights('w', [99, 4])],
  },
  /by the position of a row/,
)

// Broadcasting.
notProven(
  'a constant along the batch',
  { nodes: [node('Add', ['x', 'w'], ['y'])], constants: [weights('w', [3, 4])] },
  /along the batch axis/,
)
notProven(
  'every row with every other',
  {
    inputs: [x(1)],
    nodes: [
      node('Transpose', ['x'], ['t']),
      node('Sub', ['x', 't'], ['d']),
      node('ReduceSum', ['d', 'one'], ['y']),
    ],
    constants: [ints('one', 1)],
  },
  /every row with every other/,
)
notProven(
  'a vector of rows along the columns of rows',
  { inputs: [x(4), value('v', float, ['n'])], nodes: [node('Add', ['x', 'v'], ['y'])] },
  /every row with every other/,
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
  /depend on the number of rows/,
)
notProven(
  'a mask by the number of rows',
  {
    nodes: [...shaped, node('Greater', ['count', 'zero'], ['m']), node('Where', ['m', 'x', 'w'], ['y'])],
    constants: [zero, weights('w', [4])],
  },
  /depend on the number of rows/,
)
notProven(
  'the number of rows as an answer',
  { nodes: [node('Shape', ['x'], ['y'])] },
  /depends on the number of rows/,
)
notProven(
  'a constant output',
  { nodes: [node('Identity', ['w'], ['y'])], constants: [weights('w', [1, 4])] },
  /independent of the rows/,
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
  'an einsum between all rows',
  { nodes: [node('Einsum', ['x', 'x'], ['y'], attributes(textAttribute('equation', 'nd,md->nm')))] },
  /every row with every other/,
)
notProven(
  'an einsum that sums rows',
  { nodes: [node('Einsum', ['x'], ['y'], attributes(textAttribute('equation', 'nd->d')))] },
  /sums over the batch axis/,
)
notProven(
  'an einsum with implicit, alphabetical output labels',
  { nodes: [node('Einsum', ['x'], ['y'], attributes(textAttribute('equation', 'za')))] },
  /other than the first/,
)
notProven(
  'a stack of constants along the batch',
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
