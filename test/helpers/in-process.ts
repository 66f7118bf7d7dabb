/** The reference: the runtime in this process, on the original file, without any part of the server. */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import type { WireTensor } from './v2-client.js'

// The binding accepts float16 only as bits; its JavaScript part looks for Float16Array at the first tensor.
const float16Array = Object.getOwnPropertyDescriptor(globalThis, 'Float16Array')
if (float16Array !== undefined) Reflect.deleteProperty(globalThis, 'Float16Array')
new Tensor('bool', [true], [1])
if (float16Array !== undefined) Object.defineProperty(globalThis, 'Float16Array', float16Array)

const TYPES: Record<string, string> = {
  BOOL: 'bool',
  UINT8: 'uint8',
  INT8: 'int8',
  UINT16: 'uint16',
  INT16: 'int16',
  UINT32: 'uint32',
  INT32: 'int32',
  UINT64: 'uint64',
  INT64: 'int64',
  FP16: 'float16',
  FP32: 'float32',
  FP64: 'float64',
  BYTES: 'string',
}
const DATATYPES = Object.fromEntries(Object.entries(TYPES).map(([datatype, type]) => [type, datatype]))

const ARRAYS: Record<string, new (buffer: ArrayBuffer) => ArrayLike<unknown>> = {
  BOOL: Uint8Array,
  UINT8: Uint8Array,
  INT8: Int8Array,
  UINT16: Uint16Array,
  INT16: Int16Array,
  UINT32: Uint32Array,
  INT32: Int32Array,
  UINT64: BigUint64Array,
  INT64: BigInt64Array,
  FP16: Uint16Array,
  FP32: Float32Array,
  FP64: Float64Array,
}

function toRuntime({ datatype, shape, bytes, strings }: WireTensor): Tensor {
  const Construct = Tensor as unknown as new (type: string, data: unknown, shape: readonly number[]) => Tensor
  if (strings !== undefined) return new Construct('string', [...strings], shape)
  const buffer = Uint8Array.from(bytes ?? []).buffer
  const ArrayType = ARRAYS[datatype]
  if (ArrayType === undefined) throw new Error(`the runtime's binding has no ${datatype}`)
  return new Construct(TYPES[datatype] as string, new ArrayType(buffer), shape)
}

function fromRuntime(name: string, { type, dims, data }: Tensor): WireTensor {
  const datatype = DATATYPES[type] ?? type
  const shape = [...dims]
  if (type === 'string') return { name, datatype, shape, strings: data as string[] }
  const view = data as Uint8Array
  return {
    name,
    datatype,
    shape,
    bytes: Uint8Array.from(new Uint8Array(view.buffer, view.byteOffset, view.byteLength)),
  }
}

/** Runs a model file once. Inputs without a name are assigned by position. Only tensor outputs. */
export async function runInProcess(
  path: string,
  inputs: readonly WireTensor[],
): Promise<{ inputs: WireTensor[]; outputs: WireTensor[] }> {
  const session = await InferenceSession.create(path, {
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  })
  try {
    const named = inputs.map((tensor, i) => ({
      ...tensor,
      name: session.inputNames.includes(tensor.name) ? tensor.name : (session.inputNames[i] as string),
    }))
    const outputNames = session.outputMetadata
      .filter((output) => output.isTensor)
      .map((output) => output.name)
    const feeds = Object.fromEntries(named.map((tensor) => [tensor.name, toRuntime(tensor)]))
    const results = await session.run(feeds, outputNames)
    return { inputs: named, outputs: outputNames.map((name) => fromRuntime(name, results[name] as Tensor)) }
  } finally {
    await session.release()
  }
}

/** Compares bits, but treats all NaNs as equal: JSON cannot carry their payload. */
export function differenceBetween(
  expected: readonly WireTensor[],
  got: readonly WireTensor[],
): string | null {
  if (expected.length !== got.length) return `expected ${expected.length} outputs, got ${got.length}`
  for (const [i, want] of expected.entries()) {
    const have = got[i] as WireTensor
    const where = `output ${want.name}`
    if (have.name !== want.name) return `${where}: got ${have.name}`
    if (have.datatype !== want.datatype) return `${where}: expected ${want.datatype}, got ${have.datatype}`
    if (have.shape.join() !== want.shape.join())
      return `${where}: expected shape [${want.shape}], got [${have.shape}]`
    if (want.strings !== undefined) {
      if (JSON.stringify(have.strings) !== JSON.stringify(want.strings)) return `${where}: strings differ`
      continue
    }
    if (!sameElements(want, have)) return `${where}: elements differ`
  }
  return null
}

function sameElements(want: WireTensor, have: WireTensor): boolean {
  const expected = Buffer.from(want.bytes ?? [])
  const got = Buffer.from(have.bytes ?? [])
  if (expected.equals(got)) return true
  if (expected.length !== got.length || (want.datatype !== 'FP32' && want.datatype !== 'FP64')) return false
  const ArrayType = want.datatype === 'FP32' ? Float32Array : Float64Array
  const a = new ArrayType(Uint8Array.from(expected).buffer)
  const b = new ArrayType(Uint8Array.from(got).buffer)
  return a.every((number, i) => Object.is(number, b[i]))
}
