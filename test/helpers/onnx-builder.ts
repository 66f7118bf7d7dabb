/** Builders of small ONNX models for tests. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import {
  type AttributeProto,
  AttributeProtoSchema,
  type GraphProto,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from '../../src/onnx/onnx_pb.js'

export const ELEMENT = {
  float: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  double: 11,
  bfloat16: 16,
  int4: 22,
} as const

export function value(
  name: string,
  elemType: number,
  shape: readonly (number | string)[] | null,
): ValueInfoProto {
  const dim = shape?.map((size) => ({
    value:
      typeof size === 'number'
        ? { case: 'dimValue' as const, value: BigInt(size) }
        : { case: 'dimParam' as const, value: size },
  }))
  return create(ValueInfoProtoSchema, {
    name,
    type: {
      value: { case: 'tensorType', value: { elemType, ...(dim === undefined ? {} : { shape: { dim } }) } },
    },
  })
}

export function sequence(name: string, elemType: number): ValueInfoProto {
  return create(ValueInfoProtoSchema, {
    name,
    type: {
      value: {
        case: 'sequenceType',
        value: { elemType: { value: { case: 'tensorType', value: { elemType } } } },
      },
    },
  })
}

export function floats(name: string, shape: readonly number[], values: ArrayLike<number>): TensorProto {
  return create(TensorProtoSchema, {
    name,
    dims: shape.map(BigInt),
    dataType: ELEMENT.float,
    rawData: new Uint8Array(Float32Array.from(values).buffer),
  })
}

export function intAttribute(name: string, i: number): AttributeProto {
  return create(AttributeProtoSchema, { name, type: 2, i: BigInt(i) })
}

export function graphAttribute(name: string, g: GraphProto): AttributeProto {
  return create(AttributeProtoSchema, { name, type: 5, g })
}

export function node(
  opType: string,
  input: string[],
  output: string[],
  options: { attribute?: AttributeProto[]; domain?: string } = {},
): NodeProto {
  return create(NodeProtoSchema, { opType, input, output, name: `${opType}_${output[0]}`, ...options })
}

export function graph(parts: {
  input: ValueInfoProto[]
  output: ValueInfoProto[]
  node: NodeProto[]
  initializer?: TensorProto[]
}): GraphProto {
  return create(GraphProtoSchema, { name: 'graph', ...parts })
}

export function modelBytes(parts: GraphProto, opset = 21): Uint8Array {
  return toBinary(
    ModelProtoSchema,
    create(ModelProtoSchema, {
      irVersion: 10n,
      graph: parts,
      opsetImport: [{ domain: '', version: BigInt(opset) }],
    }),
  )
}

/** Writes `DIR/NAME/VERSION/model.onnx`; returns DIR. */
export function writeModel(dir: string, name: string, bytes: Uint8Array, version = '1'): string {
  const path = join(dir, name, version, 'model.onnx')
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, bytes)
  return dir
}

/** `y = x + constant`, x FP32 [batch, 2]. */
export function addModel(constant: readonly [number, number] = [1, 2]): Uint8Array {
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['batch', 2])],
      output: [value('y', ELEMENT.float, ['batch', 2])],
      node: [node('Add', ['x', 'constant'], ['y'])],
      initializer: [floats('constant', [2], constant)],
    }),
  )
}

/**
 * A model with a run time set by the request: `iterations` INT64 [] products of a 128x128 matrix with itself,
 * about 0.1 ms each. Output `y` FP32 [128, 128].
 */
export function slowModel(): Uint8Array {
  const size = 128
  const identity = new Float32Array(size * size)
  for (let i = 0; i < size; i++) identity[i * size + i] = 1
  const body = graph({
    input: [
      value('i', ELEMENT.int64, []),
      value('going', ELEMENT.bool, []),
      value('state', ELEMENT.float, [size, size]),
    ],
    output: [value('still_going', ELEMENT.bool, []), value('next', ELEMENT.float, [size, size])],
    node: [node('Identity', ['going'], ['still_going']), node('MatMul', ['state', 'weight'], ['next'])],
  })
  return modelBytes(
    graph({
      input: [value('iterations', ELEMENT.int64, [])],
      output: [value('y', ELEMENT.float, [size, size])],
      node: [node('Loop', ['iterations', '', 'start'], ['y'], { attribute: [graphAttribute('body', body)] })],
      initializer: [floats('start', [size, size], identity), floats('weight', [size, size], identity)],
    }),
  )
}

export function int64s(name: string, shape: readonly number[], values: readonly number[]): TensorProto {
  return create(TensorProtoSchema, {
    name,
    dims: shape.map(BigInt),
    dataType: ELEMENT.int64,
    rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  })
}

export function int32s(name: string, shape: readonly number[], values: readonly number[]): TensorProto {
  return create(TensorProtoSchema, {
    name,
    dims: shape.map(BigInt),
    dataType: ELEMENT.int32,
    rawData: new Uint8Array(Int32Array.from(values).buffer),
  })
}

/**
 * `z = x / (y - 1)`, x and y INT32 [batch]. -2147483648 over 0 - 1 ends the process with SIGFPE, and the
 * server cannot predict it from the request.
 */
export function crashingModel(): Uint8Array {
  const { int32 } = ELEMENT
  return modelBytes(
    graph({
      input: [value('x', int32, ['batch']), value('y', int32, ['batch'])],
      output: [value('z', int32, ['batch'])],
      node: [node('Sub', ['y', 'one'], ['divisor']), node('Div', ['x', 'divisor'], ['z'])],
      initializer: [int32s('one', [1], [1])],
    }),
  )
}

/** `y = x` in any element type, [n]. */
export function identityModel(element: number): Uint8Array {
  return modelBytes(
    graph({
      input: [value('x', element, ['n'])],
      output: [value('y', element, ['n'])],
      node: [node('Identity', ['x'], ['y'])],
    }),
  )
}

/** `z = x / y`, INT32 [batch]. */
export function integerDivision(): Uint8Array {
  const { int32 } = ELEMENT
  return modelBytes(
    graph({
      input: [value('x', int32, ['batch']), value('y', int32, ['batch'])],
      output: [value('z', int32, ['batch'])],
      node: [node('Div', ['x', 'y'], ['z'])],
    }),
  )
}

/** Pseudo-random weights between -1 and 1, the same in every run. */
export function weights(name: string, shape: readonly number[]): TensorProto {
  const count = shape.reduce((product, size) => product * size, 1)
  return floats(
    name,
    shape,
    Float32Array.from({ length: count }, (_, i) => Math.sin(1 + i * 12.9898)),
  )
}

/** `y = x W`, x FP32 [batch, 1024], with about that many bytes of weights. */
export function wideModel(weightBytes: number): Uint8Array {
  const inputs = 1024
  const outputs = Math.round(weightBytes / (inputs * 4))
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['batch', inputs])],
      output: [value('y', ELEMENT.float, ['batch', outputs])],
      node: [node('MatMul', ['x', 'weight'], ['y'])],
      initializer: [weights('weight', [inputs, outputs])],
    }),
  )
}

/**
 * One quantized 3 x 3 convolution with int8 weights, 9 bytes for each pair of channels; x UINT8 [batch,
 * channels, 8, 8].
 */
export function quantisedConvolution(channels = 64): Uint8Array {
  const { uint8, int8 } = ELEMENT
  const scalar = (name: string, dataType: number) =>
    create(TensorProtoSchema, { name, dims: [], dataType, rawData: new Uint8Array(1) })
  const weight = Int8Array.from({ length: channels * channels * 9 }, (_, i) => ((i * 37) % 255) - 127)
  return modelBytes(
    graph({
      input: [value('x', uint8, ['batch', channels, 8, 8])],
      output: [value('y', uint8, ['batch', channels, 6, 6])],
      node: [node('QLinearConv', ['x', 'xs', 'xz', 'w', 'ws', 'wz', 'ys', 'yz'], ['y'])],
      initializer: [
        ...['xs', 'ws', 'ys'].map((name) => floats(name, [], [0.05])),
        scalar('xz', uint8),
        scalar('wz', int8),
        scalar('yz', uint8),
        create(TensorProtoSchema, {
          name: 'w',
          dims: [channels, channels, 3, 3].map(BigInt),
          dataType: int8,
          rawData: new Uint8Array(weight.buffer),
        }),
      ],
    }),
  )
}

/** `y = x + constant`, x FP32 [batch, 2]; the constant is external data at `location`, 8 bytes. */
export function addModelWithExternalData(location: string): Uint8Array {
  const constant = create(TensorProtoSchema, {
    name: 'constant',
    dims: [2n],
    dataType: ELEMENT.float,
    dataLocation: 1,
    externalData: Object.entries({ location, offset: '0', length: '8' }).map(([key, value]) => ({
      key,
      value,
    })),
  })
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['batch', 2])],
      output: [value('y', ELEMENT.float, ['batch', 2])],
      node: [node('Add', ['x', 'constant'], ['y'])],
      initializer: [constant],
    }),
  )
}

/** The bytes of the external constant. */
export function constantBytes(constant: readonly [number, number]): Uint8Array {
  return new Uint8Array(Float32Array.from(constant).buffer)
}
