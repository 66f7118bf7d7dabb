/**
 * Pools the states of a text's tokens to one vector. It runs in the inference thread, because the states are hundreds of
 * times as large as the vector: the event loop never receives them.
 */
import { floatsOf, type Tensor } from './tensor.js'

export const POOLINGS = ['mean', 'cls', 'last', 'max'] as const
export type Pooling = (typeof POOLINGS)[number]

/** How an output [rows, tokens, hidden] becomes [rows, hidden]. */
export interface TokenPooling {
  readonly kind: Pooling
  /** Tokens of each row, without padding. */
  readonly lengths: readonly number[]
}

/** @param states Those of one row, [tokens, hidden]. */
export function pool(
  kind: Pooling,
  states: Float32Array,
  { length, hidden }: { readonly length: number; readonly hidden: number },
): Float32Array {
  if (kind === 'cls') return states.subarray(0, hidden)
  if (kind === 'last') return states.subarray((length - 1) * hidden, length * hidden)
  return kind === 'max' ? highest(states, length, hidden) : mean(states, length, hidden)
}

function mean(states: Float32Array, length: number, hidden: number): Float32Array {
  // Sums in double precision: the same whatever the order of the batch.
  const sums = new Float64Array(hidden)
  for (let at = 0; at < length * hidden; at += hidden)
    for (let i = 0; i < hidden; i++) sums[i] = (sums[i] as number) + (states[at + i] as number)
  const result = new Float32Array(hidden)
  for (let i = 0; i < hidden; i++) result[i] = (sums[i] as number) / length
  return result
}

function highest(states: Float32Array, length: number, hidden: number): Float32Array {
  const result = new Float32Array(hidden).fill(Number.NEGATIVE_INFINITY)
  for (let at = 0; at < length * hidden; at += hidden)
    for (let i = 0; i < hidden; i++) result[i] = Math.max(result[i] as number, states[at + i] as number)
  return result
}

/** Returns FP32 [rows, hidden]. An output of an unexpected shape is returned unchanged, and its reader refuses it. */
export function poolTokens(output: Tensor, { kind, lengths }: TokenPooling): Tensor {
  const { name, shape } = output
  const [rows = 0, tokens = 0, hidden = 0] = shape
  if (shape.length !== 3 || rows !== lengths.length || lengths.some((length) => length > tokens))
    return output
  const states = floatsOf(output)
  const data = new Float32Array(rows * hidden)
  for (const [row, length] of lengths.entries()) {
    const own = states.subarray(row * tokens * hidden, (row + 1) * tokens * hidden)
    data.set(pool(kind, own, { length, hidden }), row * hidden)
  }
  return { name, datatype: 'FP32', shape: [rows, hidden], data }
}
