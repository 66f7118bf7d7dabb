/**
 * Proofs of small graphs, many of which look row-wise but are not: axes, shapes, reshapes, concatenating and
 * splitting.
 */
import { intsAttribute } from '../../../bench/models/chain.js'
import { ELEMENT, int64s, intAttribute, node, value, weights } from '../../helpers/onnx-builder.js'
import {
  attributes,
  axis,
  int,
  ints,
  keep,
  notProven,
  perm,
  proven,
  sequence,
  shaped,
  x,
  zero,
} from './small-graphs.js'

const { float, int64 } = ELEMENT

// Softmax: the meaning of the axis changed with opset 13.
proven('softmax along the last axis', { nodes: [node('Softmax', ['x'], ['y'])] })
notProven('softmax along the batch', { nodes: [node('Softmax', ['x'], ['y'], axis(0))] }, /normalises/)
notProven(
  'softmax along the batch, with a negative axis',
  { nodes: [node('Softmax', ['x'], ['y'], axis(-2))] },
  /normalises/,
)
proven('softmax of opset 12 from axis 1', {
  opset: 12,
  nodes: [node('Softmax', ['x'], ['y'])],
  inputs: [x(4, 5)],
})
notProven(
  'softmax of opset 12 over all dimensions, from axis 0',
  { opset: 12, nodes: [node('Softmax', ['x'], ['y'], axis(0))] },
  /normalises/,
)
notProven(
  'softmax of opset 12 from axis 1 with the batch after it',
  {
    opset: 12,
    inputs: [x(4, 5)],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 2, 0)),
      node('Softmax', ['t'], ['u'], axis(1)),
      node('Transpose', ['u'], ['y'], perm(2, 0, 1)),
    ],
  },
  /normalises/,
)
proven('the same of opset 13, where the axis is one', {
  opset: 13,
  inputs: [x(4, 5)],
  nodes: [
    node('Transpose', ['x'], ['t'], perm(1, 2, 0)),
    node('Softmax', ['t'], ['u'], axis(1)),
    node('Transpose', ['u'], ['y'], perm(2, 0, 1)),
  ],
})

// Reductions.
notProven(
  'a reduction without axes is over all axes',
  { nodes: [node('ReduceMean', ['x'], ['y'])] },
  /reduces/,
)
notProven(
  'an empty list of axes is all axes',
  { nodes: [node('ReduceSum', ['x', 'none'], ['y'])], constants: [int64s('none', [0], [])] },
  /reduces/,
)
proven('an empty list of axes that means none', {
  nodes: [node('ReduceSum', ['x', 'none'], ['y'], attributes(intAttribute('noop_with_empty_axes', 1)))],
  constants: [int64s('none', [0], [])],
})
proven('axes as an attribute before opset 18', {
  opset: 13,
  nodes: [node('ReduceMax', ['x'], ['y'], attributes(intsAttribute('axes', [1])))],
})
notProven(
  'negative axes that include the batch',
  {
    opset: 13,
    inputs: [x(4, 5)],
    nodes: [node('ReduceMax', ['x'], ['y'], attributes(intsAttribute('axes', [2, -3])))],
  },
  /reduces/,
)
notProven('the default axis of ArgMax', { nodes: [node('ArgMax', ['x'], ['y'])] }, /reduces/)
proven('a label', { nodes: [node('ArgMax', ['x'], ['y'], attributes(intAttribute('axis', 1), keep(0)))] })
notProven(
  'axes from the data of rows',
  {
    nodes: [
      node('Cast', ['x'], ['a'], attributes(intAttribute('to', int64))),
      node('ReduceSum', ['x', 'a'], ['y']),
    ],
  },
  /takes its axes from the data of rows/,
)
notProven(
  'a cumulative sum whose axis input is the batch',
  { nodes: [node('CumSum', ['x', 'axis'], ['y'])], constants: [int('axis', -2)] },
  /accumulates/,
)
notProven(
  'an axis that is the number of rows',
  { nodes: [...shaped, node('CumSum', ['x', 'count'], ['y'])], constants: [zero] },
  /takes its axis from the number of rows/,
)
notProven(
  'the maximum over all rows combined with every row',
  {
    nodes: [
      node('ReduceMax', ['x', 'zero'], ['most']),
      node('Shape', ['x'], ['shape']),
      node('Expand', ['most', 'shape'], ['all']),
      node('Sub', ['x', 'all'], ['y']),
    ],
    constants: [zero],
  },
  /reduces/,
)

// Reshapes and merged axes.
proven('merged and back, by a constant', {
  inputs: [x(3, 4)],
  nodes: [
    node('Reshape', ['x', 'flat'], ['a']),
    node('MatMul', ['a', 'w'], ['b']),
    node('Reshape', ['b', 'whole'], ['y']),
  ],
  constants: [ints('flat', -1, 4), weights('w', [4, 4]), ints('whole', -1, 3, 4)],
})
notProven(
  'merged and split differently, so that rows contain parts of others',
  {
    inputs: [x('s', 4)],
    nodes: [node('Reshape', ['x', 'flat'], ['a']), node('Reshape', ['a', 'whole'], ['y'])],
    constants: [ints('flat', -1, 4), ints('whole', -1, 3, 4)],
  },
  /reshapes/,
)
notProven(
  'all rows as one',
  {
    nodes: [
      node('Reshape', ['x', 'one'], ['a']),
      node('Softmax', ['a'], ['b']),
      node('Reshape', ['b', 'back'], ['y']),
    ],
    constants: [ints('one', 1, -1), ints('back', -1, 4)],
  },
  /normalises/,
)
notProven(
  'a batch size of one fixed by the export',
  { nodes: [node('Reshape', ['x', 'one'], ['y'])], constants: [ints('one', 1, 4)] },
  /reshapes/,
)
notProven(
  'columns read as rows',
  {
    inputs: [x(4)],
    nodes: [node('Transpose', ['x'], ['t']), node('Reshape', ['t', 'rows'], ['y'])],
    constants: [ints('rows', -1, 4)],
  },
  /reshapes/,
)
notProven(
  'columns read as rows, with an explicit number of rows',
  {
    inputs: [x(4)],
    nodes: [
      ...shaped,
      node('Concat', ['count', 'four'], ['target'], axis(0)),
      node('Transpose', ['x'], ['t']),
      node('Reshape', ['t', 'target'], ['y']),
    ],
    constants: [zero, ints('four', 4)],
  },
  /reshapes/,
)
notProven(
  'columns reshaped to rows, and a softmax over them with the length of the batch',
  {
    inputs: [x(4)],
    nodes: [
      node('Transpose', ['x'], ['t']),
      node('Softmax', ['t'], ['u'], axis(1)),
      node('Transpose', ['u'], ['y']),
    ],
  },
  /normalises/,
)
notProven(
  'steps and rows merged, then split as if rows came first',
  {
    inputs: [x(3, 4)],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
      node('Reshape', ['t', 'flat'], ['a']),
      node('Reshape', ['a', 'whole'], ['y']),
    ],
    constants: [ints('flat', -1, 4), ints('whole', -1, 3, 4)],
  },
  /reshapes/,
)
proven('steps and rows merged, and taken apart as they were', {
  inputs: [x(3, 4)],
  nodes: [
    node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
    node('Reshape', ['t', 'flat'], ['a']),
    node('Shape', ['t'], ['shape']),
    node('Reshape', ['a', 'shape'], ['b']),
    node('Transpose', ['b'], ['y'], perm(1, 0, 2)),
  ],
  constants: [ints('flat', -1, 4)],
})
notProven(
  'two inputs side by side in blocks of different sizes',
  {
    inputs: [x(3, 4), value('z', float, ['n', 's', 4])],
    nodes: [
      node('Reshape', ['x', 'flat'], ['a']),
      node('Reshape', ['z', 'flat'], ['b']),
      node('Add', ['a', 'b'], ['c']),
      node('Reshape', ['c', 'whole'], ['y']),
    ],
    constants: [ints('flat', -1, 4), ints('whole', -1, 3, 4)],
  },
  /laid out in different ways/,
)
notProven(
  'a size from another input, which may be 0',
  {
    inputs: [x(4), value('z', float, ['n', 's'])],
    nodes: [
      node('Shape', ['z'], ['other']),
      node('Gather', ['other', 'one'], ['s'], axis(0)),
      node('Concat', ['rest', 's', 'rest2'], ['target'], axis(0)),
      node('Reshape', ['x', 'target'], ['y']),
    ],
    constants: [ints('one', 1), ints('rest', 0), ints('rest2', -1)],
  },
  /reshapes/,
)
notProven(
  'a shape from the data',
  {
    nodes: [
      node('Cast', ['x'], ['i'], attributes(intAttribute('to', int64))),
      node('Reshape', ['x', 'i'], ['y']),
    ],
  },
  /takes its shape from the data of rows/,
)
notProven(
  'all dimensions of size 1 squeezed, including the batch for one row',
  { inputs: [x(1)], nodes: [node('Squeeze', ['x'], ['y'])] },
  /removes/,
)
notProven(
  'an empty list of axes to squeeze is every axis',
  { inputs: [x(1)], nodes: [node('Squeeze', ['x', 'none'], ['y'])], constants: [int64s('none', [0], [])] },
  /removes/,
)
notProven(
  'a batch axis flattened away',
  {
    nodes: [
      node('Flatten', ['x'], ['f'], axis(0)),
      node('Softmax', ['f'], ['g'], axis(1)),
      node('Reshape', ['g', 'back'], ['y']),
    ],
    constants: [ints('back', -1, 4)],
  },
  /normalises/,
)
proven('sizes that grow without end', {
  inputs: [x('s')],
  nodes: [
    node('Shape', ['x'], ['s0'], attributes(intAttribute('start', 1))),
    ...Array.from({ length: 60 }, (_, i) => node('Mul', [`s${i}`, `s${i}`], [`s${i + 1}`])),
    node('Expand', ['x', 's60'], ['y']),
  ],
})

// Concatenating and splitting.
notProven(
  'rows concatenated with rows along the batch',
  { nodes: [node('Concat', ['x', 'x'], ['y'], axis(0))] },
  /joins tensors along the batch axis/,
)
notProven(
  'rows concatenated, then the second half shifted by one',
  {
    nodes: [
      node('Concat', ['x', 'x'], ['twice'], axis(0)),
      node('Slice', ['twice', 'one', 'end', 'zero'], ['y']),
    ],
    constants: [ints('one', 1), ints('end', -1), zero],
  },
  /joins/,
)
notProven(
  'a constant row concatenated with rows',
  { nodes: [node('Concat', ['x', 'c'], ['y'], axis(1))], constants: [weights('c', [1, 2])] },
  /joins rows to a constant/,
)
notProven(
  'rows in reverse',
  {
    nodes: [node('Slice', ['x', 'last', 'first', 'zero', 'back'], ['y'])],
    constants: [ints('last', -1), ints('first', -(2 ** 31)), zero, ints('back', -1)],
  },
  /takes some of the rows/,
)
notProven(
  'every second row',
  {
    nodes: [node('Slice', ['x', 'zero', 'end', 'zero', 'two'], ['y'])],
    constants: [zero, ints('end', 2 ** 31 - 1), ints('two', 2)],
  },
  /takes some of the rows/,
)
notProven(
  'the first thousand rows, which are all rows of a small batch',
  { nodes: [node('Slice', ['x', 'zero', 'end', 'zero'], ['y'])], constants: [zero, ints('end', 1000)] },
  /takes some of the rows/,
)
proven('all rows, to the end', {
  nodes: [node('Slice', ['x', 'zero', 'end', 'zero'], ['y'])],
  constants: [zero, int64s('end', [1], [Number.MAX_SAFE_INTEGER])],
})
proven('all rows, to their number', {
  nodes: [...shaped, node('Slice', ['x', 'zero', 'count', 'zero'], ['y'])],
  constants: [zero],
})
notProven(
  'as many columns as there are rows',
  {
    nodes: [...shaped, node('Slice', ['x', 'zero', 'count', 'one'], ['y'])],
    constants: [zero, ints('one', 1)],
  },
  /from the number of rows/,
)
notProven(
  'rows of a position table taken by batch size',
  {
    nodes: [
      ...shaped,
      node('Slice', ['table', 'zero', 'count', 'zero'], ['p']),
      node('Add', ['x', 'p'], ['y']),
    ],
    constants: [zero, weights('table', [99, 4])],
  },
  /from the number of rows/,
)
notProven(
  'a row of zeros before the first',
  { nodes: [node('Pad', ['x', 'pads'], ['y'])], constants: [ints('pads', 1, 0, -1, 0)] },
  /pads/,
)
notProven('rows cut apart', { nodes: [node('Split', ['x'], ['y', 'z'], axis(0))] }, /splits/)
notProven(
  'a reversed sequence whose time axis is the batch',
  {
    inputs: [sequence],
    nodes: [
      node(
        'ReverseSequence',
        ['x', 'l'],
        ['y'],
        attributes(intAttribute('batch_axis', 1), intAttribute('time_axis', 0)),
      ),
    ],
    constants: [ints('l', 2, 2)],
  },
  /reverses/,
)
