/** Blocks in which rows influence each other. */
import { intsAttribute } from '../../../bench/models/chain.js'
import {
  ELEMENT,
  floats,
  graph,
  graphAttribute,
  intAttribute,
  node,
  value,
} from '../../helpers/onnx-builder.js'
import { type Block, type GraphBuilder, textAttribute } from './random-graphs.js'

const axis = (one: number) => [intAttribute('axis', one)]
const rank = (dims: readonly number[]) => dims.length + 1
const END = 2 ** 31 - 1

/** Moves the batch of [n, ...dims] to the last axis, and back. */
function batchLast(
  b: GraphBuilder,
  x: string,
  dims: readonly number[],
  make: (turned: string) => string,
): string {
  const order = [...Array(rank(dims)).keys()]
  const turned = b.add('Transpose', [x], b.perm([...order.slice(1), 0]))
  return b.add('Transpose', [make(turned)], b.perm([order.length - 1, ...order.slice(0, -1)]))
}

/** [n, ...dims] as [n, size]. */
function flat(b: GraphBuilder, x: string): string {
  return b.add('Flatten', [x], axis(1))
}

function back(b: GraphBuilder, y: string, x: string): string {
  return b.add('Reshape', [y, b.add('Shape', [x])])
}

/** [n, size] as one image [1, size, n] around `make`. */
function asTime(b: GraphBuilder, x: string, make: (image: string) => string): string {
  const image = b.add('Unsqueeze', [b.add('Transpose', [flat(b, x)], b.perm([1, 0])), b.ints([0])])
  return back(b, b.add('Transpose', [b.add('Squeeze', [make(image), b.ints([0])])], b.perm([1, 0])), x)
}

const size = (dims: readonly number[]) => dims.reduce((whole, one) => whole * one, 1)

function branch(op: string, inputs: string[]): ReturnType<typeof graph> {
  const out = `branch_${op}_${inputs.join('_')}`
  return graph({ input: [], output: [value(out, ELEMENT.float, null)], node: [node(op, inputs, [out])] })
}

const count = (b: GraphBuilder, x: string) => b.add('Squeeze', [b.rowsOf(x), b.ints([0])])

export const MIXING: Readonly<Record<string, Block>> = {
  'mean over rows': (b, x) => b.add('Sub', [x, b.add('ReduceMean', [x, b.ints([0])])]),
  'a floor below the largest of all': (b, x) =>
    b.add('Max', [x, b.add('Sub', [b.add('ReduceMax', [x], [intAttribute('keepdims', 0)]), b.number(8)])]),
  'scaled where one row is large': (b, x) => {
    const isLarge = b.add('Greater', [b.add('ReduceMax', [x]), b.number(16)])
    return b.add('Div', [x, b.add('Where', [isLarge, b.number(255), b.number(1)])])
  },
  'the largest of all, stretched': (b, x) =>
    b.add('Add', [x, b.add('Expand', [b.add('ReduceMax', [x, b.ints([0])]), b.add('Shape', [x])])]),
  'softmax over rows': (b, x) => b.add('Softmax', [x], axis(0)),
  'softmax over everything flat': (b, x) =>
    back(b, b.add('Softmax', [b.add('Reshape', [x, b.ints([1, -1])])], axis(1)), x),
  'softmax over rows that stand last': (b, x, dims) =>
    batchLast(b, x, dims, (turned) => b.add('Softmax', [turned], axis(-1))),
  'sum up to the row': (b, x) => b.add('CumSum', [x, b.int(0)]),
  'sum up to the row, from behind': (b, x, dims) => b.add('CumSum', [x, b.int(-rank(dims))]),
  sorted: (b, x) => b.addMany('TopK', [x, b.rowsOf(x)], { attribute: axis(0), outputs: 2 })[0] as string,
  'the row before': (b, x) => {
    const first = b.add('Slice', [x, b.ints([0]), b.ints([1]), b.ints([0])])
    const rest = b.add('Slice', [x, b.ints([1]), b.ints([END]), b.ints([0])])
    return b.add('Concat', [rest, first], axis(0))
  },
  'the row before, by padding': (b, x, dims) => {
    const pads = Array(rank(dims) * 2).fill(0)
    pads[0] = 1
    return b.add('Slice', [b.add('Pad', [x, b.ints(pads)]), b.ints([0]), b.ints([-1]), b.ints([0])])
  },
  reversed: (b, x) => b.add('Slice', [x, b.ints([-1]), b.ints([-END]), b.ints([0]), b.ints([-1])]),
  'looked up in another order': (b, x) => {
    const places = b.add('Range', [b.int(0), count(b, x), b.int(1)])
    const last = b.add('Sub', [count(b, x), b.int(1)])
    return b.add('Gather', [x, b.add('Sub', [last, places])], axis(0))
  },
  'looked up by place, shifted': (b, x) => {
    const places = b.add('Range', [b.int(0), count(b, x), b.int(1)])
    const next = b.add('Mod', [b.add('Add', [places, b.int(1)]), count(b, x)])
    return b.add('GatherND', [x, b.add('Unsqueeze', [next, b.ints([1])])])
  },
  'the first row for all': (b, x) => b.add('Sub', [x, b.add('Gather', [x, b.ints([0])], axis(0))]),
  'its place in the batch': (b, x, dims) => {
    const places = b.add('Cast', [b.add('Range', [b.int(0), count(b, x), b.int(1)])], [intAttribute('to', 1)])
    return b.add('Add', [x, b.add('Unsqueeze', [places, b.ints(dims.map((_, i) => i + 1))])])
  },
  'the number of rows': (b, x) => b.add('Div', [x, b.add('Cast', [count(b, x)], [intAttribute('to', 1)])]),
  'the number of rows in a constant': (b, x) => {
    const table = b.weight([8])
    return b.add('Add', [x, b.add('Gather', [table, b.add('Sub', [count(b, x), b.int(1)])])])
  },
  similarities: (b, x) => {
    const y = flat(b, x)
    const scores = b.add('MatMul', [y, b.add('Transpose', [y], b.perm([1, 0]))])
    return back(b, b.add('MatMul', [b.add('Softmax', [scores], axis(1)), y]), x)
  },
  'similarities, by a fused product': (b, x) => {
    const y = flat(b, x)
    const scores = b.add('Gemm', [y, y], [intAttribute('transB', 1)])
    return back(b, b.add('Gemm', [scores, y]), x)
  },
  'similarities, by an equation': (b, x) => {
    const y = flat(b, x)
    const scores = b.add('Einsum', [y, y], [textAttribute('equation', 'nd,md->nm')])
    return back(b, b.add('Einsum', [scores, y], [textAttribute('equation', 'nm,md->nd')]), x)
  },
  'products of all rows': (b, x) => {
    const y = flat(b, x)
    const gram = b.add('MatMul', [b.add('Transpose', [y], b.perm([1, 0])), y])
    return back(b, b.add('MatMul', [y, gram]), x)
  },
  'each row with each, by broadcasting': (b, x) => {
    const y = b.add('ReduceMean', [flat(b, x), b.ints([1])])
    const pairs = b.add('Sub', [y, b.add('Transpose', [y], b.perm([1, 0]))])
    const sums = b.add('ReduceSum', [b.add('Abs', [pairs]), b.ints([1])])
    return back(b, b.add('Add', [flat(b, x), sums]), x)
  },
  'a convolution over rows': (b, x) =>
    asTime(b, x, (image) => {
      const kernel = `blur${b.random()}`
      b.initializers.set(kernel, floats(kernel, [1, 1, 3], [1, 2, 1]))
      const each = b.add('Transpose', [image], b.perm([1, 0, 2]))
      const pads = [intsAttribute('pads', [1, 1]), intsAttribute('kernel_shape', [3])]
      return b.add('Transpose', [b.add('Conv', [each, kernel], pads)], b.perm([1, 0, 2]))
    }),
  'a pool over rows': (b, x) =>
    asTime(b, x, (image) =>
      b.add('MaxPool', [image], [intsAttribute('pads', [1, 1]), intsAttribute('kernel_shape', [3])]),
    ),
  'normalised over rows as an image': (b, x, dims) =>
    asTime(b, x, (image) =>
      b.add('InstanceNormalization', [image, b.weight([size(dims)]), b.weight([size(dims)])]),
    ),
  'a layer norm over all': (b, x) => {
    const whole = b.add('Reshape', [x, b.ints([1, -1])])
    return back(b, b.add('MeanVarianceNormalization', [whole], [intsAttribute('axes', [1])]), x)
  },
  'mean and variance of the default axes': (b, x, dims) =>
    dims.length === 3 ? b.add('MeanVarianceNormalization', [x]) : b.add('LpNormalization', [x], axis(0)),
  'rows as steps': (b, x, dims) => {
    const width = size(dims)
    const steps = b.add('Unsqueeze', [flat(b, x), b.ints([1])])
    const out = b.add(
      'GRU',
      [steps, b.weight([1, 3 * width, width]), b.weight([1, 3 * width, width])],
      [intAttribute('hidden_size', width)],
    )
    return back(b, out, x)
  },
  'one scale for all': (b, x) => {
    const [q, scale, zero] = b.addMany('DynamicQuantizeLinear', [x], { outputs: 3 }) as [
      string,
      string,
      string,
    ]
    return b.add('DequantizeLinear', [q, scale, zero])
  },
  'a branch on the data': (b, x) => {
    const isLarge = b.add('Greater', [b.add('ReduceMax', [x], [intAttribute('keepdims', 0)]), b.number(1)])
    return b.add(
      'If',
      [isLarge],
      [graphAttribute('then_branch', branch('Tanh', [x])), graphAttribute('else_branch', branch('Neg', [x]))],
    )
  },
  'a branch on the number of rows': (b, x) => {
    const isMany = b.add('Greater', [count(b, x), b.int(1)])
    return b.add(
      'If',
      [isMany],
      [graphAttribute('then_branch', branch('Tanh', [x])), graphAttribute('else_branch', branch('Neg', [x]))],
    )
  },
  'a branch that mixes': (b, x) => {
    const flag = `on${b.random()}`
    b.initializers.set(flag, {
      ...floats(flag, [], [0]),
      dataType: ELEMENT.bool,
      rawData: new Uint8Array([1]),
    })
    const mixing = branch('Softmax', [x])
    mixing.node[0]?.attribute.push(...axis(0))
    return b.add(
      'If',
      [flag],
      [graphAttribute('then_branch', mixing), graphAttribute('else_branch', branch('Neg', [x]))],
    )
  },
  'as many rounds as rows': (b, x) => {
    const prefix = `r${b.random()}`
    const body = graph({
      input: [
        value(`${prefix}i`, ELEMENT.int64, null),
        value(`${prefix}g`, ELEMENT.bool, null),
        value(`${prefix}s`, ELEMENT.float, null),
      ],
      output: [value(`${prefix}h`, ELEMENT.bool, null), value(`${prefix}t`, ELEMENT.float, null)],
      node: [node('Identity', [`${prefix}g`], [`${prefix}h`]), node('Tanh', [`${prefix}s`], [`${prefix}t`])],
    })
    return b.add('Loop', [count(b, x), '', x], [graphAttribute('body', body)])
  },
  'a loop that carries a mixture': (b, x) => {
    const prefix = `m${b.random()}`
    const body = graph({
      input: [
        value(`${prefix}i`, ELEMENT.int64, null),
        value(`${prefix}g`, ELEMENT.bool, null),
        value(`${prefix}s`, ELEMENT.float, null),
        value(`${prefix}u`, ELEMENT.float, null),
      ],
      output: [
        value(`${prefix}h`, ELEMENT.bool, null),
        value(`${prefix}t`, ELEMENT.float, null),
        value(`${prefix}v`, ELEMENT.float, null),
      ],
      // In the first iteration the second state is a constant; in the next it is the maximum over all rows.
      node: [
        node('Identity', [`${prefix}g`], [`${prefix}h`]),
        node('Add', [`${prefix}s`, `${prefix}u`], [`${prefix}t`]),
        node('ReduceMax', [`${prefix}s`], [`${prefix}v`], { attribute: [intAttribute('keepdims', 0)] }),
      ],
    })
    return b.addMany('Loop', [b.int(3), '', x, b.number(0)], {
      attribute: [graphAttribute('body', body)],
      outputs: 2,
    })[0] as string
  },
  'a scan over rows': (b, x) => {
    const prefix = `c${b.random()}`
    const body = graph({
      input: [value(`${prefix}s`, ELEMENT.float, null), value(`${prefix}x`, ELEMENT.float, null)],
      output: [value(`${prefix}t`, ELEMENT.float, null), value(`${prefix}y`, ELEMENT.float, null)],
      node: [
        node('Add', [`${prefix}s`, `${prefix}x`], [`${prefix}t`]),
        node('Tanh', [`${prefix}t`], [`${prefix}y`]),
      ],
    })
    const start = b.weight([1])
    const scanned = b.addMany('Scan', [start, flat(b, x)], {
      attribute: [intAttribute('num_scan_inputs', 1), graphAttribute('body', body)],
      outputs: 2,
    })
    return back(b, scanned[1] as string, x)
  },
  'a grid of rows, blurred': (b, x) => {
    const image = b.add('Unsqueeze', [flat(b, x), b.ints([0, 1])])
    const pads = [intsAttribute('pads', [1, 1, 1, 1]), intsAttribute('kernel_shape', [3, 3])]
    return back(b, b.add('AveragePool', [image], pads), x)
  },
  'rows resized and back': (b, x) => {
    const image = b.add('Unsqueeze', [flat(b, x), b.ints([0, 1])])
    const scales = 'twice_the_rows'
    b.initializers.set(scales, floats(scales, [4], [1, 1, 2, 1]))
    const large = b.add('Resize', [image, '', scales], [textAttribute('mode', 'linear')])
    const cut = b.add('Slice', [large, b.ints([0]), b.ints([END]), b.ints([2]), b.ints([2])])
    return back(b, cut, x)
  },
  'rows and columns exchanged': (b, x) => {
    const turned = b.add('Transpose', [flat(b, x)], b.perm([1, 0]))
    return back(b, turned, x)
  },
  'columns read row by row': (b, x, dims) => {
    // [size, n] reshaped to [n, size]: the sizes match, but the rows are mixed.
    const turned = b.add('Transpose', [flat(b, x)], b.perm([1, 0]))
    return b.add('Reshape', [turned, b.ints([-1, ...dims])])
  },
  'written over the first row': (b, x) => {
    const first = b.add('Slice', [x, b.ints([-1]), b.ints([END]), b.ints([0])])
    return b.add('ScatterND', [x, b.ints([0], [1, 1]), first])
  },
  'a weight from all rows': (b, x) => {
    const y = flat(b, x)
    const weights = b.add('ReduceMean', [y, b.ints([0])], [intAttribute('keepdims', 0)])
    return back(b, b.add('Mul', [y, weights]), x)
  },
  'the rows of a lower triangle': (b, x) =>
    back(b, b.add('Trilu', [flat(b, x)], [intAttribute('upper', 0)]), x),
  'a mean that an empty list of axes takes over all': (b, x) => {
    const none = b.ints([], [0])
    return b.add('Sub', [x, b.add('ReduceMean', [x, none])])
  },
  'joined to itself and cut': (b, x) => {
    const twice = b.add('Concat', [x, x], axis(0))
    const rows = b.rowsOf(x)
    const from = b.add('Sub', [rows, b.ints([1])])
    const to = b.add('Add', [from, rows])
    return b.add('Slice', [twice, from, to, b.ints([0])])
  },
  'statistics of the batch in training': (b, x, dims) => {
    if (dims.length < 2) return b.add('Softmax', [x], axis(-2))
    const channels = dims[0] as number
    const ones = `train_ones${channels}`
    b.initializers.set(ones, floats(ones, [channels], Array(channels).fill(1)))
    return b.addMany('BatchNormalization', [x, ones, b.weight([channels]), b.weight([channels]), ones], {
      attribute: [intAttribute('training_mode', 1)],
      outputs: 3,
    })[0] as string
  },
  'random numbers': (b, x) => b.add('Add', [x, b.add('RandomNormalLike', [x])]),
}
