/** Builds a model from a recipe. Every kind maps `input` [batch, ...] to `output` [batch, 10]. */
import { Chain, intAttribute, intsAttribute } from './chain.js'
import { FLOAT, INT64, type OnnxModel } from './onnx-file.js'
import { type Recipe, recipeName, recipeSeed, rowShape, SEQUENCE } from './recipes.js'
import { addTrees } from './trees.js'
import { floatWeight, int8Weight, int64Weight, reluAmplitude, unitAmplitude } from './weights.js'

const CLASSES = 10
const KERNEL_SIZE = 3
const HEAD_WIDTH = 64
const BIAS_AMPLITUDE = 0.01
/** Width of the feed-forward layers of a transformer, relative to the model width. */
const FEED_FORWARD = 4
const LSTM_GATES = 4

interface Dense {
  readonly name: string
  readonly from: number
  readonly to: number
  readonly amplitude: number
  readonly isMatMul?: boolean
}

function addDense(chain: Chain, { name, from, to, amplitude, isMatMul = false }: Dense): void {
  const weight = chain.random(`${name}.weight`, [from, to], amplitude)
  const bias = chain.random(`${name}.bias`, [to], BIAS_AMPLITUDE)
  if (isMatMul) {
    chain.add({ opType: 'MatMul', weights: [weight] })
    chain.add({ opType: 'Add', weights: [bias] })
  } else chain.add({ opType: 'Gemm', weights: [weight, bias] })
}

function addHead(chain: Chain, from: number): void {
  addDense(chain, { name: 'head', from, to: CLASSES, amplitude: Math.sqrt(1 / from) })
}

function addMlp(chain: Chain, { layers, width, isMatMul }: Extract<Recipe, { kind: 'mlp' }>): void {
  for (let layer = 0; layer < layers; layer++) {
    addDense(chain, {
      ...{ name: `layer${layer}`, from: width, to: width, amplitude: reluAmplitude(width), isMatMul },
    })
    chain.add({ opType: 'Relu' })
  }
  addDense(chain, { name: 'head', from: width, to: CLASSES, amplitude: Math.sqrt(1 / width), isMatMul })
}

/** Like the output of `quantize_dynamic` of ONNX Runtime: activations are quantized block by block. */
function addInt8(chain: Chain, { layers, width }: Extract<Recipe, { kind: 'int8' }>): void {
  for (let layer = 0; layer < layers; layer++) {
    const name = `layer${layer}`
    const weight = chain.weight(
      int8Weight({ seed: chain.seed, name: `${name}.weight`, dims: [width, width] }),
    )
    const scale = chain.weight(floatWeight(`${name}.scale`, [reluAmplitude(width) / 127]))
    const bias = chain.random(`${name}.bias`, [width], BIAS_AMPLITUDE)
    const [quantized = '', inputScale = '', zero = ''] = chain.add({
      ...{ opType: 'DynamicQuantizeLinear', outputs: 3 },
    })
    chain.add({ opType: 'MatMulInteger', inputs: [quantized, weight, zero] })
    const [product = ''] = chain.add({ opType: 'Cast', attributes: [intAttribute('to', FLOAT)] })
    const [bothScales = ''] = chain.add({ opType: 'Mul', inputs: [inputScale, scale] })
    chain.add({ opType: 'Mul', inputs: [product, bothScales] })
    chain.add({ opType: 'Add', weights: [bias] })
    chain.add({ opType: 'Relu' })
  }
  addHead(chain, width)
}

function addConvnet(chain: Chain, recipe: Extract<Recipe, { kind: 'convnet' }>): void {
  const { layers, channels } = recipe
  const [imageChannels = 3] = rowShape(recipe)
  for (let layer = 0; layer < layers; layer++) {
    const from = layer === 0 ? imageChannels : channels
    const dims = [channels, from, KERNEL_SIZE, KERNEL_SIZE]
    const weight = chain.random(`conv${layer}.weight`, dims, reluAmplitude(from * KERNEL_SIZE ** 2))
    const bias = chain.random(`conv${layer}.bias`, [channels], BIAS_AMPLITUDE)
    chain.add({ opType: 'Conv', weights: [weight, bias] })
    chain.add({ opType: 'Relu' })
  }
  chain.add({ opType: 'GlobalAveragePool' })
  chain.add({ opType: 'Flatten' })
  addHead(chain, channels)
}

/** Attention and feed-forward, each followed by a sum and a normalization (Vaswani et al. 2017). */
function addTransformer(chain: Chain, { layers, width }: Extract<Recipe, { kind: 'transformer' }>): void {
  const heads = chain.weight(int64Weight('heads', [0, SEQUENCE, width / HEAD_WIDTH, HEAD_WIDTH]))
  const flat = chain.weight(int64Weight('flat', [0, SEQUENCE, width]))
  const scale = chain.weight(floatWeight('scale', [1 / Math.sqrt(HEAD_WIDTH)]))
  const ones = chain.weight(floatWeight('ones', Array(width).fill(1)))
  const project = (name: string, from: string, perm: readonly number[]) => {
    const weight = chain.random(name, [width, width], unitAmplitude(width))
    chain.add({ opType: 'MatMul', inputs: [from, weight] })
    chain.add({ opType: 'Reshape', weights: [heads] })
    return chain.add({ opType: 'Transpose', attributes: [intsAttribute('perm', perm)] })[0] ?? ''
  }
  for (let layer = 0; layer < layers; layer++) {
    const name = `layer${layer}`
    const from = chain.last
    const query = project(`${name}.query`, from, [0, 2, 1, 3])
    const key = project(`${name}.key`, from, [0, 2, 3, 1])
    const value = project(`${name}.value`, from, [0, 2, 1, 3])
    chain.add({ opType: 'MatMul', inputs: [query, key] })
    chain.add({ opType: 'Mul', weights: [scale] })
    const [attention = ''] = chain.add({ opType: 'Softmax', attributes: [intAttribute('axis', 3)] })
    chain.add({ opType: 'MatMul', inputs: [attention, value] })
    chain.add({ opType: 'Transpose', attributes: [intsAttribute('perm', [0, 2, 1, 3])] })
    chain.add({ opType: 'Reshape', weights: [flat] })
    addDense(chain, {
      name: `${name}.out`,
      from: width,
      to: width,
      amplitude: unitAmplitude(width),
      isMatMul: true,
    })
    chain.add({ opType: 'Add', weights: [from] })
    const [attended = ''] = chain.add({ opType: 'LayerNormalization', weights: [ones] })
    const wide = width * FEED_FORWARD
    addDense(chain, {
      name: `${name}.wide`,
      from: width,
      to: wide,
      amplitude: reluAmplitude(width),
      isMatMul: true,
    })
    chain.add({ opType: 'Relu' })
    addDense(chain, {
      name: `${name}.narrow`,
      from: wide,
      to: width,
      amplitude: unitAmplitude(wide),
      isMatMul: true,
    })
    chain.add({ opType: 'Add', weights: [attended] })
    chain.add({ opType: 'LayerNormalization', weights: [ones] })
  }
  chain.add({
    opType: 'ReduceMean',
    weights: [chain.weight(int64Weight('tokens', [1]))],
    attributes: [intAttribute('keepdims', 0)],
  })
  addHead(chain, width)
}

/** The LSTM operator expects the steps as the first dimension. */
function addLstm(chain: Chain, { layers, width }: Extract<Recipe, { kind: 'lstm' }>): void {
  const gates = LSTM_GATES * width
  chain.add({ opType: 'Transpose', attributes: [intsAttribute('perm', [1, 0, 2])] })
  for (let layer = 0; layer < layers; layer++) {
    const isLast = layer === layers - 1
    const weights = [
      chain.random(`layer${layer}.w`, [1, gates, width], unitAmplitude(width)),
      chain.random(`layer${layer}.r`, [1, gates, width], unitAmplitude(width)),
      chain.random(`layer${layer}.b`, [1, 2 * gates], BIAS_AMPLITUDE),
    ]
    chain.add({
      ...{ opType: 'LSTM', weights, attributes: [intAttribute('hidden_size', width)] },
      // Passes all steps to the next layer, and the last state to the head.
      ...{ outputs: 2, next: isLast ? 1 : 0 },
    })
    const direction = isLast ? int64Weight('last_direction', [0]) : int64Weight('direction', [1])
    chain.add({ opType: 'Squeeze', weights: [chain.weight(direction)] })
  }
  addHead(chain, width)
}

function addEmbedding(chain: Chain, { entries, width }: Extract<Recipe, { kind: 'embedding' }>): void {
  const table = chain.random('table', [entries, width], 1)
  chain.add({ opType: 'Gather', inputs: [table, chain.last] })
  chain.add({
    opType: 'ReduceMean',
    weights: [chain.weight(int64Weight('tokens', [1]))],
    attributes: [intAttribute('keepdims', 0)],
  })
  addHead(chain, width)
}

function addTiny(chain: Chain): void {
  chain.add({ opType: 'ReduceMean', weights: [chain.weight(int64Weight('axes', [1]))] })
  addDense(chain, { name: 'head', from: 1, to: CLASSES, amplitude: 1 })
}

type Add = { readonly [K in Recipe['kind']]: (chain: Chain, recipe: Extract<Recipe, { kind: K }>) => void }

const ADD: Add = {
  mlp: addMlp,
  int8: addInt8,
  convnet: addConvnet,
  transformer: addTransformer,
  lstm: addLstm,
  embedding: addEmbedding,
  trees: (chain, { trees, depth }) => addTrees(chain, { trees, depth, classes: CLASSES }),
  tiny: addTiny,
}

export function buildModel(recipe: Recipe, seed: string = recipeSeed(recipe)): OnnxModel {
  const chain = new Chain(seed)
  // TypeScript cannot relate the function to the kind of the recipe.
  const add = ADD[recipe.kind] as (chain: Chain, recipe: Recipe) => void
  add(chain, recipe)
  return chain.end({
    name: recipeName(recipe),
    input: { elementType: recipe.kind === 'embedding' ? INT64 : FLOAT, shape: rowShape(recipe) },
    outputElementType: FLOAT,
    classes: CLASSES,
  })
}
