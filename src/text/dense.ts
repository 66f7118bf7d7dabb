/** The dense layers behind the pooling of some sentence models: weights out of a safetensors file. */
import { readFile } from 'node:fs/promises'
import * as z from 'zod'
import type { DenseDescription } from './description.js'
import { invalid, sha256Of } from './hub-files.js'

const MAX_FILE_BYTES = 256 * 1024 * 1024
const NAMES = { weight: 'linear.weight', bias: 'linear.bias' } as const

const headerSchema = z.record(
  z.string(),
  z.looseObject({
    dtype: z.string().optional(),
    shape: z.array(z.int().nonnegative()).optional(),
    data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]).optional(),
  }),
)

export interface DenseLayer {
  /** [outputs, inputs], row-major. */
  readonly weight: Float32Array
  readonly bias: Float32Array | null
  readonly description: DenseDescription
}

/** Format: https://huggingface.co/docs/safetensors: 8 bytes of length, a JSON header, the data. */
function tensorOf(
  bytes: Buffer,
  name: string,
  { path, shape }: { path: string; shape: readonly number[] },
): Float32Array {
  const headerBytes = bytes.length < 8 ? Number.NaN : Number(bytes.readBigUInt64LE(0))
  if (!(headerBytes <= bytes.length - 8)) throw invalid(path, 'expected a safetensors file')
  let value: unknown
  try {
    value = JSON.parse(bytes.subarray(8, 8 + headerBytes).toString('utf8'))
  } catch {
    throw invalid(path, 'expected a safetensors file')
  }
  const header = headerSchema.safeParse(value)
  const found = header.data?.[name]
  if (found?.data_offsets === undefined) throw invalid(path, `expected a tensor ${name}, found none`)
  if (found.dtype !== 'F32' || String(found.shape) !== String(shape))
    throw invalid(
      path,
      `${name}: expected F32 [${shape.join(', ')}], got ${found.dtype} [${found.shape?.join(', ')}]`,
    )
  const [begin, end] = found.data_offsets
  const count = shape.reduce((product, size) => product * size, 1)
  if (end - begin !== 4 * count || 8 + headerBytes + end > bytes.length)
    throw invalid(path, `${name}: expected ${4 * count} bytes inside the file`)
  return new Float32Array(
    Uint8Array.from(bytes.subarray(8 + headerBytes + begin, 8 + headerBytes + end)).buffer,
  )
}

/** @throws OnecopyError REPOSITORY_INVALID. */
export async function readDense(description: DenseDescription): Promise<DenseLayer> {
  const { inputs, outputs, hasBias, weights } = description
  const { path } = weights
  const bytes = await readFile(path)
  if (bytes.length > MAX_FILE_BYTES) throw invalid(path, `expected at most ${MAX_FILE_BYTES} bytes`)
  if (sha256Of(bytes) !== weights.sha256) throw invalid(path, 'it has changed since the folder was read')
  return {
    weight: tensorOf(bytes, NAMES.weight, { path, shape: [outputs, inputs] }),
    bias: hasBias ? tensorOf(bytes, NAMES.bias, { path, shape: [outputs] }) : null,
    description,
  }
}

export function applyDense({ weight, bias, description }: DenseLayer, vector: Float32Array): Float32Array {
  const { inputs, outputs, activation } = description
  const result = new Float32Array(outputs)
  for (let row = 0; row < outputs; row++) {
    let sum = bias?.[row] ?? 0
    for (let i = 0; i < inputs; i++) sum += (weight[row * inputs + i] as number) * (vector[i] as number)
    result[row] = activation === 'tanh' ? Math.tanh(sum) : sum
  }
  return result
}
