/**
 * The runtime's JavaScript binding has no bfloat16. Every bfloat16 is exactly representable as float32, so
 * Cast nodes in the graph convert inputs and outputs of that type to and from float32. The server converts
 * losslessly between float32 and the 16 bits on the wire.
 */
import { create } from '@bufbuild/protobuf'
import { graphsOf } from '../onnx/graph.js'
import {
  AttributeProtoSchema,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  NodeProtoSchema,
  type ValueInfoProto,
} from '../onnx/onnx_pb.js'
import type { ModelInterface } from '../repository/interface.js'

const FLOAT = 1
const BFLOAT16 = 16
const ATTRIBUTE_INT = 2

function cast(from: string, to: string, elementType: number): NodeProto {
  return create(NodeProtoSchema, {
    input: [from],
    output: [to],
    opType: 'Cast',
    attribute: [create(AttributeProtoSchema, { name: 'to', type: ATTRIBUTE_INT, i: BigInt(elementType) })],
  })
}

function isBfloat16(value: ValueInfoProto): boolean {
  return value.type?.value.case === 'tensorType' && value.type.value.value.elemType === BFLOAT16
}

function declareFloat(value: ValueInfoProto): void {
  if (value.type?.value.case === 'tensorType') value.type.value.value.elemType = FLOAT
}

/** Renames a value wherever nodes read it, including subgraphs: ONNX names are unique across them. */
function renameReads(graph: GraphProto, from: string, to: string): void {
  for (const inner of graphsOf(graph)) {
    for (const node of inner.node) node.input = node.input.map((name) => (name === from ? to : name))
    if (inner !== graph) for (const output of inner.output) if (output.name === from) output.name = to
  }
}

/** Inserts the casts in place; returns whether any were needed. */
export function castBfloat16Borders(
  model: ModelProto & { graph: GraphProto },
  { inputs }: ModelInterface,
): boolean {
  const { graph } = model
  const fed = new Set(inputs.map((spec) => spec.name))
  const castInputs = graph.input.filter((value) => fed.has(value.name) && isBfloat16(value))
  const castOutputs = graph.output.filter(isBfloat16)
  const before: NodeProto[] = []
  const after: NodeProto[] = []
  for (const value of castOutputs) {
    const inner = `${value.name}/bfloat16`
    for (const node of graph.node)
      node.output = node.output.map((name) => (name === value.name ? inner : name))
    renameReads(graph, value.name, inner)
    after.push(cast(inner, value.name, FLOAT))
    declareFloat(value)
  }
  for (const value of castInputs) {
    const inner = `${value.name}/bfloat16`
    renameReads(graph, value.name, inner)
    before.push(cast(value.name, inner, BFLOAT16))
    declareFloat(value)
  }
  graph.node = [...before, ...graph.node, ...after]
  return before.length + after.length > 0
}
