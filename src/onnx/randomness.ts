/**
 * Detects from the graph whether a model draws random numbers. Comparing outputs is unreliable, because they
 * can be equal by chance. A seed makes no difference: the runtime's generators keep their state between runs.
 *
 * Every node counts, including those in branches, loop bodies and functions, whether or not its result
 * reaches an output. Sources: https://onnx.ai/onnx/operators and
 * https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
 */
import { smallTensor } from './attributes.js'
import type { GraphProto, ModelProto, NodeProto, TensorProto } from './onnx_pb.js'

/** Operators that are random regardless of attributes and inputs, by domain; '' is the ONNX domain. */
const RANDOM: Readonly<Record<string, ReadonlySet<string>>> = {
  '': new Set([
    ...['RandomNormal', 'RandomNormalLike', 'RandomUniform', 'RandomUniformLike', 'Bernoulli', 'Multinomial'],
  ]),
  'com.microsoft': new Set(['Sampling', 'DropoutGrad', 'PythonOp', 'ATen']),
  'org.pytorch.aten': new Set(['ATen']),
}

/** Operators that are random in training mode, with the positions of their ratio and training mode inputs. */
const DROPOUTS: Readonly<Record<string, Readonly<Record<string, { ratio: number; training: number }>>>> = {
  '': { Dropout: { ratio: 1, training: 2 } },
  'com.microsoft': {
    TrainableDropout: { ratio: 1, training: 2 },
    BitmaskDropout: { ratio: 1, training: 2 },
    BiasDropout: { ratio: 3, training: 4 },
    BitmaskBiasDropout: { ratio: 3, training: 4 },
  },
}

/** First opset in which the training mode of Dropout is an input. */
const TRAINING_MODE_OPSET = 12
/** First opset in which Dropout is for inference only, without a mode. */
const INFERENCE_ONLY_OPSET = 7

/** TensorProto.DataType of float16 and bfloat16. */
const HALF_TYPES: ReadonlySet<number> = new Set([10, 16])

/** Escaped, it fits the space reserved in the header. */
const MAX_NAME_CHARACTERS = 40

export interface RandomNode {
  /** Includes a non-standard domain. */
  readonly operator: string
  /** The name of the first output if the node has no name. */
  readonly name: string
  readonly reason: 'draws random numbers' | 'is in training mode, or may be'
}

type Constants = ReadonlyMap<string, TensorProto | null>

function domainOf({ domain }: { readonly domain: string }): string {
  return domain === 'ai.onnx' ? '' : domain
}

/** Whether a tensor is a single zero or false; null if that cannot be determined. */
function isZero(tensor: TensorProto): boolean | null {
  if (HALF_TYPES.has(tensor.dataType)) {
    const { rawData } = tensor
    // All bits except the sign.
    return rawData.length === 2 ? rawData[0] === 0 && ((rawData[1] as number) & 0x7f) === 0 : null
  }
  return smallTensor(tensor, 1)?.elements.every((element) => element === 0) ?? null
}

/** Constant values by name in a graph or function; null for values that depend on a request or a run. */
function constantsOf(
  nodes: readonly NodeProto[],
  graph: Pick<GraphProto, 'input' | 'initializer'> | null,
  outer: Constants,
): Constants {
  const constants = new Map(outer)
  for (const tensor of graph?.initializer ?? []) constants.set(tensor.name, tensor)
  // An initializer that is also an input is only its default.
  for (const { name } of graph?.input ?? []) constants.set(name, null)
  for (const node of nodes) {
    for (const name of node.output) constants.set(name, null)
    const [name] = node.output
    const held = node.attribute.find((attribute) => attribute.name === 'value')?.t
    if (node.opType === 'Constant' && domainOf(node) === '' && name !== undefined && held !== undefined)
      constants.set(name, held)
  }
  return constants
}

/** Whether an input is omitted or known to be zero or false. */
function isOff(node: NodeProto, at: number, constants: Constants): boolean {
  const name = node.input[at] ?? ''
  if (name === '') return true
  const tensor = constants.get(name)
  return tensor ? isZero(tensor) === true : false
}

function isDropoutRandom(node: NodeProto, constants: Constants, opset: number): boolean {
  const places = DROPOUTS[domainOf(node)]?.[node.opType]
  if (places === undefined) return false
  if (domainOf(node) === '' && opset < TRAINING_MODE_OPSET) {
    const isTest = node.attribute.find(({ name }) => name === 'is_test')?.i ?? 0n
    return opset < INFERENCE_ONLY_OPSET && isTest === 0n
  }
  if (isOff(node, places.training, constants)) return false
  const hasRatio = (node.input[places.ratio] ?? '') !== ''
  return !(hasRatio && isOff(node, places.ratio, constants))
}

function* randomNodesIn(
  nodes: readonly NodeProto[],
  constants: Constants,
  opset: number,
): Generator<RandomNode> {
  for (const node of nodes) {
    const domain = domainOf(node)
    const name = node.name || (node.output[0] ?? '')
    const operator = domain === '' ? node.opType : `${domain}.${node.opType}`
    const isTraining = isDropoutRandom(node, constants, opset)
    if (isTraining) yield { operator, name, reason: 'is in training mode, or may be' }
    else if (RANDOM[domain]?.has(node.opType) === true)
      yield { operator, name, reason: 'draws random numbers' }
    for (const { g, graphs } of node.attribute)
      for (const inner of [...(g === undefined ? [] : [g]), ...graphs])
        yield* randomNodesIn(inner.node, constantsOf(inner.node, inner, constants), opset)
  }
}

/** The first node that draws random numbers; null if there is none. */
export function findRandomNode(model: ModelProto & { graph: GraphProto }): RandomNode | null {
  const { graph, functions } = model
  const opset = Number(model.opsetImport.find((one) => domainOf(one) === '')?.version ?? 1)
  for (const random of randomNodesIn(graph.node, constantsOf(graph.node, graph, new Map()), opset))
    return random
  for (const { node } of functions)
    for (const random of randomNodesIn(node, constantsOf(node, null, new Map()), opset)) return random
  return null
}

/** Describes that node for the header and for messages; null if there is none. */
export function describeRandomness(model: ModelProto & { graph: GraphProto }): string | null {
  const random = findRandomNode(model)
  if (random === null) return null
  const { operator, name, reason } = random
  return `node ${JSON.stringify(name.slice(0, MAX_NAME_CHARACTERS))} (${operator}) ${reason}`
}
