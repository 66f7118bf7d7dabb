/** The runtime settings of the Node variants: all useful settings are set. */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import type { PlainTensor, PlainTensors } from './v2-codec.js'

export const SESSION_OPTIONS: InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  // One thread per worker, and as many workers as cores. By default every worker has a thread per core, and
  // the threads of all workers spin against each other, which halves the throughput on two cores.
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  // The default, and correct: the operators of these models form a chain.
  executionMode: 'sequential',
  // The default, stated because onecopy compiles with the same level.
  graphOptimizationLevel: 'all',
  // The defaults, which trade memory for speed. Without them the variants would be slower.
  enableCpuMemArena: true,
  enableMemPattern: true,
}

const TYPES: Record<string, Tensor.Type | undefined> = { FP32: 'float32', INT64: 'int64', INT32: 'int32' }
const DATATYPES: Record<string, string | undefined> = { float32: 'FP32', int64: 'INT64', int32: 'INT32' }

function toTensor({ datatype, shape, data }: PlainTensor): Tensor {
  const type = TYPES[datatype]
  if (type === undefined) throw new Error(`expected FP32, INT32 or INT64, got ${datatype}`)
  return new Tensor(type, data as Float32Array, [...shape])
}

export function toTensors(feeds: PlainTensors): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, toTensor(tensor)]))
}

export async function openSession(path: string): Promise<InferenceSession> {
  return await InferenceSession.create(path, SESSION_OPTIONS)
}

/** Runs the model once; returns all outputs if none is selected. */
export async function runSession(
  session: InferenceSession,
  feeds: PlainTensors,
  outputNames?: readonly string[],
): Promise<PlainTensors> {
  const results = await session.run(toTensors(feeds), [...(outputNames ?? session.outputNames)])
  return Object.fromEntries(
    Object.entries(results).map(([name, { type, dims, data }]) => [
      name,
      { datatype: DATATYPES[type] ?? type, shape: dims, data: data as Float32Array },
    ]),
  )
}
