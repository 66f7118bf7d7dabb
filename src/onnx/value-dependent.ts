/**
 * Whether the cost of a run depends on the values of its inputs and not on their sizes alone: loops, branches, and
 * outputs whose size is a value. What is known of such a model's cost says nothing about its next run.
 * Source: https://onnx.ai/onnx/operators and onnxruntime's ContribOperators.md.
 */
import type { GraphProto, ModelProto, NodeProto } from './onnx_pb.js'

/** The number of steps, or of output elements, is a value. */
const ALWAYS: ReadonlySet<string> = new Set([
  ...['Loop', 'Scan', 'If', 'SequenceMap', 'NonZero', 'Unique', 'Compress', 'NonMaxSuppression'],
  ...['com.microsoft.BeamSearch', 'com.microsoft.GreedySearch', 'com.microsoft.Sampling'],
  ...['com.microsoft.WhisperBeamSearch', 'com.microsoft.Unique', 'com.microsoft.ExpandDims'],
])
/** Inputs that say how large the output is; what constants and sizes decide is the same every time. */
const SIZE_INPUTS: Readonly<Record<string, readonly number[]>> = {
  Range: [0, 1, 2],
  ConstantOfShape: [0],
  Expand: [1],
  Tile: [1],
  OneHot: [1],
  Pad: [1],
  Resize: [2, 3],
  Upsample: [1],
  'com.microsoft.Range': [0, 1, 2],
}

function operatorOf({ domain, opType }: NodeProto): string {
  return domain === '' || domain === 'ai.onnx' ? opType : `${domain}.${opType}`
}

/** Of the same inputs they give other values every time. */
const RANDOM = /^Random|^Multinomial$|^Bernoulli$/

/** Names of values that are the same for all inputs of the same sizes: constants, shapes, and what is made of them. */
function fixedBySizes(
  graph: Pick<GraphProto, 'node'> & Partial<Pick<GraphProto, 'initializer'>>,
): Set<string> {
  const fixed = new Set((graph.initializer ?? []).map(({ name }) => name))
  // Nodes are sorted: what one reads is written before.
  for (const node of graph.node) {
    const operator = operatorOf(node)
    const inputs = node.input.filter((name) => name !== '')
    const isFixed =
      ['Constant', 'Shape', 'Size'].includes(operator) ||
      (inputs.length > 0 && inputs.every((name) => fixed.has(name)) && !RANDOM.test(operator))
    if (isFixed) for (const name of node.output) fixed.add(name)
  }
  return fixed
}

/** The first operator whose cost depends on values; null where there is none. */
export function valueDependentOperator(model: ModelProto & { graph: GraphProto }): string | null {
  for (const body of [model.graph, ...model.functions]) {
    const fixed = fixedBySizes(body)
    for (const node of body.node) {
      const operator = operatorOf(node)
      if (ALWAYS.has(operator)) return operator
      const isSizeKnown = (SIZE_INPUTS[operator] ?? []).every((at) => {
        const name = node.input[at] ?? ''
        return name === '' || fixed.has(name)
      })
      if (!isSizeKnown) return operator
      // A graph in an attribute is a body that runs when a value says so.
      if (node.attribute.some(({ g, graphs }) => g !== undefined || graphs.length > 0)) return operator
    }
  }
  return null
}
