/** Builds a graph node by node. By default, every node reads the output of the previous one. */
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import {
  type AttributeProto,
  AttributeProtoSchema,
  type GraphProtoSchema,
  type NodeProtoSchema,
  type ValueInfoProtoSchema,
} from '../../src/onnx/onnx_pb.js'
import type { FLOAT, INT64, OnnxModel, Weight } from './onnx-file.js'
import { randomWeight } from './weights.js'

type Node = MessageInitShape<typeof NodeProtoSchema>
export type ElementType = typeof FLOAT | typeof INT64

/** AttributeProto.AttributeType. */
const INT = 2
const FLOATS = 6
const INTS = 7
const STRINGS = 8
/** Field numbers of AttributeProto that the schema of the server omits. */
const FLOATS_FIELD = 7
const INTS_FIELD = 8
const STRINGS_FIELD = 9

export function intAttribute(name: string, value: number): AttributeProto {
  return create(AttributeProtoSchema, { name, i: BigInt(value), type: INT })
}

function packedAttribute(
  name: string,
  kind: { type: number; field: number; bytes: Uint8Array },
): AttributeProto {
  const attribute = create(AttributeProtoSchema, { name, type: kind.type })
  const data = new BinaryWriter().bytes(kind.bytes).finish()
  attribute.$unknown = [{ no: kind.field, wireType: WireType.LengthDelimited, data }]
  return attribute
}

export function intsAttribute(name: string, values: readonly number[]): AttributeProto {
  const writer = new BinaryWriter()
  for (const value of values) writer.int64(value)
  return packedAttribute(name, { type: INTS, field: INTS_FIELD, bytes: writer.finish() })
}

export function floatsAttribute(name: string, values: readonly number[]): AttributeProto {
  const bytes = new Uint8Array(Float32Array.from(values).buffer)
  return packedAttribute(name, { type: FLOATS, field: FLOATS_FIELD, bytes })
}

/** Strings are never packed: each has its own field. */
export function stringsAttribute(name: string, values: readonly string[]): AttributeProto {
  const attribute = create(AttributeProtoSchema, { name, type: STRINGS })
  attribute.$unknown = values.map((value) => ({
    no: STRINGS_FIELD,
    wireType: WireType.LengthDelimited,
    data: new BinaryWriter().string(value).finish(),
  }))
  return attribute
}

export interface Operation {
  readonly opType: string
  /** All inputs; default: the last value and `weights`. */
  readonly inputs?: readonly string[]
  readonly weights?: readonly string[]
  readonly attributes?: readonly AttributeProto[]
  /** Number of outputs, and the index of the one that the next node reads. */
  readonly outputs?: number
  readonly next?: number
  readonly domain?: string
}

export interface ChainEnd {
  readonly name: string
  readonly input: { readonly elementType: ElementType; readonly shape: readonly number[] }
  readonly outputElementType: ElementType
  readonly classes: number
}

function batched(
  name: string,
  elementType: ElementType,
  shape: readonly number[],
): MessageInitShape<typeof ValueInfoProtoSchema> {
  const batch = { value: { case: 'dimParam' as const, value: 'batch' } }
  const dims = shape.map((dim) => ({ value: { case: 'dimValue' as const, value: BigInt(dim) } }))
  return {
    name,
    type: {
      value: { case: 'tensorType', value: { elemType: elementType, shape: { dim: [batch, ...dims] } } },
    },
  }
}

export class Chain {
  readonly nodes: Node[] = []
  readonly weights: Weight[] = []
  readonly seed: string
  /** The value that the next node reads. */
  last = 'input'

  constructor(seed: string) {
    this.seed = seed
  }

  /** Adds a node; returns the names of its outputs. */
  add({ opType, inputs, weights = [], attributes = [], outputs = 1, next = 0, domain }: Operation): string[] {
    const name = `${opType.toLowerCase()}_${this.nodes.length}`
    const written = Array.from({ length: outputs }, (_, i) => (i === 0 ? name : `${name}_${i}`))
    this.nodes.push({
      opType,
      name,
      input: [...(inputs ?? [this.last, ...weights])],
      output: written,
      attribute: [...attributes],
      ...(domain === undefined ? {} : { domain }),
    })
    this.last = written[next] ?? name
    return written
  }

  random(name: string, dims: readonly number[], amplitude: number): string {
    return this.weight(randomWeight({ seed: this.seed, name, dims, amplitude }))
  }

  /** Adds a weight once per name; returns its name. */
  weight(weight: Weight): string {
    if (!this.weights.some(({ name }) => name === weight.name)) this.weights.push(weight)
    return weight.name
  }

  end({ name, input, outputElementType, classes }: ChainEnd): OnnxModel {
    const last = this.nodes.at(-1)
    if (last !== undefined) last.output = ['output']
    const graph: MessageInitShape<typeof GraphProtoSchema> = {
      name,
      node: this.nodes,
      input: [batched('input', input.elementType, input.shape)],
      output: [batched('output', outputElementType, [classes])],
    }
    const domains = [...new Set(this.nodes.map((node) => node.domain ?? ''))].filter((one) => one !== '')
    return { graph, weights: this.weights, domains }
  }
}
