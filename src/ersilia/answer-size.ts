/**
 * Calculates the size of a POST /run response before it is built: some layouts repeat the names in every row.
 */
import { OnecopyError } from '../errors.js'
import { convertCell, type Oriented } from './orient.js'

/** The longest JSON number, `-1.2345678901234567e-300`, and its comma. */
const LONGEST_NUMBER_BYTES = 25
const NULL_BYTES = 4
const HEAVY_CELL_BYTES = 4

function quotedBytes(text: string): number {
  return Buffer.byteLength(JSON.stringify(text))
}

/** Strings, each with a following comma or colon. */
function listBytes(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + quotedBytes(text) + 1, 0)
}

/** Everything except the cells: brackets, names, commas and colons. */
function frameBytes({ rows, columns, index, orient }: Oriented): number {
  const brackets = 3
  const width = columns.length
  switch (orient) {
    case 'values':
      return rows.length * (brackets + width)
    case 'records':
      return rows.length * (brackets + width + listBytes(columns))
    case 'index':
      return listBytes(index) + rows.length * (brackets + width + listBytes(columns))
    case 'columns':
      return listBytes(columns) + width * (brackets + index.length + listBytes(index))
    case 'split':
      return listBytes(columns) + listBytes(index) + rows.length * (brackets + width)
  }
}

function cellBytes({ rows, columns, outputType }: Oriented, mostBytes: number): number {
  let bytes = 0
  for (const row of rows) {
    for (const i of columns.keys()) {
      const cell = convertCell(row[i] ?? null, outputType)
      bytes += cell === null ? NULL_BYTES : typeof cell === 'string' ? quotedBytes(cell) : String(cell).length
    }
    if (bytes > mostBytes) return bytes
  }
  return bytes
}

/**
 * Rejects a response that would be too large.
 * @throws OnecopyError RESPONSE_TOO_LARGE.
 */
export function checkAnswerSize(
  table: Oriented,
  { isHeavy, maxBytes }: { readonly isHeavy: boolean; readonly maxBytes: number },
): void {
  const { rows, columns, outputType } = table
  const cells = rows.length * columns.length
  let bytes = isHeavy ? cells * HEAVY_CELL_BYTES + listBytes(columns) : frameBytes(table)
  if (!isHeavy) {
    const isNumeric = outputType !== 'string'
    // Most responses are small enough even with the longest numbers.
    if (isNumeric && bytes + cells * LONGEST_NUMBER_BYTES <= maxBytes) return
    bytes += cellBytes(table, maxBytes - bytes)
  }
  if (bytes <= maxBytes) return
  throw new OnecopyError(
    'RESPONSE_TOO_LARGE',
    `expected a response of at most ${maxBytes} bytes (--max-response), got at least ${bytes}: ` +
      `${rows.length} rows of ${columns.length} columns`,
  )
}
