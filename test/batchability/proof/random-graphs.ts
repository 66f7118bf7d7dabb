/**
 * Random graphs built from blocks that map a batch of rows [n, ...] to one of the same shape. Row-wise blocks
 * use reshapes, merged axes, transposes and subgraphs inside. Mixing blocks let rows influence each other in
 * as many ways.
 */
import { intsAttribute, stringsAttribute } from '../../../bench/models/chain.js'
import type { AttributeProto, GraphProto, NodeProto, TensorProto } from '../../../src/onnx/onnx_pb.js'
import {
  ELEMENT,
  floats,
  graph,
  graphAttribute,
  int64s,
  intAttribute,
  node,
  value,
} from '../../helpers/onnx-builder.js'

export type Random = () => number

export class GraphBuilder {
  readonly nodes: NodeProto[] = []
  readonly initializers = new Map<string, TensorProto>()
  readonly random: Random
  readonly #prefix: string
  #count = 0

  constructor(random: Random, prefix = '') {
    this.random = random
    this.#prefix = prefix
  }

  pick<T>(some: readonly T[]): T {
    return some[Math.floor(this.random() * some.length)] as T
  }

  add(opType: string, inputs: string[], attribute: AttributeProto[] = [], domain?: string): string {
    return this.addMany(opType, inputs, {
      attribute,
      outputs: 1,
      ...(domain === undefined ? {} : { domain }),
    })[0] as string
  }

  addMany(
    opType: string,
    inputs: string[],
    { attribute = [], outputs, domain }: { attribute?: AttributeProto[]; outputs: number; domain?: string },
  ): string[] {
    const names = Array.from({ length: outputs }, () => `${this.#prefix}t${this.#count++}`)
    this.nodes.push(node(opType, inputs, names, { attribute, ...(domain === undefined ? {} : { domain }) }))
    return names
  }

  ints(values: readonly number[], shape: readonly number[] = [values.length]): string {
    const name = `i_${values.join('_')}_${shape.join('x')}`
    this.initializers.set(name, int64s(name, shape, values))
    return name
  }

  int(single: number): string {
    return this.ints([single], [])
  }

  weight(shape: readonly number[]): string {
    const name = `${this.#prefix}w${this.#count++}`
    const size = shape.reduce((product, one) => product * one, 1)
    const scale = 1 / Math.sqrt(Math.max(1, shape[shape.length - 2] ?? 1))
    this.initializers.set(
      name,
      floats(
        name,
        shape,
        Array.from({ length: size }, () => (this.random() * 2 - 1) * scale),
      ),
    )
    return name
  }

  number(single: number): string {
    const name = `f_${single}`
    this.initializers.set(name, floats(name, [], [single]))
    return name
  }

  /** The first dimension of a tensor as a one-element vector. */
  rowsOf(x: string): string {
    return this.add('Gather', [this.add('Shape', [x]), this.ints([0])], [intAttribute('axis', 0)])
  }

  /** A shape vector with the number of rows of `x` and the given dimensions. */
  shapeWith(x: string, before: readonly number[], behind: readonly number[]): string {
    const parts = [this.rowsOf(x), this.ints(behind)]
    if (before.length > 0) parts.unshift(this.ints(before))
    return this.add('Concat', parts, [intAttribute('axis', 0)])
  }

  perm(order: readonly number[]): AttributeProto[] {
    return [intsAttribute('perm', order)]
  }
}

/** A block for a tensor [n, ...dims]; null if it does not apply to such a tensor. */
export type Block = (b: GraphBuilder, x: string, dims: readonly number[]) => string | null

const axisAttribute = (axis: number) => [intAttribute('axis', axis)]
const product = (dims: readonly number[]) => dims.reduce((whole, one) => whole * one, 1)

function anyAxis(b: GraphBuilder, dims: readonly number[]): number {
  return 1 + Math.floor(b.random() * dims.length)
}

function residual(b: GraphBuilder, x: string, y: string): string {
  return b.random() < 0.5 ? y : b.add('Add', [x, y])
}

/** Reshapes back to [n, ...dims], with a constant or with the shape of the block's input. */
function restore(b: GraphBuilder, y: string, like: string, dims: readonly number[]): string {
  const way = Math.floor(b.random() * 4)
  if (way === 0) return b.add('Reshape', [y, b.ints([-1, ...dims])])
  if (way === 1) return b.add('Reshape', [y, b.add('Shape', [like])])
  if (way === 2) return b.add('Reshape', [y, b.shapeWith(like, [], dims)])
  return b.add('Reshape', [y, b.shapeWith(like, [], [...dims.slice(0, -1), -1])])
}

interface Inner {
  readonly inputs: readonly (readonly [name: string, type: number, shape?: readonly (number | string)[]])[]
  readonly outputs: readonly (readonly [name: string, type: number, shape?: readonly (number | string)[]])[]
}

/** A graph with unique names. */
function subgraph(make: (inner: GraphBuilder, own: string) => Inner, b: GraphBuilder): GraphProto {
  const own = `s${Math.floor(b.random() * 1e9)}_`
  const inner = new GraphBuilder(b.random, own)
  const { inputs, outputs } = make(inner, own)
  return graph({
    input: inputs.map(([name, type, shape]) => value(name, type, shape ?? null)),
    output: outputs.map(([name, type, shape]) => value(name, type, shape ?? null)),
    node: inner.nodes,
    initializer: [...inner.initializers.values()],
  })
}

export const ROW_WISE: Readonly<Record<string, Block>> = {
  unary: (b, x) =>
    b.add(b.pick(['Relu', 'Tanh', 'Sigmoid', 'Abs', 'Neg', 'Softsign', 'Erf', 'Atan', 'Sin', 'Elu']), [x]),
  cast: (b, x) => b.add('Cast', [b.add('Cast', [x], [intAttribute('to', 11)])], [intAttribute('to', 1)]),
  clip: (b, x) => b.add('Clip', [x, b.number(-3), b.number(3)]),
  'binary with a constant': (b, x, dims) => {
    const shape = b.pick([[], [1], [dims.at(-1) as number], [1, ...dims], dims])
    return b.add(
      b.pick(['Add', 'Mul', 'Sub', 'Max', 'Min']),
      b.random() < 0.5 ? [x, b.weight(shape)] : [b.weight(shape), x],
    )
  },
  'binary with itself': (b, x) => b.add(b.pick(['Add', 'Mul', 'Max']), [x, b.add('Tanh', [x])]),
  where: (b, x) => b.add('Where', [b.add('Greater', [x, b.number(0)]), x, b.add('Mul', [x, b.number(0.1)])]),
  'matrix product': (b, x, dims) =>
    residual(b, x, b.add('MatMul', [x, b.weight([dims.at(-1) as number, dims.at(-1) as number])])),
  'two layers': (b, x, dims) => {
    const width = dims.at(-1) as number
    const hidden = b.add('Relu', [b.add('MatMul', [x, b.weight([width, 7])])])
    return residual(b, x, b.add('MatMul', [hidden, b.weight([7, width])]))
  },
  'constant on the left': (b, x, dims) =>
    dims.length < 2 ? null : b.add('MatMul', [b.weight([dims.at(-2) as number, dims.at(-2) as number]), x]),
  'merged rows': (b, x, dims) => {
    const width = dims.at(-1) as number
    const flat = b.add('Reshape', [x, b.ints([-1, width])])
    const out = b.add('Gemm', [flat, b.weight([width, width]), b.weight([width])])
    return restore(b, b.random() < 0.5 ? b.add('Softmax', [out], axisAttribute(1)) : out, x, dims)
  },
  'one row flat': (b, x, dims) => {
    const size = product(dims)
    const flat =
      b.random() < 0.5 ? b.add('Flatten', [x], axisAttribute(1)) : b.add('Reshape', [x, b.ints([0, -1])])
    const out = b.pick([
      () => b.add('Softmax', [flat], axisAttribute(-1)),
      () => b.add('Gemm', [flat, b.weight([size, size])]),
      () => b.add('LayerNormalization', [flat, b.weight([size]), b.weight([size])]),
      () => b.add('Sub', [flat, b.add('ReduceMean', [flat, b.ints([1])])]),
    ])()
    return restore(b, out, x, dims)
  },
  'steps first': (b, x, dims) => {
    if (dims.length !== 2) return null
    const turned = b.add('Transpose', [x], b.perm([1, 0, 2]))
    const out = b.pick([
      () => b.add('Softmax', [turned], axisAttribute(b.pick([0, 2]))),
      () => b.add('CumSum', [turned, b.int(b.pick([0, 2, -1]))]),
      () => b.add('Sub', [turned, b.add('ReduceMax', [turned, b.ints([b.pick([0, 2])])])]),
      () => {
        // [s, n, d] to [s * n, d] and back: blocks of rows.
        const flat = b.add('Reshape', [turned, b.ints([-1, dims[1] as number])])
        const dense = b.add('MatMul', [flat, b.weight([dims[1] as number, dims[1] as number])])
        return b.add('Reshape', [dense, b.add('Shape', [turned])])
      },
    ])()
    return b.add('Transpose', [out], b.perm([1, 0, 2]))
  },
  attention: (b, x, dims) => {
    const [steps, width] = dims
    if (dims.length !== 2 || steps === undefined || width === undefined || width % 2 !== 0) return null
    const heads = 2
    const part = width / heads
    const project = () => {
      const dense = b.add('MatMul', [x, b.weight([width, width])])
      const split = b.add('Reshape', [
        dense,
        b.pick([() => b.ints([0, steps, heads, part]), () => b.shapeWith(x, [], [steps, heads, part])])(),
      ])
      return b.add('Transpose', [split], b.perm([0, 2, 1, 3]))
    }
    const merge = (y: string) => b.add('Reshape', [y, b.ints([-1, steps, part])])
    const isMerged = b.random() < 0.5
    const [q, k, v] = [project(), project(), project()].map((one) => (isMerged ? merge(one) : one)) as [
      string,
      string,
      string,
    ]
    const turned = b.add('Transpose', [k], b.perm(isMerged ? [0, 2, 1] : [0, 1, 3, 2]))
    const scores = b.add('Softmax', [b.add('MatMul', [q, turned])], axisAttribute(-1))
    const mixed = b.add('MatMul', [scores, v])
    const apart = isMerged ? b.add('Reshape', [mixed, b.shapeWith(x, [], [heads, steps, part])]) : mixed
    return restore(b, b.add('Transpose', [apart], b.perm([0, 2, 1, 3])), x, dims)
  },
  'attention, steps first': (b, x, dims) => {
    const [steps, width] = dims
    if (dims.length !== 2 || steps === undefined || width === undefined || width % 2 !== 0) return null
    const part = width / 2
    const turned = b.add('Transpose', [x], b.perm([1, 0, 2]))
    // [s, n, d] to [s, n * heads, part] to [n * heads, s, part], like PyTorch's attention module.
    const heads = b.add('Mul', [b.rowsOf(x), b.ints([2])])
    const shape = b.add('Concat', [b.ints([steps]), heads, b.ints([part])], axisAttribute(0))
    const q = b.add('Transpose', [b.add('Reshape', [turned, shape])], b.perm([1, 0, 2]))
    const scores = b.add(
      'Softmax',
      [b.add('MatMul', [q, b.add('Transpose', [q], b.perm([0, 2, 1]))])],
      axisAttribute(-1),
    )
    const out = b.add('Transpose', [b.add('MatMul', [scores, q])], b.perm([1, 0, 2]))
    const flat = b.add('Reshape', [
      out,
      b.add('Concat', [b.add('Mul', [b.rowsOf(x), b.ints([steps])]), b.ints([width])], axisAttribute(0)),
    ])
    const dense = b.add('Gemm', [flat, b.weight([width, width])])
    return b.add('Transpose', [b.add('Reshape', [dense, b.add('Shape', [turned])])], b.perm([1, 0, 2]))
  },
  softmax: (b, x, dims) => b.add(b.pick(['Softmax', 'LogSoftmax']), [x], axisAttribute(anyAxis(b, dims))),
  'layer norm': (b, x, dims) => {
    const axis = anyAxis(b, dims)
    return b.add('LayerNormalization', [x, b.weight(dims.slice(axis - 1))], axisAttribute(axis))
  },
  reduce: (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const keeps = b.random() < 0.5
    const name = b.pick(['ReduceMean', 'ReduceMax', 'ReduceMin', 'ReduceSum', 'ReduceL2'])
    const less = b.add(name, [x, b.ints([axis])], [intAttribute('keepdims', keeps ? 1 : 0)])
    return b.add('Sub', [x, keeps ? less : b.add('Unsqueeze', [less, b.ints([axis])])])
  },
  accumulate: (b, x, dims) => b.add('CumSum', [x, b.int(anyAxis(b, dims))]),
  sort: (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const k = dims[axis - 1] as number
    return b.addMany('TopK', [x, b.ints([k])], { attribute: axisAttribute(axis), outputs: 2 })[0] as string
  },
  'gathered by rank': (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const [, order] = b.addMany('TopK', [x, b.ints([dims[axis - 1] as number])], {
      attribute: axisAttribute(axis),
      outputs: 2,
    })
    return b.add('GatherElements', [x, order as string], axisAttribute(axis))
  },
  'largest one hot': (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const at = b.add('ArgMax', [x], [intAttribute('axis', axis), intAttribute('keepdims', 0)])
    const values = `ends_${axis}_${dims.length}`
    b.initializers.set(values, floats(values, [2], [0.5, 1]))
    const hot = b.add('OneHot', [at, b.int(dims[axis - 1] as number), values], axisAttribute(axis))
    return b.add('Mul', [x, hot])
  },
  'another order of columns': (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const size = dims[axis - 1] as number
    if (b.random() < 0.5)
      return b.add('Gather', [x, b.ints([...Array(size).keys()].reverse())], axisAttribute(axis))
    return b.add('Slice', [x, b.ints([-1]), b.ints([-size - 1]), b.ints([axis]), b.ints([-1])])
  },
  'cut and joined': (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const size = dims[axis - 1] as number
    if (size < 2) return null
    if (size % 2 === 0 && b.random() < 0.5) {
      const halves = b.addMany('Split', [x, b.ints([size / 2, size / 2])], {
        attribute: axisAttribute(axis),
        outputs: 2,
      })
      return b.add('Concat', halves.reverse(), axisAttribute(axis))
    }
    const first = b.add('Slice', [x, b.ints([0]), b.ints([1]), b.ints([axis])])
    const rest = b.add('Slice', [x, b.ints([1]), b.ints([2 ** 31 - 1]), b.ints([axis])])
    return b.add('Concat', [rest, first], axisAttribute(axis))
  },
  'padded and cut': (b, x, dims) => {
    const axis = anyAxis(b, dims)
    const pads = Array((dims.length + 1) * 2).fill(0)
    pads[axis] = 1
    const padded = b.add('Pad', [x, b.ints(pads)])
    return b.add('Slice', [padded, b.ints([0]), b.ints([dims[axis - 1] as number]), b.ints([axis])])
  },
  'all of the rows': (b, x) => b.add('Slice', [x, b.ints([0]), b.ints([2 ** 31 - 1]), b.ints([0])]),
  'a dimension more and less': (b, x, dims) => {
    const axis = Math.floor(b.random() * (dims.length + 2))
    return b.add('Squeeze', [b.add('Relu', [b.add('Unsqueeze', [x, b.ints([axis])])]), b.ints([axis])])
  },
  'repeated and averaged': (b, x, dims) => {
    const wide = b.add('Tile', [b.add('Unsqueeze', [x, b.ints([1])]), b.ints([1, 3, ...dims.map(() => 1)])])
    return b.add('Squeeze', [b.add('ReduceMean', [wide, b.ints([1])]), b.ints([1])])
  },
  stretched: (b, x, dims) => {
    const less = b.add('ReduceMax', [x, b.ints([dims.length])])
    const shape = b.random() < 0.5 ? b.add('Shape', [x]) : b.shapeWith(x, [], dims)
    return b.add('Add', [x, b.add('Expand', [less, shape])])
  },
  'zeros for every row': (b, x, dims) => {
    const zeros = b.add('ConstantOfShape', [
      b.random() < 0.5 ? b.add('Shape', [x]) : b.shapeWith(x, [], dims),
    ])
    return b.add('Add', [x, zeros])
  },
  'a constant for every row': (b, x, dims) =>
    b.add('Sub', [x, b.add('Expand', [b.weight([1, ...dims]), b.add('Shape', [x])])]),
  convolution: (b, x, dims) => {
    const [channels, ...image] = dims
    if (channels === undefined || image.length === 0) return null
    const rank = image.length
    return b.add(
      'Conv',
      [x, b.weight([channels, channels, ...Array(rank).fill(3)])],
      [intsAttribute('pads', Array(2 * rank).fill(1)), intsAttribute('kernel_shape', Array(rank).fill(3))],
    )
  },
  pool: (b, x, dims) => {
    const rank = dims.length - 1
    if (rank < 1) return null
    return b.add(
      b.pick(['MaxPool', 'AveragePool']),
      [x],
      [intsAttribute('pads', Array(2 * rank).fill(1)), intsAttribute('kernel_shape', Array(rank).fill(3))],
    )
  },
  'global pool': (b, x, dims) =>
    dims.length < 2 ? null : b.add('Add', [x, b.add(b.pick(['GlobalAveragePool', 'GlobalMaxPool']), [x])]),
  'batch norm': (b, x, dims) => {
    if (dims.length < 2) return null
    const channels = dims[0] as number
    const name = `ones${channels}`
    b.initializers.set(name, floats(name, [channels], Array(channels).fill(1)))
    return b.add('BatchNormalization', [
      x,
      b.weight([channels]),
      b.weight([channels]),
      b.weight([channels]),
      name,
    ])
  },
  'instance norm': (b, x, dims) => {
    const channels = dims[0] as number
    return dims.length < 2 || product(dims.slice(1)) < 2
      ? null
      : b.add('InstanceNormalization', [x, b.weight([channels]), b.weight([channels])])
  },
  'recurrent layer': (b, x, dims) => {
    const [, width] = dims
    if (dims.length !== 2 || width === undefined) return null
    const turned = b.add('Transpose', [x], b.perm([1, 0, 2]))
    const gru = b.random() < 0.5
    const gates = gru ? 3 : 4
    const initial = b.random() < 0.5 ? '' : b.add('ConstantOfShape', [b.shapeWith(x, [1], [width])])
    const out = b.add(
      gru ? 'GRU' : 'LSTM',
      [turned, b.weight([1, gates * width, width]), b.weight([1, gates * width, width]), '', '', initial],
      [intAttribute('hidden_size', width)],
    )
    return b.add('Transpose', [b.add('Squeeze', [out, b.ints([1])])], b.perm([1, 0, 2]))
  },
  einsum: (b, x, dims) => {
    const labels = 'bcd'.slice(0, dims.length)
    const width = dims.at(-1) as number
    const last = labels.at(-1) as string
    return b.add(
      'Einsum',
      [x, b.weight([width, width])],
      [textAttribute('equation', `n${labels},${last}z->n${labels.slice(0, -1)}z`)],
    )
  },
  'einsum of two rows': (b, x, dims) => {
    if (dims.length !== 2) return null
    const scores = b.add('Einsum', [x, x], [textAttribute('equation', 'nbd,ncd->nbc')])
    return b.add(
      'Einsum',
      [b.add('Softmax', [scores], axisAttribute(-1)), x],
      [textAttribute('equation', 'nbc,ncd->nbd')],
    )
  },
  'static quantisation': (b, x) => {
    const scale = b.number(0.05)
    return b.add('DequantizeLinear', [b.add('QuantizeLinear', [x, scale]), scale])
  },
  'a branch of the model': (b, x) => {
    const flag = `flag${b.random() < 0.5}`
    b.initializers.set(flag, {
      ...int64s(flag, [], [0]),
      dataType: ELEMENT.bool,
      rawData: new Uint8Array([b.random() < 0.5 ? 1 : 0]),
    })
    const branch = (op: string) =>
      subgraph((inner) => ({ inputs: [], outputs: [[inner.add(op, [x]), ELEMENT.float]] }), b)
    return b.add(
      'If',
      [flag],
      [graphAttribute('then_branch', branch('Tanh')), graphAttribute('else_branch', branch('Neg'))],
    )
  },
  'a loop of the model': (b, x, dims) => {
    const width = dims.at(-1) as number
    const body = subgraph((inner, own) => {
      const going = inner.add('Identity', [`${own}going`])
      const next = inner.add('Tanh', [inner.add('MatMul', [`${own}state`, inner.weight([width, width])])])
      return {
        inputs: [
          [`${own}i`, ELEMENT.int64, []],
          [`${own}going`, ELEMENT.bool, []],
          [`${own}state`, ELEMENT.float],
        ],
        outputs: [
          [going, ELEMENT.bool],
          [next, ELEMENT.float],
        ],
      }
    }, b)
    return b.add('Loop', [b.int(3), '', x], [graphAttribute('body', body)])
  },
  'a scan over columns': (b, x, dims) => {
    if (dims.length !== 2) return null
    const shape = ['rows', dims[1] as number]
    const body = subgraph((inner, own) => {
      const next = inner.add('Tanh', [inner.add('Add', [`${own}state`, `${own}step`])])
      return {
        inputs: [
          [`${own}state`, ELEMENT.float, shape],
          [`${own}step`, ELEMENT.float, shape],
        ],
        outputs: [
          [next, ELEMENT.float, shape],
          [inner.add('Identity', [next]), ELEMENT.float, shape],
        ],
      }
    }, b)
    const start = b.add('Squeeze', [b.add('Slice', [x, b.ints([0]), b.ints([1]), b.ints([1])]), b.ints([1])])
    const scanned = b.addMany('Scan', [start, x], {
      attribute: [
        intAttribute('num_scan_inputs', 1),
        intsAttribute('scan_input_axes', [1]),
        intsAttribute('scan_output_axes', [1]),
        graphAttribute('body', body),
      ],
      outputs: 2,
    })
    return scanned[1] as string
  },
  'resized and back': (b, x, dims) => {
    if (dims.length !== 3) return null
    const name = 'twice'
    b.initializers.set(name, floats(name, [4], [1, 1, 2, 2]))
    const large = b.add('Resize', [x, '', name], [textAttribute('mode', 'nearest')])
    return b.add(
      'MaxPool',
      [large],
      [intsAttribute('kernel_shape', [2, 2]), intsAttribute('strides', [2, 2])],
    )
  },
  'its own row by place': (b, x, dims) => {
    if (dims.length !== 2) return null
    const rows = b.add('Squeeze', [b.rowsOf(x), b.ints([0])])
    const places = b.add('Unsqueeze', [b.add('Range', [b.int(0), rows, b.int(1)]), b.ints([1])])
    const best = b.add(
      'ArgMax',
      [b.add('ReduceMax', [x, b.ints([2])], [intAttribute('keepdims', 0)])],
      [intAttribute('axis', 1)],
    )
    const at = b.add('Concat', [places, best], axisAttribute(1))
    return b.add('Add', [x, b.add('Unsqueeze', [b.add('GatherND', [x, at]), b.ints([1])])])
  },
}

export function textAttribute(name: string, text: string): AttributeProto {
  const attribute = stringsAttribute(name, [text])
  // A single string uses another field.
  attribute.type = 3
  attribute.$unknown = (attribute.$unknown ?? []).map((field) => ({ ...field, no: 4 }))
  return attribute
}
