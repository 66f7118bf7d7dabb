/** A model that returns its inputs, with one input and output for each datatype of the protocol. */
import type { InputTensor } from '../../src/client/client.js'
import { graph, modelBytes, node, value } from '../helpers/onnx-builder.js'

/** ONNX TensorProto.DataType. */
const ELEMENT_TYPES = {
  FP32: 1,
  UINT8: 2,
  INT8: 3,
  UINT16: 4,
  INT16: 5,
  INT32: 6,
  INT64: 7,
  BYTES: 8,
  BOOL: 9,
  FP16: 10,
  FP64: 11,
  UINT32: 12,
  UINT64: 13,
  BF16: 16,
} as const satisfies Record<InputTensor['datatype'], number>

const types = Object.entries(ELEMENT_TYPES)

/** Input `in_FP32`, output `FP32` and so on, each of shape [-1, 2]. */
export const IDENTITY_MODEL = modelBytes(
  graph({
    input: types.map(([name, type]) => value(`in_${name}`, type, ['n', 2])),
    output: types.map(([name, type]) => value(name, type, ['n', 2])),
    node: types.map(([name]) => node('Identity', [`in_${name}`], [name])),
  }),
)

const shape = [2, 2]

/** Values at the limits of each datatype. */
export const EDGES: readonly InputTensor[] = [
  { name: 'in_BOOL', datatype: 'BOOL', shape, data: Uint8Array.of(0, 1, 1, 0) },
  { name: 'in_UINT8', datatype: 'UINT8', shape, data: Uint8Array.of(0, 1, 127, 255) },
  { name: 'in_UINT16', datatype: 'UINT16', shape, data: Uint16Array.of(0, 1, 0x7fff, 0xffff) },
  { name: 'in_UINT32', datatype: 'UINT32', shape, data: Uint32Array.of(0, 1, 0x7fffffff, 0xffffffff) },
  {
    name: 'in_UINT64',
    datatype: 'UINT64',
    shape,
    data: BigUint64Array.of(0n, 1n, 2n ** 53n + 1n, 2n ** 64n - 1n),
  },
  { name: 'in_INT8', datatype: 'INT8', shape, data: Int8Array.of(-128, -1, 0, 127) },
  { name: 'in_INT16', datatype: 'INT16', shape, data: Int16Array.of(-0x8000, -1, 0, 0x7fff) },
  { name: 'in_INT32', datatype: 'INT32', shape, data: Int32Array.of(-0x80000000, -1, 0, 0x7fffffff) },
  {
    name: 'in_INT64',
    datatype: 'INT64',
    shape,
    data: BigInt64Array.of(-(2n ** 63n), -1n, 2n ** 53n + 1n, 2n ** 63n - 1n),
  },
  { name: 'in_FP16', datatype: 'FP16', shape, data: Uint16Array.of(0x3c00, 0x8000, 0x7e00, 0x7c00) },
  { name: 'in_BF16', datatype: 'BF16', shape, data: Uint16Array.of(0x3f80, 0x8000, 0x7fc0, 0xff80) },
  {
    name: 'in_FP32',
    datatype: 'FP32',
    shape,
    data: Float32Array.of(0.1, -0, Number.NaN, Number.POSITIVE_INFINITY),
  },
  {
    name: 'in_FP64',
    datatype: 'FP64',
    shape,
    data: Float64Array.of(0.1, -0, 2 ** 60, Number.NEGATIVE_INFINITY),
  },
  {
    name: 'in_BYTES',
    datatype: 'BYTES',
    shape,
    data: ['', 'a "quoted" \\ 12345678901234567890 ☃', new TextEncoder().encode('bytes'), '🦙'],
  },
]
