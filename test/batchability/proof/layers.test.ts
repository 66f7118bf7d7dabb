/**
 * Proofs of small graphs, many of which look row-wise but are not: images, recurrent layers, traditional
 * machine learning, quantisation and attention.
 */
import { floatsAttribute, intsAttribute } from '../../../bench/models/chain.js'
import { ELEMENT, floats, int64s, intAttribute, node, value, weights } from '../../helpers/onnx-builder.js'
import { textAttribute } from './random-graphs.js'
import {
  attributes,
  axis,
  image,
  ints,
  keep,
  microsoft,
  ml,
  notProven,
  perm,
  proven,
  sequence,
  x,
  zero,
} from './small-graphs.js'

const { float, int64, string } = ELEMENT

// Images.
const kernel = weights('w', [3, 3, 3, 3])
proven('a convolution', { inputs: [image], nodes: [node('Conv', ['x', 'w'], ['y'])], constants: [kernel] })
notProven(
  'rows as the height of one image',
  {
    inputs: [x(3, 8)],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
      node('Unsqueeze', ['t', 'zero'], ['i']),
      node('Conv', ['i', 'w'], ['y']),
    ],
    constants: [zero, kernel],
  },
  /works on images/,
)
notProven(
  'rows merged into the height of one image',
  {
    inputs: [image],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2, 3)),
      node('Reshape', ['t', 'flat'], ['i']),
      node('Conv', ['i', 'w'], ['y']),
    ],
    constants: [kernel, ints('flat', 1, 3, -1, 8)],
  },
  /works on images/,
)
notProven(
  'a kernel that depends on the data',
  { inputs: [image, value('w', float, [3, 3, 3, 3])], nodes: [node('Conv', ['x', 'w'], ['y'])] },
  /.*/,
)
notProven(
  'indices of the maxima, relative to all images',
  {
    inputs: [image],
    outputs: ['y', 'at'],
    nodes: [node('MaxPool', ['x'], ['y', 'at'], attributes(intsAttribute('kernel_shape', [2, 2])))],
  },
  /without a rule/,
)
notProven(
  'normalised over the batch, as channels',
  {
    inputs: [image],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2, 3)),
      node('InstanceNormalization', ['t', 's', 's'], ['y']),
    ],
    constants: [weights('s', [3])],
  },
  /first dimension/,
)
notProven(
  'batch statistics in training',
  {
    inputs: [image],
    opset: 15,
    nodes: [
      node(
        'BatchNormalization',
        ['x', 's', 's', 's', 's'],
        ['y', 'm', 'v'],
        attributes(intAttribute('training_mode', 1)),
      ),
    ],
    constants: [weights('s', [3])],
  },
  /training/,
)
notProven(
  'twice as many images',
  {
    inputs: [image],
    nodes: [node('Resize', ['x', '', 'scales'], ['y'])],
    constants: [floats('scales', [4], [2, 1, 1, 1])],
  },
  /resizes the batch axis/,
)
notProven(
  'a crop that moves along the batch',
  {
    inputs: [image],
    nodes: [
      node(
        'Resize',
        ['x', 'roi', 'scales'],
        ['y'],
        attributes(textAttribute('coordinate_transformation_mode', 'tf_crop_and_resize')),
      ),
    ],
    constants: [floats('roi', [8], [0.5, 0, 0, 0, 1, 1, 1, 1]), floats('scales', [4], [1, 1, 2, 2])],
  },
  /resizes the batch axis/,
)
proven('images flattened by a constant, as tutorials do', {
  inputs: [image],
  nodes: [
    node('Conv', ['x', 'w'], ['c']),
    node(
      'MaxPool',
      ['c'],
      ['p'],
      attributes(intsAttribute('kernel_shape', [2, 2]), intsAttribute('strides', [2, 2])),
    ),
    node('Reshape', ['p', 'flat'], ['y']),
  ],
  constants: [kernel, ints('flat', -1, 27)],
})

// Recurrent layers.
const gru = attributes(intAttribute('hidden_size', 4))
const gates = [weights('w', [1, 12, 4]), weights('r', [1, 12, 4])]
proven('sequences side by side', {
  inputs: [sequence],
  nodes: [
    node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
    node('GRU', ['t', 'w', 'r'], ['o', 'h'], gru),
    node('Squeeze', ['h', 'zero'], ['y']),
  ],
  constants: [...gates, zero],
})
notProven(
  'rows as steps',
  {
    inputs: [sequence],
    nodes: [node('GRU', ['x', 'w', 'r'], ['o', 'h'], gru), node('Squeeze', ['h', 'zero'], ['y'])],
    constants: [...gates, zero],
  },
  /steps of a sequence/,
)
notProven(
  'a state of all rows',
  {
    inputs: [sequence],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
      node('ReduceMax', ['t', 'axes'], ['m'], attributes(keep(1))),
      node('GRU', ['t', 'w', 'r', '', '', 'm'], ['o', 'h'], gru),
      node('Squeeze', ['h', 'zero'], ['y']),
    ],
    constants: [...gates, zero, ints('axes', 0, 1)],
  },
  /reduces/,
)
notProven(
  'a constant initial state',
  {
    inputs: [sequence],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
      node('GRU', ['t', 'w', 'r', '', '', 'h0'], ['o', 'h'], gru),
      node('Squeeze', ['h', 'zero'], ['y']),
    ],
    constants: [...gates, zero, weights('h0', [1, 1, 4])],
  },
  /initial states/,
)

// Traditional machine learning: a one-dimensional tensor is one sample.
const scaler = ml(floatsAttribute('offset', [0]), floatsAttribute('scale', [2]))
proven('samples of four features', {
  nodes: [node('Normalizer', ['x'], ['y'], ml(textAttribute('norm', 'L2')))],
})
notProven(
  'rows of one number, normalised as one sample',
  {
    inputs: [value('x', float, ['n'])],
    nodes: [node('Normalizer', ['x'], ['y'], ml(textAttribute('norm', 'L2')))],
  },
  /sample for each row/,
)
notProven(
  'rows of one number, scaled as one sample',
  { inputs: [value('x', float, ['n'])], nodes: [node('Scaler', ['x'], ['y'], scaler)] },
  /sample for each row/,
)
proven('a category of each row', {
  inputs: [value('x', string, ['n', 1])],
  nodes: [node('LabelEncoder', ['x'], ['y'], ml())],
})

// Quantised.
proven('static scales', {
  nodes: [node('QuantizeLinear', ['x', 's'], ['q']), node('DequantizeLinear', ['q', 's'], ['y'])],
  constants: [floats('s', [], [0.1])],
})
notProven(
  'a scale for each row of the batch',
  { nodes: [node('QuantizeLinear', ['x', 's'], ['y'], axis(0))], constants: [weights('s', [3])] },
  /scale for each row/,
)
notProven(
  'one scale from all rows',
  {
    nodes: [
      node('DynamicQuantizeLinear', ['x'], ['q', 's', 'z']),
      node('DequantizeLinear', ['q', 's', 'z'], ['y']),
    ],
  },
  /one scale from all rows/,
)
notProven(
  'one scale from all rows, inside a product',
  {
    nodes: [node('DynamicQuantizeMatMul', ['x', 'w', 's'], ['y'], microsoft())],
    constants: [weights('w', [4, 4]), floats('s', [], [1])],
  },
  /one scale from all rows/,
)

// Attention.
proven('fused attention with a mask', {
  inputs: [x('s', 8), value('m', ELEMENT.int64, ['n', 's'])],
  nodes: [node('Attention', ['x', 'w', 'b', 'm'], ['y'], microsoft(intAttribute('num_heads', 2)))],
  constants: [weights('w', [8, 24]), weights('b', [24])],
})
notProven(
  'fused attention whose rows are the sequence',
  {
    inputs: [x('s', 8)],
    nodes: [
      node('Transpose', ['x'], ['t'], perm(1, 0, 2)),
      node('Attention', ['t', 'w', 'b'], ['u'], microsoft(intAttribute('num_heads', 2))),
      node('Transpose', ['u'], ['y'], perm(1, 0, 2)),
    ],
    constants: [weights('w', [8, 24]), weights('b', [24])],
  },
  /attends across rows/,
)
notProven(
  'fused attention with one mask for the first rows',
  {
    inputs: [x('s', 8)],
    nodes: [node('Attention', ['x', 'w', 'b', 'm'], ['y'], microsoft(intAttribute('num_heads', 2)))],
    constants: [weights('w', [8, 24]), weights('b', [24]), int64s('m', [1, 1], [1])],
  },
  /do not follow the batch/,
)
proven('embedded, normalised and skipped, as transformers are compiled', {
  inputs: [value('x', int64, ['n', 's']), value('types', int64, ['n', 's'])],
  nodes: [
    node('EmbedLayerNormalization', ['x', 'types', 'words', 'places', 'kinds', 'g', 'g'], ['e'], microsoft()),
    node('Attention', ['e', 'w', 'b'], ['a'], microsoft(intAttribute('num_heads', 2))),
    node(
      'MatMulNBits',
      ['a', 'packed', 'scales'],
      ['d'],
      microsoft(
        intAttribute('N', 8),
        intAttribute('K', 8),
        intAttribute('bits', 4),
        intAttribute('block_size', 16),
      ),
    ),
    node('SkipLayerNormalization', ['d', 'e', 'g', 'g'], ['y'], microsoft()),
  ],
  constants: [
    ...['words', 'places', 'kinds'].map((name) => weights(name, [16, 8])),
    weights('g', [8]),
    weights('w', [8, 24]),
    weights('b', [24]),
    weights('packed', [8, 1, 8]),
    weights('scales', [8]),
  ],
})
