/**
 * The models that the benches serve, each made from its name alone:
 *
 *   mlp-LAYERSxWIDTH[-matmul]      input [batch, WIDTH] -> output [batch, 10]; Gemm, or MatMul and Add
 *   convnet-LAYERSxCHANNELS        input [batch, 3, 96, 96] -> output [batch, 10]
 *   tiny-WIDTH                     the interface of an mlp of that width, with a few hundred bytes of weights
 */
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { GraphProtoSchema, NodeProtoSchema, ValueInfoProtoSchema } from '../../src/model/onnx_pb.js'
import { FLOAT, type OnnxModel, type Weight } from './onnx-file.js'
import { int64Weight, randomWeight, reluAmplitude } from './weights.js'

const CLASSES = 10
const IMAGE_SHAPE = [3, 96, 96] as const
const KERNEL_SIZE = 3
const BIAS_AMPLITUDE = 0.01
/** A part of every seed: raise it when a recipe changes, so that no file of the old one is taken for a new one. */
const SEED = 'onecopy-bench-1'

export type Recipe =
  | { readonly kind: 'mlp'; readonly layers: number; readonly width: number; readonly isMatMul: boolean }
  | { readonly kind: 'convnet'; readonly layers: number; readonly channels: number }
  | { readonly kind: 'tiny'; readonly width: number }

export const RECIPE_PATTERNS =
  'mlp-LAYERSxWIDTH, mlp-LAYERSxWIDTH-matmul, convnet-LAYERSxCHANNELS or tiny-WIDTH'

export function recipeName(recipe: Recipe): string {
  if (recipe.kind === 'mlp') return `mlp-${recipe.layers}x${recipe.width}${recipe.isMatMul ? '-matmul' : ''}`
  if (recipe.kind === 'convnet') return `convnet-${recipe.layers}x${recipe.channels}`
  return `tiny-${recipe.width}`
}

export function parseRecipe(name: string): Recipe {
  const [, mlpLayers, width, matmul] = name.match(/^mlp-([1-9]\d*)x([1-9]\d*)(-matmul)?$/) ?? []
  if (mlpLayers !== undefined) {
    return { kind: 'mlp', layers: Number(mlpLayers), width: Number(width), isMatMul: matmul !== undefined }
  }
  const [, convLayers, channels] = name.match(/^convnet-([1-9]\d*)x([1-9]\d*)$/) ?? []
  if (convLayers !== undefined)
    return { kind: 'convnet', layers: Number(convLayers), channels: Number(channels) }
  const [, tinyWidth] = name.match(/^tiny-([1-9]\d*)$/) ?? []
  if (tinyWidth !== undefined) return { kind: 'tiny', width: Number(tinyWidth) }
  throw new Error(`expected a model name ${RECIPE_PATTERNS}, got ${JSON.stringify(name)}`)
}

/** Shape of one row of the input, without the batch dimension. */
export function rowShape(recipe: Recipe): readonly number[] {
  return recipe.kind === 'convnet' ? IMAGE_SHAPE : [recipe.width]
}

export function recipeSeed(recipe: Recipe): string {
  return `${SEED}/${recipeName(recipe)}`
}

type Node = MessageInitShape<typeof NodeProtoSchema>

function batched(name: string, shape: readonly number[]): MessageInitShape<typeof ValueInfoProtoSchema> {
  const batch = { value: { case: 'dimParam' as const, value: 'batch' } }
  const dims = shape.map((dim) => ({ value: { case: 'dimValue' as const, value: BigInt(dim) } }))
  return {
    name,
    type: { value: { case: 'tensorType', value: { elemType: FLOAT, shape: { dim: [batch, ...dims] } } } },
  }
}

/** Grows a graph node by node; every value is made of the one before it. */
class Chain {
  readonly nodes: Node[] = []
  readonly weights: Weight[] = []
  readonly #seed: string
  #last = 'input'

  constructor(seed: string) {
    this.#seed = seed
  }

  add(opType: string, weightNames: readonly string[] = [], attribute: Node['attribute'] = []): void {
    const output = `${opType.toLowerCase()}_${this.nodes.length}`
    this.nodes.push({
      opType,
      name: output,
      input: [this.#last, ...weightNames],
      output: [output],
      attribute,
    })
    this.#last = output
  }

  random(name: string, dims: readonly number[], amplitude: number): string {
    this.weights.push(randomWeight({ seed: this.#seed, name, dims, amplitude }))
    return name
  }

  dense(name: string, options: { from: number; to: number; amplitude: number; isMatMul: boolean }): void {
    const { from, to, amplitude, isMatMul } = options
    const weight = this.random(`${name}.weight`, [from, to], amplitude)
    const bias = this.random(`${name}.bias`, [to], BIAS_AMPLITUDE)
    if (isMatMul) {
      this.add('MatMul', [weight])
      this.add('Add', [bias])
    } else this.add('Gemm', [weight, bias])
  }

  end(recipe: Recipe): OnnxModel {
    const last = this.nodes.at(-1)
    if (last !== undefined) last.output = ['output']
    const graph: MessageInitShape<typeof GraphProtoSchema> = {
      name: recipeName(recipe),
      node: this.nodes,
      input: [batched('input', rowShape(recipe))],
      output: [batched('output', [CLASSES])],
    }
    return { graph, weights: this.weights }
  }
}

export function buildModel(recipe: Recipe, seed: string = recipeSeed(recipe)): OnnxModel {
  const chain = new Chain(seed)
  if (recipe.kind === 'mlp') {
    const { width, isMatMul } = recipe
    for (let layer = 0; layer < recipe.layers; layer++) {
      chain.dense(`layer${layer}`, { from: width, to: width, amplitude: reluAmplitude(width), isMatMul })
      chain.add('Relu')
    }
    chain.dense('head', { from: width, to: CLASSES, amplitude: Math.sqrt(1 / width), isMatMul })
  } else if (recipe.kind === 'convnet') {
    const { channels } = recipe
    for (let layer = 0; layer < recipe.layers; layer++) {
      const from = layer === 0 ? IMAGE_SHAPE[0] : channels
      const dims = [channels, from, KERNEL_SIZE, KERNEL_SIZE]
      const weight = chain.random(`conv${layer}.weight`, dims, reluAmplitude(from * KERNEL_SIZE ** 2))
      chain.add('Conv', [weight, chain.random(`conv${layer}.bias`, [channels], BIAS_AMPLITUDE)])
      chain.add('Relu')
    }
    chain.add('GlobalAveragePool')
    chain.add('Flatten')
    chain.dense('head', { from: channels, to: CLASSES, amplitude: Math.sqrt(1 / channels), isMatMul: false })
  } else {
    chain.weights.push(int64Weight('axes', [1]))
    chain.add('ReduceMean', ['axes'])
    chain.dense('head', { from: 1, to: CLASSES, amplitude: 1, isMatMul: false })
  }
  return chain.end(recipe)
}
