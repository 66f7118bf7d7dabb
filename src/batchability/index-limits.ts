/**
 * Finds the sizes of tables that integer inputs index. An input is followed through nodes that pass integers
 * on, up to a node that looks them up in a table of known size. Trial rows then use the whole table without
 * exceeding it.
 *
 * Sources: https://onnx.ai/onnx/operators and
 * https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
 */
import { Attributes, smallTensor } from '../onnx/attributes.js'
import type { GraphProto, NodeProto, TensorProto } from '../onnx/onnx_pb.js'
import type { IndexLimits } from './probe-inputs.js'

/** Operators whose first output contains unchanged integers of their first input. */
const PASSING: ReadonlySet<string> = new Set([
  ...[
    'Cast',
    'Identity',
    'Reshape',
    'Flatten',
    'Squeeze',
    'Unsqueeze',
    'Transpose',
    'Expand',
    'Slice',
    'Tile',
  ],
  ...['Gather', 'GatherElements', 'GatherND', 'Split'],
])

type Tables = ReadonlyMap<string, TensorProto>

function dimensionOf(tables: Tables, name: string, axis: number): number | null {
  const dims = tables.get(name)?.dims
  if (dims === undefined || dims.length === 0) return null
  const size = dims[axis < 0 ? axis + dims.length : axis]
  return size === undefined ? null : Number(size)
}

/**
 * The table size that the integers in one input of a node index; null if they are not known to be indices.
 */
function entriesOf(node: NodeProto, at: number, tables: Tables): number | null {
  const { opType, domain, input } = node
  const axis = () => new Attributes(node).int('axis') ?? 0
  if (domain === 'com.microsoft') {
    if (opType === 'EmbedLayerNormalization') {
      // Inputs with word, segment and position ids, and the inputs with their tables.
      const table = { 0: 2, 1: 4, 7: 3 }[at]
      return table === undefined ? null : dimensionOf(tables, input[table] ?? '', 0)
    }
    if (opType === 'GatherBlockQuantized' && at === 1)
      return dimensionOf(tables, input[0] ?? '', new Attributes(node).int('gather_axis') ?? 0)
    return null
  }
  if ((opType === 'Gather' || opType === 'GatherElements') && at === 1)
    return dimensionOf(tables, input[0] ?? '', axis())
  if (opType === 'GatherND' && at === 1)
    return dimensionOf(tables, input[0] ?? '', new Attributes(node).int('batch_dims') ?? 0)
  if ((opType === 'ScatterElements' || opType === 'Scatter') && at === 1)
    return dimensionOf(tables, input[0] ?? '', axis())
  if (opType === 'OneHot' && at === 0) {
    const depth = tables.get(input[1] ?? '')
    return (depth && smallTensor(depth, 1)?.elements[0]) ?? null
  }
  return null
}

/** By input name, the size of the smallest table that the input indexes. */
export function indexLimitsOf(graph: GraphProto): IndexLimits {
  const tensors = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]))
  for (const node of graph.node) {
    const held = node.opType === 'Constant' ? new Attributes(node).tensor('value') : undefined
    if (held !== undefined && node.output[0] !== undefined) tensors.set(node.output[0], held)
  }
  /** Maps a value to the input whose integers it contains. */
  const origins = new Map<string, string>()
  for (const { name } of graph.input) if (!tensors.has(name)) origins.set(name, name)
  const limits = new Map<string, number>()
  // Nodes are in topological order.
  for (const node of graph.node) {
    for (const [at, name] of node.input.entries()) {
      const origin = origins.get(name)
      const entries = origin === undefined ? null : entriesOf(node, at, tensors)
      if (origin === undefined || entries === null || entries < 1) continue
      limits.set(origin, Math.min(entries, limits.get(origin) ?? Number.POSITIVE_INFINITY))
    }
    const origin = origins.get(node.input[0] ?? '')
    const isPassing = PASSING.has(node.opType) && (node.domain === '' || node.domain === 'ai.onnx')
    if (origin !== undefined && isPassing) for (const name of node.output) origins.set(name, origin)
  }
  return limits
}
