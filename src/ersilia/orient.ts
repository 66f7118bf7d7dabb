/** Converts rows to the five JSON layouts of Ersilia and values to its output types. */
import { randomUUID } from 'node:crypto'
import type { Cell } from '../transform/transform.js'

export const ORIENTS = ['records', 'columns', 'values', 'split', 'index'] as const
export type Orient = (typeof ORIENTS)[number]

/** `string` if more than one type is declared. */
export type OutputType = 'float' | 'integer' | 'string'

/** A row of values, one for each column. */
export type Row = readonly Cell[]

export interface Oriented {
  readonly rows: readonly Row[]
  readonly columns: readonly string[]
  /** The input of each row. */
  readonly index: readonly string[]
  readonly orient: Orient
  readonly outputType: OutputType
}

/** Numbers accepted by Python's `float` and `int`, without underscores. */
const DECIMAL = /^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i

function numberOf(cell: number | string): number | null {
  const value = typeof cell === 'number' ? cell : DECIMAL.test(cell) ? Number(cell) : Number.NaN
  return Number.isFinite(value) ? value : null
}

/** Keeps the sign of -0, as Python does. */
export function numberText(value: number): string {
  return Object.is(value, -0) ? '-0.0' : String(value)
}

function isNegativeZero(cell: Cell): boolean {
  if (typeof cell === 'number') return Object.is(cell, -0)
  return cell?.includes('-') === true && Object.is(Number(cell), -0)
}

/** JSON of a value built from `rows`; JSON.stringify alone loses the sign of -0. */
export function jsonText(value: unknown, rows: readonly Row[]): string {
  if (!rows.some((row) => row.some(isNegativeZero))) return JSON.stringify(value)
  const mark = randomUUID()
  const marked = JSON.stringify(value, (_key, inner: unknown) => (Object.is(inner, -0) ? mark : inner))
  return marked.replaceAll(`"${mark}"`, '-0.0')
}

/** Values without a JSON number become null; integers are truncated, not rounded. */
export function convertCell(cell: Cell, outputType: OutputType): Cell {
  if (cell === null || cell === '') return null
  if (outputType === 'string') return typeof cell === 'number' ? numberText(cell) : cell
  const value = numberOf(cell)
  // Integers have no negative zero.
  return value !== null && outputType === 'integer' ? Math.trunc(value) + 0 : value
}

/** Own properties only, so that inputs cannot collide with Object.prototype. */
function objectOf(keys: readonly string[], values: readonly unknown[]): Record<string, unknown> {
  return Object.fromEntries(keys.map((key, i) => [key, values[i]]))
}

/** The response body; duplicate inputs collapse to the last one in `index` and `columns`. */
export function orientRows({ rows, columns, index, orient, outputType }: Oriented): unknown {
  const data = rows.map((row) => columns.map((_, i) => convertCell(row[i] ?? null, outputType)))
  switch (orient) {
    case 'values':
      return data
    case 'split':
      return { columns, index, data }
    case 'records':
      return data.map((row) => objectOf(columns, row))
    case 'index':
      return objectOf(
        index,
        data.map((row) => objectOf(columns, row)),
      )
    case 'columns':
      return objectOf(
        columns,
        columns.map((_, i) =>
          objectOf(
            index,
            data.map((row) => row[i]),
          ),
        ),
      )
  }
}
