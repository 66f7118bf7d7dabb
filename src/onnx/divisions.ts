/**
 * Finds integer divisions whose operands come from a request, as far as the graph shows. The runtime rejects
 * a divisor of 0. It does not check the smallest INT32 or INT64 divided by -1, which on x86 kills the process
 * with SIGFPE (docs/decisions/021-crashing-models.md).
 *
 * Only nodes of the outermost graph are considered, because they run for every request. A branch may exist to
 * avoid the division.
 */
import { type Division, type DivisionOperand, MAX_DIVISIONS, MAX_HAZARDS } from '../segment/layout.js'
import type { Datatype, TensorSpec } from '../tensor.js'
import { Attributes, smallTensor } from './attributes.js'
import type { GraphProto, NodeProto, TensorProto } from './onnx_pb.js'

/**
 * The smallest integer of datatypes that the processor divides natively; narrower types are widened and wrap
 * around.
 */
const SMALLEST: Partial<Record<Datatype, number>> = { INT32: -(2 ** 31), INT64: -(2 ** 63) }
const INTEGERS: ReadonlySet<Datatype> = new Set<Datatype>([
  ...(['INT8', 'INT16', 'INT32', 'INT64', 'UINT8', 'UINT16', 'UINT32', 'UINT64'] as const),
])

/** Operators that pass their first input through unchanged. */
const SAME_PLACES: ReadonlySet<string> = new Set(['Identity'])
const OTHER_PLACES: ReadonlySet<string> = new Set(['Reshape', 'Flatten', 'Squeeze', 'Unsqueeze', 'Transpose'])

/** Larger constants are not inspected. */
const MAX_CONSTANT_ELEMENTS = 4096
const MAX_NAME_CHARACTERS = 40

interface Source {
  readonly input: TensorSpec
  readonly isReshaped: boolean
}

function isStandard({ domain }: NodeProto): boolean {
  return domain === '' || domain === 'ai.onnx'
}

/** Maps tensors that contain exactly the elements of an input to that input. */
function trace(graph: GraphProto, inputs: readonly TensorSpec[]): Map<string, Source> {
  const sources = new Map(inputs.map((input): [string, Source] => [input.name, { input, isReshaped: false }]))
  for (const node of graph.node) {
    const source = sources.get(node.input[0] ?? '')
    const [output = ''] = node.output
    if (source === undefined || output === '' || !isStandard(node)) continue
    if (SAME_PLACES.has(node.opType)) sources.set(output, source)
    else if (OTHER_PLACES.has(node.opType)) sources.set(output, { ...source, isReshaped: true })
  }
  return sources
}

function constantsOf(graph: GraphProto): Map<string, TensorProto> {
  const constants = new Map(graph.initializer.map((tensor) => [tensor.name, tensor]))
  for (const node of graph.node) {
    if (node.opType !== 'Constant' || !isStandard(node)) continue
    const tensor = new Attributes(node).tensor('value')
    if (tensor !== undefined && node.output[0] !== undefined) constants.set(node.output[0], tensor)
  }
  return constants
}

function constantOperand(tensor: TensorProto | undefined, hazard: number): DivisionOperand {
  const small = tensor === undefined ? null : smallTensor(tensor, MAX_CONSTANT_ELEMENTS)
  if (tensor === undefined || small === null) return { from: 'elsewhere' }
  const hazards = small.elements.flatMap((element, i) => (element === hazard ? [i] : []))
  if (hazards.length > MAX_HAZARDS) return { from: 'elsewhere' }
  return { from: 'constant', shape: tensor.dims.map(Number), hazards }
}

/** In graph order, at most MAX_DIVISIONS. */
export function divisionsOf(graph: GraphProto, inputs: readonly TensorSpec[]): Division[] {
  const isDivision = (node: NodeProto) => isStandard(node) && (node.opType === 'Div' || node.opType === 'Mod')
  const nodes = graph.node.filter(isDivision)
  if (nodes.length === 0) return []
  const sources = trace(graph, inputs)
  const constants = constantsOf(graph)
  const divisions: Division[] = []
  for (const node of nodes) {
    const [dividendName = '', divisorName = ''] = node.input
    const datatype = (sources.get(dividendName) ?? sources.get(divisorName))?.input.datatype
    if (datatype === undefined || !INTEGERS.has(datatype)) continue
    const smallest = SMALLEST[datatype]
    const operand = (name: string, hazard: number): DivisionOperand => {
      const source = sources.get(name)
      if (source === undefined) return constantOperand(constants.get(name), hazard)
      return { from: 'input', name: source.input.name, isReshaped: source.isReshaped }
    }
    // The runtime computes fmod in floating point, which cannot overflow this way.
    const isFloating = node.opType === 'Mod' && new Attributes(node).int('fmod') === 1
    divisions.push({
      operator: node.opType === 'Mod' ? 'Mod' : 'Div',
      node: node.name.slice(0, MAX_NAME_CHARACTERS),
      dividend: operand(dividendName, smallest ?? Number.NaN),
      divisor: operand(divisorName, -1),
      hasOverflow: smallest !== undefined && !isFloating,
    })
    if (divisions.length === MAX_DIVISIONS) break
  }
  return divisions
}
