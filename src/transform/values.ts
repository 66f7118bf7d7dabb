/** The default output transform: the elements of the model's outputs, in order, as columns. */
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import type { Tensor } from '../tensor.js'
import type { Cell, OutputContext, OutputTransform, RowDecoder } from './transform.js'

const ACTIVATIONS = {
  none: (value: number) => value,
  sigmoid: (value: number) => 1 / (1 + Math.exp(-value)),
  exp: (value: number) => Math.exp(value),
} as const

export const ValuesOptionsSchema = z.strictObject({
  /**
   * Columns by output, one per element; null omits an element. By default all outputs in order fill all
   * columns in order.
   */
  columns: z.record(z.string(), z.array(z.string().nullable()).min(1)).optional(),
  activation: z.enum(['none', 'sigmoid', 'exp']).default('none'),
  /** Number of decimals to round to. */
  decimals: z.int().min(0).max(15).optional(),
})

export type ValuesOptions = z.output<typeof ValuesOptionsSchema>

function invalid(message: string): OnecopyError {
  return new OnecopyError('BUNDLE_INVALID', message)
}

/** Number of elements per row of an output; null if it is variable. */
function elementsIn(shape: readonly number[] | null): number | null {
  if (shape === null) return null
  const rest = shape.slice(1)
  return rest.includes(-1) ? null : rest.reduce((product, size) => product * size, 1)
}

/** Assigns outputs to columns. */
function assign({ columns }: ValuesOptions, context: OutputContext): Map<string, readonly (string | null)[]> {
  if (columns === undefined) {
    const assigned = new Map<string, readonly (string | null)[]>()
    let at = 0
    for (const { name, shape } of context.outputs) {
      const count = elementsIn(shape) ?? context.columns.length - at
      if (count > 0 && at < context.columns.length) assigned.set(name, context.columns.slice(at, at + count))
      at += count
    }
    return assigned
  }
  const assigned = new Map(Object.entries(columns))
  for (const name of assigned.keys()) {
    if (context.outputs.some((output) => output.name === name)) continue
    const known = context.outputs.map((output) => output.name).join(', ')
    throw invalid(`output: columns for unknown output ${JSON.stringify(name)}, the model has ${known}`)
  }
  return assigned
}

/** @throws OnecopyError MODEL_RUN_FAILED for an integer that a number cannot represent exactly. */
function elementOf({ name, data }: Tensor, at: number): number | string | undefined {
  const value = data[at]
  if (typeof value !== 'bigint') return value
  if (BigInt(Number(value)) === value) return Number(value)
  throw new OnecopyError(
    'MODEL_RUN_FAILED',
    `output ${JSON.stringify(name)}: ${value} exceeds the integers that a column can represent exactly (2^53)`,
  )
}

function decoder(options: ValuesOptions, context: OutputContext): RowDecoder {
  const assigned = assign(options, context)
  const filled = [...assigned.values()].flat().filter((column) => column !== null)
  const missing = context.columns.filter((column) => !filled.includes(column))
  if (missing.length > 0) throw invalid(`output: no model output fills ${missing.join(', ')}`)
  const unknown = filled.filter((column) => !context.columns.includes(column))
  if (unknown.length > 0)
    throw invalid(`output: ${unknown.join(', ')} is not one of the columns ${context.columns.join(', ')}`)
  const outputNames = [...assigned.keys()]
  const places = context.columns.map((column) => {
    const tensor = outputNames.findIndex((name) => assigned.get(name)?.includes(column))
    return { tensor, element: assigned.get(outputNames[tensor] ?? '')?.indexOf(column) ?? 0 }
  })
  const activate = ACTIVATIONS[options.activation]
  const scale = options.decimals === undefined ? null : 10 ** options.decimals
  return {
    outputNames,
    decode(outputs, row): Cell[] {
      return places.map(({ tensor, element }) => {
        const output = outputs[tensor] as Tensor
        const perRow = output.data.length / (output.shape[0] ?? 1)
        if (element >= perRow) return null
        const raw = elementOf(output, row * perRow + element)
        if (typeof raw !== 'number') return raw ?? null
        const value = activate(raw)
        return scale === null ? value : Math.round(value * scale) / scale
      })
    },
  }
}

export const values: OutputTransform<ValuesOptions> = { options: ValuesOptionsSchema, open: decoder }
