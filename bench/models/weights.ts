/** The weights of generated models: uniform random numbers, with a separate seed for each tensor. */
import { FLOAT, INT8, INT64, type Weight } from './onnx-file.js'
import { createRandom } from './random.js'

const FLOATS_PER_PIECE = 1 << 18
const FLOAT_BYTES = 4

export interface RandomWeight {
  readonly seed: string
  readonly name: string
  readonly dims: readonly number[]
  /** Values are uniform in [-amplitude, amplitude). */
  readonly amplitude: number
}

function* randomFloats(seed: string, count: number, amplitude: number): Iterable<Uint8Array> {
  const random = createRandom(seed)
  for (let left = count; left > 0; left -= FLOATS_PER_PIECE) {
    const piece = new Float32Array(Math.min(left, FLOATS_PER_PIECE))
    for (let i = 0; i < piece.length; i++) piece[i] = (random() * 2 - 1) * amplitude
    yield new Uint8Array(piece.buffer)
  }
}

export function randomWeight({ seed, name, dims, amplitude }: RandomWeight): Weight {
  const count = dims.reduce((product, dim) => product * dim, 1)
  return {
    name,
    dataType: FLOAT,
    dims,
    bytes: count * FLOAT_BYTES,
    chunks: () => randomFloats(`${seed}/${name}`, count, amplitude),
  }
}

/** Uniform in [-127, 127]. */
export function int8Weight({ seed, name, dims }: Omit<RandomWeight, 'amplitude'>): Weight {
  const count = dims.reduce((product, dim) => product * dim, 1)
  return { name, dataType: INT8, dims, bytes: count, chunks: () => randomBytes(`${seed}/${name}`, count) }
}

function* randomBytes(seed: string, count: number): Iterable<Uint8Array> {
  const random = createRandom(seed)
  for (let left = count; left > 0; left -= FLOATS_PER_PIECE) {
    const piece = new Int8Array(Math.min(left, FLOATS_PER_PIECE))
    for (let i = 0; i < piece.length; i++) piece[i] = Math.round((random() * 2 - 1) * 127)
    yield new Uint8Array(piece.buffer)
  }
}

/** A vector of the given numbers. */
export function floatWeight(name: string, values: readonly number[]): Weight {
  const elements = Float32Array.from(values)
  return {
    name,
    dataType: FLOAT,
    dims: [values.length],
    bytes: elements.byteLength,
    chunks: () => [new Uint8Array(elements.buffer)],
  }
}

export function int64Weight(name: string, values: readonly number[]): Weight {
  const elements = BigInt64Array.from(values, BigInt)
  return {
    name,
    dataType: INT64,
    dims: [values.length],
    bytes: elements.byteLength,
    chunks: () => [new Uint8Array(elements.buffer)],
  }
}

/** Keeps the variance of activations constant in a layer with Relu (He et al. 2015), for any depth. */
export function reluAmplitude(fanIn: number): number {
  return Math.sqrt(6 / fanIn)
}

/** The same for a layer without Relu. */
export function unitAmplitude(fanIn: number): number {
  return Math.sqrt(3 / fanIn)
}
