/** Compares outputs of a model between runs of single rows and joint runs. */
import type { Datatype, Tensor, TensorSpec } from '../tensor.js'
import { halfValue } from './float-bits.js'

/**
 * The largest permitted difference, relative to the largest value of the output. Kernels for one row and for
 * many add in different orders, which causes differences of 1e-7 to 1e-5 in single precision. Rows that influence
 * each other differ by as much as the rows themselves. Half types round at 1e-3 and 8e-3. Other datatypes must be
 * equal: a result that flips on a tie is a different result.
 */
const FLOAT_TOLERANCES: Partial<Record<Datatype, number>> = { FP64: 1e-9, FP32: 1e-4, FP16: 2e-2, BF16: 2e-2 }

/** The elements of a float tensor as numbers; null for other datatypes. */
function floatsOf({ datatype, data }: Tensor): ArrayLike<number> | null {
  if (datatype === 'FP32' || datatype === 'FP64') return data as Float32Array
  if (datatype === 'FP16') return Float32Array.from(data as Uint16Array, halfValue)
  // A bfloat16 is the upper half of a float32.
  if (datatype === 'BF16')
    return new Float32Array(Uint32Array.from(data as Uint16Array, (bits) => bits << 16).buffer)
  return null
}

export function isSameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis])
}

/**
 * The largest difference between rows of `joint` and the same rows run alone; null if all are within the
 * tolerance.
 */
export function largestDifference(joint: Tensor, alone: readonly Tensor[], tolerance: number): number | null {
  const together = floatsOf(joint)
  let largest = 0
  alone.forEach((tensor, row) => {
    const single = floatsOf(tensor)
    const offset = row * tensor.data.length
    for (let i = 0; i < tensor.data.length; i++) {
      const a = (together ?? joint.data)[offset + i]
      const b = (single ?? tensor.data)[i]
      if (Object.is(a, b) || a === b) continue
      // Infinity or NaN compared with anything else, and unequal values of other datatypes, count as infinite
      // differences.
      const difference =
        together === null ? Number.POSITIVE_INFINITY : Math.abs((a as number) - (b as number))
      largest = Math.max(largest, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference)
    }
  })
  return largest > tolerance ? largest : null
}

/**
 * The largest magnitude of an output over rows run alone (`scale`), and the largest difference between these
 * rows (`spread`).
 */
export function extent(alone: readonly Tensor[]): { scale: number; spread: number } {
  const rows = alone.map((tensor) => floatsOf(tensor))
  const [first] = alone as [Tensor]
  let scale = 0
  let spread = 0
  for (let i = 0; i < first.data.length; i++) {
    let low = Number.POSITIVE_INFINITY
    let high = Number.NEGATIVE_INFINITY
    alone.forEach(({ data }, row) => {
      const element = rows[row]?.[i] ?? (data[i] === first.data[i] ? 0 : 1)
      if (!Number.isFinite(element)) return
      low = Math.min(low, element)
      high = Math.max(high, element)
    })
    if (low > high) continue
    scale = Math.max(scale, Math.abs(low), Math.abs(high))
    spread = Math.max(spread, high - low)
  }
  return { scale, spread }
}

/** The permitted difference for an output of magnitude `scale`. */
export function toleranceOf({ datatype }: TensorSpec, scale: number): number {
  return (FLOAT_TOLERANCES[datatype] ?? 0) * scale
}

/** One row of a joint output, as a tensor with one row. */
export function rowOf(joint: Tensor, at: number): Tensor {
  const [rows = 1, ...rest] = joint.shape
  const elements = joint.data.length / Math.max(1, rows)
  const data = joint.data.slice(at * elements, (at + 1) * elements) as Tensor['data']
  return { ...joint, shape: [1, ...rest], data }
}
