/**
 * The only file that knows the batch axis: the first dimension of every input and output of a model that
 * batches. Requests are concatenated once, straight into the memory that the engine takes; results
 * are split into views.
 */
import { DATATYPES, type NumericData, type Tensor } from '../tensor.js'

/** Number of rows of a request; null if its inputs disagree: such a request runs alone. */
export function rowsOf(inputs: readonly Tensor[]): number | null {
  const rows = inputs[0]?.shape[0]
  if (rows === undefined || rows === 0) return null
  return inputs.every((tensor) => tensor.shape[0] === rows) ? rows : null
}

/** Requests with the same key can run together: same outputs, same shapes after the first dimension. */
export function compatibilityKey(inputs: readonly Tensor[], outputNames: readonly string[]): string {
  let key = outputNames.join('\n')
  for (const { shape } of inputs) {
    key += '|'
    for (let i = 1; i < shape.length; i++) key += `${shape[i]},`
  }
  return key
}

/**
 * Inputs of several compatible requests as those of one; every request has the model's inputs in its order.
 */
export function concatenate(requests: readonly (readonly Tensor[])[], rows: number): Tensor[] {
  const [first = []] = requests
  return first.map((like, index) => {
    const parts = requests.map((inputs) => inputs[index] as Tensor)
    const shape = [rows, ...like.shape.slice(1)]
    if (like.datatype === 'BYTES') {
      return { ...like, shape, data: parts.flatMap(({ data }) => data as readonly string[]) }
    }
    const { storage } = DATATYPES[like.datatype]
    const elements = parts.reduce((sum, { data }) => sum + data.length, 0)
    const joined = new storage(elements) as NumericData
    let at = 0
    for (const { data } of parts) {
      // The datatype determines the array type, which the compiler cannot infer.
      joined.set(data as never, at)
      at += data.length
    }
    return { ...like, shape, data: joined }
  })
}

/**
 * Splits the outputs of a batch into those of its requests, as views. Null if an output does not have one row
 * per input row: the model then cannot be batched, whatever its shapes declare.
 */
export function split(
  outputs: readonly Tensor[],
  rowCounts: readonly number[],
  rows: number,
): Tensor[][] | null {
  if (outputs.some(({ shape }) => shape[0] !== rows)) return null
  const starts: number[] = []
  let start = 0
  for (const count of rowCounts) {
    starts.push(start)
    start += count
  }
  return rowCounts.map((count, request) =>
    outputs.map((tensor) => {
      const { data } = tensor
      const rowElements = data.length / rows
      const from = (starts[request] as number) * rowElements
      const to = from + count * rowElements
      return {
        ...tensor,
        shape: [count, ...tensor.shape.slice(1)],
        data: ArrayBuffer.isView(data) ? (data.subarray(from, to) as NumericData) : data.slice(from, to),
      }
    }),
  )
}
