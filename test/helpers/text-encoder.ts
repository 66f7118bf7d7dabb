/** A small transformer encoder (two layers, post-norm, as BERT) with the head of a task. */
import { create } from '@bufbuild/protobuf'
import { intsAttribute } from '../../bench/models/chain.js'
import {
  type AttributeProto,
  type NodeProto,
  type TensorProto,
  TensorProtoSchema,
} from '../../src/onnx/onnx_pb.js'
import { ELEMENT, floats, graph, int64s, intAttribute, modelBytes, node, value } from './onnx-builder.js'
import { seededRandom } from './text-corpus.js'

export type EncoderHead = 'hidden' | 'sentence' | 'sequence-labels' | 'token-labels'

export interface EncoderOptions {
  readonly vocabulary: number
  readonly head?: EncoderHead
  readonly hidden?: number
  readonly heads?: number
  readonly layers?: number
  readonly maxPositions?: number
  readonly labels?: number
  readonly hasTypes?: boolean
  /** Products of the feed-forward part in int8 with a scale found at run time, as dynamic quantisation makes them. */
  readonly isQuantised?: boolean
  /** Fixes the first dimension, so that rows cannot be computed together. */
  readonly isFixed?: boolean
  /** Tokens look at padding as well. */
  readonly isMaskIgnored?: boolean
  /** Outputs in FP16, as models that were exported in half precision have them. */
  readonly isHalf?: boolean
  readonly seed?: number
}

class Builder {
  readonly nodes: NodeProto[] = []
  readonly initializers: TensorProto[] = []
  readonly #random: () => number
  #next = 0

  constructor(seed: number) {
    this.#random = seededRandom(seed)
  }

  weight(shape: readonly number[], scale: number): string {
    const name = `w${this.#next++}`
    const count = shape.reduce((product, size) => product * size, 1)
    const values = Float32Array.from({ length: count }, () => (this.#random() * 2 - 1) * scale)
    this.initializers.push(floats(name, shape, values))
    return name
  }

  constant(shape: readonly number[], values: readonly number[]): string {
    const name = `c${this.#next++}`
    this.initializers.push(floats(name, shape, values))
    return name
  }

  int8(shape: readonly number[]): string {
    const name = `q${this.#next++}`
    const count = shape.reduce((product, size) => product * size, 1)
    const bytes = Int8Array.from({ length: count }, () => Math.round((this.#random() * 2 - 1) * 127))
    this.initializers.push(
      create(TensorProtoSchema, {
        name,
        dims: shape.map(BigInt),
        dataType: ELEMENT.int8,
        rawData: new Uint8Array(bytes.buffer),
      }),
    )
    return name
  }

  ints(shape: readonly number[], values: readonly number[]): string {
    const name = `i${this.#next++}`
    this.initializers.push(int64s(name, shape, values))
    return name
  }

  add(opType: string, inputs: string[], attribute: AttributeProto[] = [], output?: string): string {
    const name = output ?? `v${this.#next++}`
    this.nodes.push(node(opType, inputs, [name], { attribute }))
    return name
  }

  linear(input: string, from: number, to: number): string {
    const product = this.add('MatMul', [input, this.weight([from, to], 1.5 / Math.sqrt(from))])
    return this.add('Add', [product, this.weight([to], 0.1)])
  }

  quantised(input: string, from: number, to: number): string {
    const [q, scale, zero] = [`v${this.#next++}`, `v${this.#next++}`, `v${this.#next++}`]
    this.nodes.push(node('DynamicQuantizeLinear', [input], [q, scale, zero]))
    const product = this.add('MatMulInteger', [q, this.int8([from, to]), zero])
    const wide = this.add('Cast', [product], [intAttribute('to', ELEMENT.float)])
    const weightScale = this.constant([], [1.5 / (127 * Math.sqrt(from))])
    return this.add('Mul', [wide, this.add('Mul', [scale, weightScale])])
  }

  norm(input: string, hidden: number): string {
    const ones = this.constant([hidden], new Array(hidden).fill(1))
    return this.add(
      'LayerNormalization',
      [input, ones, this.weight([hidden], 0.05)],
      [intAttribute('axis', -1)],
    )
  }
}

function attention(
  b: Builder,
  input: string,
  mask: string,
  { hidden, heads }: { hidden: number; heads: number },
) {
  const size = hidden / heads
  const split = b.ints([4], [0, 0, heads, size])
  const head = (perm: number[]) =>
    b.add(
      'Transpose',
      [b.add('Reshape', [b.linear(input, hidden, hidden), split])],
      [intsAttribute('perm', perm)],
    )
  const [query, key, values] = [head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])]
  const scaled = b.add('Mul', [b.add('MatMul', [query, key]), b.constant([], [1 / Math.sqrt(size)])])
  const shares = b.add('Softmax', [b.add('Add', [scaled, mask])], [intAttribute('axis', -1)])
  const mixed = b.add('Transpose', [b.add('MatMul', [shares, values])], [intsAttribute('perm', [0, 2, 1, 3])])
  return b.linear(b.add('Reshape', [mixed, b.ints([3], [0, 0, hidden])]), hidden, hidden)
}

/** Mean over the tokens that the mask has, and a length of 1. */
function pooled(b: Builder, hiddenStates: string, maskFloats: string): void {
  const wide = b.add('Unsqueeze', [maskFloats, b.ints([1], [2])])
  const keep = [intAttribute('keepdims', 0)]
  const sum = b.add('ReduceSum', [b.add('Mul', [hiddenStates, wide]), b.ints([1], [1])], keep)
  const mean = b.add('Div', [sum, b.add('ReduceSum', [wide, b.ints([1], [1])], keep)])
  const length = b.add('ReduceL2', [mean, b.ints([1], [1])], [intAttribute('keepdims', 1)])
  b.add('Div', [mean, length], [], 'sentence_embedding')
}

function renameOutput(nodes: readonly NodeProto[], from: string, to: string): void {
  for (const one of nodes) {
    one.input = one.input.map((name) => (name === from ? to : name))
    one.output = one.output.map((name) => (name === from ? to : name))
  }
}

export function encoderModel(options: EncoderOptions): Uint8Array {
  const { vocabulary, head = 'hidden', hidden = 32, heads = 2, layers = 2, maxPositions = 128 } = options
  const {
    labels = 3,
    hasTypes = true,
    isQuantised = false,
    isFixed = false,
    isMaskIgnored = false,
    isHalf = false,
    seed = 7,
  } = options
  const b = new Builder(seed)
  const batch = isFixed ? 1 : 'batch'
  const words = b.add('Gather', [b.weight([vocabulary, hidden], 1), 'input_ids'])
  const lengths = b.add('Shape', ['input_ids'], [intAttribute('start', 1), intAttribute('end', 2)])
  const length = b.add('Squeeze', [lengths, b.ints([1], [0])])
  const places = b.add('Range', [b.ints([], [0]), length, b.ints([], [1])])
  let state = b.add('Add', [words, b.add('Gather', [b.weight([maxPositions, hidden], 0.3), places])])
  if (hasTypes) state = b.add('Add', [state, b.add('Gather', [b.weight([2, hidden], 0.3), 'token_type_ids'])])
  state = b.norm(state, hidden)
  const mask = b.add('Cast', ['attention_mask'], [intAttribute('to', ELEMENT.float)])
  const away = b.add('Mul', [
    b.add('Sub', [b.constant([], [1]), mask]),
    b.constant([], [isMaskIgnored ? -1e-9 : -1e9]),
  ])
  const bias = b.add('Unsqueeze', [away, b.ints([2], [1, 2])])
  const dense = (input: string, from: number, to: number) =>
    isQuantised ? b.quantised(input, from, to) : b.linear(input, from, to)
  for (let layer = 0; layer < layers; layer++) {
    state = b.norm(b.add('Add', [state, attention(b, state, bias, { hidden, heads })]), hidden)
    const inner = b.add('Gelu', [dense(state, hidden, 2 * hidden)])
    const name =
      layer === layers - 1 && (head === 'hidden' || head === 'sentence') ? 'last_hidden_state' : undefined
    const sum = b.add('Add', [state, dense(inner, 2 * hidden, hidden)])
    const ones = b.constant([hidden], new Array(hidden).fill(1))
    const norm = [sum, ones, b.weight([hidden], 0.05)]
    state = b.add('LayerNormalization', norm, [intAttribute('axis', -1)], name)
  }
  const output = []
  if (head === 'hidden' || head === 'sentence')
    output.push(value('last_hidden_state', ELEMENT.float, [batch, 'sequence', hidden]))
  if (head === 'sentence') {
    pooled(b, state, mask)
    output.push(value('sentence_embedding', ELEMENT.float, [batch, hidden]))
  }
  if (head === 'sequence-labels') {
    const first = b.add('Gather', [state, b.ints([], [0])], [intAttribute('axis', 1)])
    b.add('Identity', [b.linear(first, hidden, labels)], [], 'logits')
    output.push(value('logits', ELEMENT.float, [batch, labels]))
  }
  if (head === 'token-labels') {
    b.add('Identity', [b.linear(state, hidden, labels)], [], 'logits')
    output.push(value('logits', ELEMENT.float, [batch, 'sequence', labels]))
  }
  const names = ['input_ids', 'attention_mask', ...(hasTypes ? ['token_type_ids'] : [])]
  if (isHalf)
    for (const { name, type } of output) {
      renameOutput(b.nodes, name, `${name}_single`)
      b.add('Cast', [`${name}_single`], [intAttribute('to', ELEMENT.float16)], name)
      if (type?.value.case === 'tensorType') type.value.value.elemType = ELEMENT.float16
    }
  return modelBytes(
    graph({
      input: names.map((name) => value(name, ELEMENT.int64, [batch, 'sequence'])),
      output,
      node: b.nodes,
      initializer: b.initializers,
    }),
  )
}
