/** Calculates from a compiled graph how much of a model N processes share. */
import { toBinary } from '@bufbuild/protobuf'
import { externalEntry, graphsOf, isExternal, packedBytesOf } from '../onnx/graph.js'
import { type GraphProto, type NodeProto, NodeProtoSchema } from '../onnx/onnx_pb.js'
import type { Sharing } from '../segment/layout.js'
import { formatBytes } from '../units.js'

/**
 * Kernels that pack their weights in every process even if the raw bytes are shared. Measured, not
 * documented.
 */
const PRIVATELY_PACKING = new Set(['QLinearConv', 'ConvInteger'])
/** Smaller attributes are settings, not weights. */
const ATTRIBUTE_WEIGHT_BYTES = 1024
/** Parts below this share of the weights do not affect the sharing state. */
const NEGLIGIBLE_SHARE = 0.05

/** Bytes of a node's attributes, without subgraphs. */
function attributeBytes(node: NodeProto): number {
  if (node.attribute.some((attribute) => attribute.g !== undefined || attribute.graphs.length > 0)) return 0
  return toBinary(NodeProtoSchema, node).byteLength
}

/** Bytes that every worker holds privately, by operator type. */
export interface PrivateWeights {
  /** Weights that a kernel packs again in every worker, although their raw bytes are shared. */
  readonly packed: ReadonlyMap<string, number>
  /** Weights stored as node attributes. */
  readonly attributes: ReadonlyMap<string, number>
}

export function privateWeights(graph: GraphProto): PrivateWeights {
  const packed = new Map<string, number>()
  const attributes = new Map<string, number>()
  const add = (map: Map<string, number>, opType: string, bytes: number) =>
    map.set(opType, (map.get(opType) ?? 0) + bytes)
  for (const inner of graphsOf(graph)) {
    const opTypeOf = new Map(
      inner.node
        .filter((node) => PRIVATELY_PACKING.has(node.opType))
        .flatMap((node) => node.input.map((name) => [name, node.opType] as const)),
    )
    for (const tensor of inner.initializer) {
      const opType = opTypeOf.get(tensor.name)
      if (opType !== undefined && isExternal(tensor) && packedBytesOf(tensor) === 0)
        add(packed, opType, Number(externalEntry(tensor, 'length') ?? 0))
    }
    for (const node of inner.node) {
      const nodeBytes = attributeBytes(node)
      if (nodeBytes >= ATTRIBUTE_WEIGHT_BYTES) add(attributes, node.opType, nodeBytes)
    }
  }
  return { packed, attributes }
}

function sumOf(bytes: ReadonlyMap<string, number>): number {
  return [...bytes.values()].reduce((sum, one) => sum + one, 0)
}

export function describeSharing(graph: GraphProto, form: 'compiled' | 'original'): Sharing {
  let sharedRawBytes = 0
  let sharedPackedBytes = 0
  let inlineBytes = 0
  for (const inner of graphsOf(graph)) {
    for (const tensor of inner.initializer) {
      if (isExternal(tensor)) {
        sharedRawBytes += Number(externalEntry(tensor, 'length') ?? 0)
        sharedPackedBytes += packedBytesOf(tensor)
      } else inlineBytes += tensor.rawData.byteLength
    }
  }
  const { packed, attributes } = privateWeights(graph)
  const privatelyPackedBytes = sumOf(packed)
  const inNodesBytes = sumOf(attributes)
  const weightsBytes = sharedRawBytes + inlineBytes + inNodesBytes
  const notes: string[] = []
  if (privatelyPackedBytes > 0) {
    notes.push(
      `${formatBytes(privatelyPackedBytes)} of quantised convolution weights are packed again by every worker`,
    )
  }
  for (const [opType, nodeBytes] of attributes) {
    notes.push(
      `${formatBytes(nodeBytes)} are attributes of ${opType} nodes, which every worker parses into its own memory`,
    )
  }

  if (form === 'original') {
    notes.push('the runtime could not write this model in a shareable form: every worker loads it whole')
    return {
      state: 'not shareable',
      weightsBytes,
      sharedRawBytes: 0,
      sharedPackedBytes: 0,
      privatelyPackedBytes: 0,
      unshareableBytes: weightsBytes,
      notes,
    }
  }
  const unshareableBytes = inNodesBytes + inlineBytes
  // A small graph keeps small tensors inline by design; sharing them is not worthwhile.
  const share = (bytes: number) => (weightsBytes === 0 ? 0 : bytes / weightsBytes)
  let state: Sharing['state'] = 'shared'
  if (share(inNodesBytes) > 0.5) state = 'not shareable'
  else if (share(privatelyPackedBytes) > 0.5) state = 'packed privately'
  else if (share(privatelyPackedBytes) > NEGLIGIBLE_SHARE || share(inNodesBytes) > NEGLIGIBLE_SHARE)
    state = 'partly shared'
  return {
    state,
    weightsBytes,
    sharedRawBytes,
    sharedPackedBytes,
    privatelyPackedBytes,
    unshareableBytes,
    notes,
  }
}
