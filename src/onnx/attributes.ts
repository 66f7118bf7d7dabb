/**
 * Decodes node attributes and elements of small tensors on demand. The protobuf schema omits inline arrays,
 * so that parsing never boxes weights.
 *
 * Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 */
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { isExternal } from './graph.js'
import type { AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto } from './onnx_pb.js'

const ATTRIBUTE = { f: 2, s: 4, floats: 7, ints: 8, strings: 9 } as const
const TENSOR = { floats: 4, int32s: 5, int64s: 7, doubles: 10, uint64s: 11 } as const
const FUNCTION_DOMAIN = 10

interface UnknownFields {
  readonly $unknown?: readonly { no: number; wireType: WireType; data: Uint8Array }[] | undefined
}

/** All elements of a repeated field, packed or not. */
function elementsOf<T>(message: UnknownFields, field: number, read: (reader: BinaryReader) => T): T[] {
  const elements: T[] = []
  for (const { no, wireType, data } of message.$unknown ?? []) {
    if (no !== field) continue
    const reader = new BinaryReader(data)
    if (wireType !== WireType.LengthDelimited) {
      elements.push(read(reader))
      continue
    }
    const packed = new BinaryReader(reader.bytes())
    while (packed.pos < packed.len) elements.push(read(packed))
  }
  return elements
}

function textsOf(message: UnknownFields, field: number): string[] {
  return (message.$unknown ?? [])
    .filter(({ no }) => no === field)
    .map(({ data }) => new TextDecoder().decode(new BinaryReader(data).bytes()))
}

const int64 = (reader: BinaryReader): number => Number(reader.int64())
const float = (reader: BinaryReader): number => reader.float()

/** The attributes of one node, by name. */
export class Attributes {
  readonly #byName: ReadonlyMap<string, AttributeProto>

  constructor({ attribute }: NodeProto) {
    this.#byName = new Map(attribute.map((one) => [one.name, one]))
  }

  has(name: string): boolean {
    return this.#byName.has(name)
  }

  int(name: string): number | undefined {
    const attribute = this.#byName.get(name)
    return attribute === undefined ? undefined : Number(attribute.i)
  }

  ints(name: string): number[] | undefined {
    const attribute = this.#byName.get(name)
    return attribute && elementsOf(attribute, ATTRIBUTE.ints, int64)
  }

  float(name: string): number | undefined {
    const attribute = this.#byName.get(name)
    return attribute && elementsOf(attribute, ATTRIBUTE.f, float)[0]
  }

  floats(name: string): number[] | undefined {
    const attribute = this.#byName.get(name)
    return attribute && elementsOf(attribute, ATTRIBUTE.floats, float)
  }

  text(name: string): string | undefined {
    const attribute = this.#byName.get(name)
    return attribute && textsOf(attribute, ATTRIBUTE.s)[0]
  }

  texts(name: string): string[] | undefined {
    const attribute = this.#byName.get(name)
    return attribute && textsOf(attribute, ATTRIBUTE.strings)
  }

  tensor(name: string): TensorProto | undefined {
    return this.#byName.get(name)?.t
  }

  graph(name: string): GraphProto | undefined {
    return this.#byName.get(name)?.g
  }
}

export function functionDomain(declared: FunctionProto): string {
  return textsOf(declared, FUNCTION_DOMAIN)[0] ?? ''
}

type Reading = readonly [bytes: number, read: (view: DataView, at: number) => number]

/** How to read elements of each supported integer type (by TensorProto.DataType), little-endian. */
const INTEGERS: Record<number, Reading> = {
  2: [1, (view, at) => view.getUint8(at)],
  3: [1, (view, at) => view.getInt8(at)],
  4: [2, (view, at) => view.getUint16(at, true)],
  5: [2, (view, at) => view.getInt16(at, true)],
  6: [4, (view, at) => view.getInt32(at, true)],
  7: [8, (view, at) => Number(view.getBigInt64(at, true))],
  9: [1, (view, at) => view.getUint8(at)],
  12: [4, (view, at) => view.getUint32(at, true)],
  13: [8, (view, at) => Number(view.getBigUint64(at, true))],
}
const FLOATS: Record<number, Reading> = {
  1: [4, (view, at) => view.getFloat32(at, true)],
  11: [8, (view, at) => view.getFloat64(at, true)],
}

function inlineElements(tensor: TensorProto): number[] {
  switch (tensor.dataType) {
    case 1:
      return elementsOf(tensor, TENSOR.floats, float)
    case 11:
      return elementsOf(tensor, TENSOR.doubles, (reader) => reader.double())
    case 7:
      return elementsOf(tensor, TENSOR.int64s, int64)
    case 12:
    case 13:
      return elementsOf(tensor, TENSOR.uint64s, (reader) => Number(reader.uint64()))
    default:
      return elementsOf(tensor, TENSOR.int32s, (reader) => reader.int32())
  }
}

export interface SmallTensor {
  readonly kind: 'integers' | 'floats'
  readonly elements: readonly number[]
}

/** The elements of a tensor with at most `limit` inline elements of a supported datatype; null otherwise. */
export function smallTensor(tensor: TensorProto, limit: number): SmallTensor | null {
  const count = tensor.dims.reduce((product, size) => product * Number(size), 1)
  const integer = INTEGERS[tensor.dataType]
  const [bytes, read] = integer ?? FLOATS[tensor.dataType] ?? [0, null]
  if (read === null || count > limit || isExternal(tensor)) return null
  const { rawData } = tensor
  let elements: number[]
  if (rawData.byteLength > 0) {
    if (rawData.byteLength !== count * bytes) return null
    const view = new DataView(rawData.buffer, rawData.byteOffset, rawData.byteLength)
    elements = Array.from({ length: count }, (_, i) => read(view, i * bytes))
  } else elements = inlineElements(tensor)
  if (elements.length !== count) return null
  return { kind: integer === undefined ? 'floats' : 'integers', elements }
}
