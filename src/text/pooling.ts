/** From the states of a text's tokens to one vector, over its own tokens only: padding does not count. */
import type { Pooling } from './description.js'

/**
 * @param states [length of the batch, hidden] of one row.
 * @param length Tokens of the row itself.
 */
export function pool(
  pooling: Pooling,
  states: Float32Array,
  { length, hidden }: { readonly length: number; readonly hidden: number },
): Float32Array {
  if (pooling === 'cls') return states.slice(0, hidden)
  if (pooling === 'last') return states.slice((length - 1) * hidden, length * hidden)
  // Sums in double precision: the same whatever the order of the batch.
  const result = new Float64Array(hidden).fill(pooling === 'max' ? Number.NEGATIVE_INFINITY : 0)
  for (let token = 0; token < length; token++) {
    for (let i = 0; i < hidden; i++) {
      const state = states[token * hidden + i] as number
      result[i] = pooling === 'max' ? Math.max(result[i] as number, state) : (result[i] as number) + state
    }
  }
  return Float32Array.from(result, (sum) => (pooling === 'max' ? sum : sum / length))
}

/** A vector of length 1; one of zeros stays as it is. */
export function normalize(vector: Float32Array): Float32Array {
  let square = 0
  for (const value of vector) square += value * value
  const length = Math.sqrt(square)
  return length === 0 ? vector : vector.map((value) => value / length)
}

export function softmax(logits: ArrayLike<number>): number[] {
  const values = Array.from(logits)
  const highest = Math.max(...values)
  const powers = values.map((value) => Math.exp(value - highest))
  const sum = powers.reduce((total, power) => total + power, 0)
  return powers.map((power) => power / sum)
}

export function sigmoid(logit: number): number {
  return 1 / (1 + Math.exp(-logit))
}
