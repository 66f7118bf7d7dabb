/** Synthetic rows for trial runs: seeded, of any datatype, and all different. */
import {
  DATATYPES,
  type Datatype,
  elementCount,
  type NumericData,
  type Tensor,
  type TensorData,
  type TensorSpec,
} from '../tensor.js'
import { floatBits } from './float-bits.js'

/** Integer ranges and words. The second range is small enough for a small embedding. */
export const VOCABULARIES = [
  { integersBelow: 10, words: ['a', 'red', 'male', 'female', 'S', 'north', 'yes', '7'] },
  { integersBelow: 2, words: ['0', '1', '2', '3', '4', '5', '6', '7'] },
] as const
interface Vocabulary {
  readonly integersBelow: number
  readonly words: readonly string[]
}

/** Smaller rows can be equal by chance. */
const SMALL_ROW_ELEMENTS = 64

/** One tensor for each input, with a first dimension of 1. */
export type Row = readonly Tensor[]

/**
 * Mulberry32: uniform in [0, 1), the same on every machine. Source: https://github.com/bryc/code (public
 * domain).
 */
export function probeRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export interface RowOptions {
  readonly trial: Trial
  readonly indexLimits: IndexLimits
  readonly random: () => number
}

export interface Trial {
  readonly dimension: number
  readonly vocabulary: Vocabulary
  readonly range: readonly [number, number]
}

/** The shape of an input in a trial: one row, and `dimension` for every other variable dimension. */
export function rowShape(spec: TensorSpec, dimension: number): number[] {
  return (spec.shape ?? []).map((size, axis) => (axis === 0 ? 1 : size === -1 ? dimension : size))
}

/**
 * The smallest valid shape of an input with `dimension` for its other variable dimensions; fixed sizes are
 * kept.
 */
export function smallestShape({ shape }: TensorSpec, dimension: number): number[] {
  return (shape ?? []).map((size, axis) => (size !== -1 ? size : axis === 0 ? 1 : dimension))
}

/** The elements of one tensor, drawn in order. */
export function trialElements(
  datatype: Datatype,
  count: number,
  trial: Trial,
  random: () => number,
): TensorData {
  const { integersBelow, words } = trial.vocabulary
  const [low, high] = trial.range
  const integer = () => Math.floor(random() * integersBelow)
  const float = () => low + random() * (high - low)
  if (datatype === 'BYTES')
    return Array.from({ length: count }, () => words[Math.floor(random() * words.length)] ?? '')
  const data = new DATATYPES[datatype].storage(count)
  const draw: () => number | bigint =
    {
      BOOL: () => Math.floor(random() * 2),
      FP16: () => floatBits(datatype, float()),
      BF16: () => floatBits(datatype, float()),
      FP32: float,
      FP64: float,
      INT64: () => BigInt(integer()),
      UINT64: () => BigInt(integer()),
    }[datatype as string] ?? integer
  for (let i = 0; i < count; i++) data[i] = draw() as never
  return data
}

/** Table sizes by name of the input that indexes them. */
export type IndexLimits = ReadonlyMap<string, number>

/** Generates ordinary rows that differ from each other as far as possible. */
export function rowSource(
  inputs: readonly TensorSpec[],
  { trial, indexLimits, random }: RowOptions,
): () => Row {
  const shapes = inputs.map((spec) => rowShape(spec, trial.dimension))
  const isSmall = shapes.reduce((sum, shape) => sum + elementCount(shape), 0) <= SMALL_ROW_ELEMENTS
  const drawn = new Set<string>()
  const draw = (): Row =>
    inputs.map(({ name, datatype }, i) => {
      const shape = shapes[i] as number[]
      const integersBelow = indexLimits.get(name) ?? trial.vocabulary.integersBelow
      const own = { ...trial, vocabulary: { ...trial.vocabulary, integersBelow } }
      return { name, datatype, shape, data: trialElements(datatype, elementCount(shape), own, random) }
    })
  return () => {
    let row = draw()
    const text = () => row.map(({ data }) => String(data)).join(';')
    for (let tries = 0; isSmall && tries < 16 && drawn.has(text()); tries++) row = draw()
    if (isSmall) drawn.add(text())
    return row
  }
}

/** Bytes of tensors with these datatypes and shapes; NaN if a count exceeds the exact integers. */
export function bytesOf(tensors: readonly TensorSpec[], shapes: readonly (readonly number[])[]): number {
  const stringBytes = 16
  return tensors.reduce((sum, { datatype }, i) => {
    return sum + elementCount(shapes[i] ?? []) * (DATATYPES[datatype].bytes ?? stringBytes)
  }, 0)
}

/** Joins rows into one request, in order. */
export function joinRows(rows: readonly Row[]): Row {
  return (rows[0] ?? []).map((first, i) => {
    const parts = rows.map((row) => (row[i] as Tensor).data)
    const shape = [rows.length, ...first.shape.slice(1)]
    if (first.datatype === 'BYTES') return { ...first, shape, data: (parts as string[][]).flat() }
    const data = new DATATYPES[first.datatype].storage(elementCount(shape)) as Uint8Array<ArrayBuffer>
    parts.forEach((part, row) => {
      data.set(part as Uint8Array, row * part.length)
    })
    return { ...first, shape, data: data as NumericData }
  })
}
