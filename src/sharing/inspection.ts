/**
 * Inspects a model before it is served: its operators and weights, what workers share, and how to share more.
 */

import { privateWeights } from '../compile/sharing.js'
import type { TemporaryImage } from '../compile/temporary-image.js'
import { externalEntry, graphsOf, isExternal, tensorsOf } from '../onnx/graph.js'
import type { GraphProto, TensorProto } from '../onnx/onnx_pb.js'
import type { SegmentHeader } from '../segment/layout.js'
import { formatBytes } from '../units.js'

export interface OperatorCount {
  /** Includes a non-standard domain. */
  readonly operator: string
  readonly count: number
}

/** Weights of which every worker holds its own copy. */
export interface Unshared {
  readonly operator: string
  readonly bytes: number
  readonly why: 'packed by the kernel' | 'node attributes' | 'not written by the runtime'
  /** How to make them shared. */
  readonly change: string
}

export interface Inspection {
  readonly opsets: readonly { readonly domain: string; readonly version: number }[]
  readonly inputs: SegmentHeader['inputs']
  readonly outputs: SegmentHeader['outputs']
  readonly skippedOutputs: SegmentHeader['skippedOutputs']
  /** Before optimisation, most frequent first. */
  readonly operators: readonly OperatorCount[]
  /** After optimisation. */
  readonly compiledOperators: readonly OperatorCount[]
  /** Tensors in the file and its external data, without node attributes. */
  readonly weights: { readonly count: number; readonly bytes: number }
  readonly sharing: SegmentHeader['sharing']
  readonly unshared: readonly Unshared[]
  readonly batching: SegmentHeader['batching']
  /** The node that draws random numbers; null if there is none. */
  readonly random: SegmentHeader['random']
  readonly segmentBytes: number
}

const STANDARD_DOMAINS = ['', 'ai.onnx']

export function countOperators(graph: GraphProto): OperatorCount[] {
  const counts = new Map<string, number>()
  for (const inner of graphsOf(graph)) {
    for (const { domain, opType } of inner.node) {
      const operator = STANDARD_DOMAINS.includes(domain) ? opType : `${domain}.${opType}`
      counts.set(operator, (counts.get(operator) ?? 0) + 1)
    }
  }
  return [...counts]
    .map(([operator, count]) => ({ operator, count }))
    .sort((a, b) => b.count - a.count || (a.operator < b.operator ? -1 : 1))
}

/**
 * Bits per element by TensorProto.DataType; a string counts as 8. Source:
 * https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
const ELEMENT_BITS: Record<number, number> = {
  ...{ 1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64 },
  ...{ 14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2 },
}

function tensorBytes(tensor: TensorProto): number {
  if (isExternal(tensor)) {
    const length = Number(externalEntry(tensor, 'length'))
    if (Number.isSafeInteger(length)) return length
  }
  const elements = tensor.dims.reduce((product, size) => product * Number(size), 1)
  return Math.ceil((elements * (ELEMENT_BITS[tensor.dataType] ?? 8)) / 8)
}

const TREE_OPERATORS = /^(TreeEnsemble|SVM|Linear(Classifier|Regressor))/

function changeForAttributes(operator: string): string {
  if (TREE_OPERATORS.test(operator)) {
    return (
      'if exported as tensor operations (with Hummingbird for trees), its weights become tensors and are shared; ' +
      'otherwise use fewer workers with more threads'
    )
  }
  return 'if exported with these values as initializers instead of attributes, they are shared'
}

function changeForPacked(bytes: number): string {
  return (
    `if kept in FP32 (with only MatMul and Gemm quantised), weights and packed copies are shared, about ${formatBytes(8 * bytes)} ` +
    'per host: less memory with 8 workers or more, at FP32 speed'
  )
}

function unsharedOf(compiled: GraphProto, header: SegmentHeader): Unshared[] {
  if (header.form === 'original') {
    return [
      {
        operator: 'all',
        bytes: header.sharing.weightsBytes,
        why: 'not written by the runtime',
        change:
          'the runtime cannot serialise this model: export it with standard operators only, or with another opset',
      },
    ]
  }
  const { packed, attributes } = privateWeights(compiled)
  return [
    ...[...packed].map(
      ([operator, bytes]): Unshared => ({
        ...{ operator, bytes, why: 'packed by the kernel', change: changeForPacked(bytes) },
      }),
    ),
    ...[...attributes].map(
      ([operator, bytes]): Unshared => ({
        ...{ operator, bytes, why: 'node attributes', change: changeForAttributes(operator) },
      }),
    ),
  ].sort((a, b) => b.bytes - a.bytes)
}

export function inspectModel({ original, compiled, header }: TemporaryImage): Inspection {
  const tensors = [...tensorsOf(original)]
  return {
    opsets: original.opsetImport.map(({ domain, version }) => ({
      domain: domain || 'ai.onnx',
      version: Number(version),
    })),
    inputs: header.inputs,
    outputs: header.outputs,
    skippedOutputs: header.skippedOutputs,
    operators: countOperators(original.graph),
    compiledOperators: countOperators(compiled),
    weights: {
      count: tensors.length,
      bytes: tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0),
    },
    sharing: header.sharing,
    unshared: unsharedOf(compiled, header),
    batching: header.batching,
    random: header.random,
    segmentBytes: header.fileBytes,
  }
}
