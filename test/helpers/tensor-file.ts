/**
 * Reads ONNX TensorProto files (`input_0.pb`), including the element arrays that the schema of the server
 * omits.
 */
import { readFileSync } from 'node:fs'
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import type { WireTensor } from './v2-client.js'

const TYPES: Record<number, { datatype: string; bytes: number }> = {
  1: { datatype: 'FP32', bytes: 4 },
  2: { datatype: 'UINT8', bytes: 1 },
  3: { datatype: 'INT8', bytes: 1 },
  4: { datatype: 'UINT16', bytes: 2 },
  5: { datatype: 'INT16', bytes: 2 },
  6: { datatype: 'INT32', bytes: 4 },
  7: { datatype: 'INT64', bytes: 8 },
  8: { datatype: 'BYTES', bytes: 0 },
  9: { datatype: 'BOOL', bytes: 1 },
  10: { datatype: 'FP16', bytes: 2 },
  11: { datatype: 'FP64', bytes: 8 },
  12: { datatype: 'UINT32', bytes: 4 },
  13: { datatype: 'UINT64', bytes: 8 },
  16: { datatype: 'BF16', bytes: 2 },
}

/** A repeated number field, packed or not. */
function readNumbers<T>(reader: BinaryReader, wireType: WireType, readOne: () => T, into: T[]): void {
  if (wireType !== WireType.LengthDelimited) {
    into.push(readOne())
    return
  }
  const end = reader.uint32() + reader.pos
  while (reader.pos < end) into.push(readOne())
}

/** Null for an element type without a datatype in the protocol. */
export function readTensorFile(path: string): WireTensor | null {
  const reader = new BinaryReader(readFileSync(path))
  const dims: number[] = []
  let dataType = 0
  let name = ''
  let raw: Uint8Array | null = null
  const floats: number[] = []
  const int32s: number[] = []
  const int64s: bigint[] = []
  const doubles: number[] = []
  const uint64s: bigint[] = []
  const strings: string[] = []
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag()
    if (field === 1) readNumbers(reader, wireType, () => Number(reader.int64()), dims)
    else if (field === 2) dataType = reader.int32()
    else if (field === 4) readNumbers(reader, wireType, () => reader.float(), floats)
    else if (field === 5) readNumbers(reader, wireType, () => reader.int32(), int32s)
    else if (field === 6) strings.push(new TextDecoder().decode(reader.bytes()))
    else if (field === 7) readNumbers(reader, wireType, () => BigInt(reader.int64()), int64s)
    else if (field === 8) name = reader.string()
    else if (field === 9) raw = reader.bytes()
    else if (field === 10) readNumbers(reader, wireType, () => reader.double(), doubles)
    else if (field === 11) readNumbers(reader, wireType, () => BigInt(reader.uint64()), uint64s)
    else reader.skip(wireType, field)
  }
  const type = TYPES[dataType]
  if (type === undefined) return null
  const { datatype } = type
  if (datatype === 'BYTES') return { name, datatype, shape: dims, strings }
  return { name, datatype, shape: dims, bytes: raw === null ? packed() : Uint8Array.from(raw) }

  function packed(): Uint8Array {
    const count = dims.reduce((product, size) => product * size, 1)
    const bytes = new Uint8Array(count * (type?.bytes ?? 0))
    const view = new DataView(bytes.buffer)
    for (let i = 0; i < count; i++) {
      const at = i * (type?.bytes ?? 0)
      if (datatype === 'FP32') view.setFloat32(at, floats[i] as number, true)
      else if (datatype === 'FP64') view.setFloat64(at, doubles[i] as number, true)
      else if (datatype === 'INT64') view.setBigInt64(at, int64s[i] as bigint, true)
      else if (datatype === 'UINT64') view.setBigUint64(at, uint64s[i] as bigint, true)
      else if (datatype === 'UINT32') view.setUint32(at, Number(uint64s[i]), true)
      else if (type?.bytes === 4) view.setInt32(at, int32s[i] as number, true)
      else if (type?.bytes === 2) view.setUint16(at, int32s[i] as number, true)
      else view.setUint8(at, int32s[i] as number)
    }
    return bytes
  }
}
