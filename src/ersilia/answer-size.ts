/** How large an answer of POST /run is, before it is made: names stand in it once for each row. */
import { OnecopyError } from '../errors.js'
import { convertCell, type Oriented } from './orient.js'

/** The longest number in JSON, `-1.2345678901234567e-300`, and its comma. */
const LONGEST_NUMBER_BYTES = 25
const NULL_BYTES = 4
const HEAVY_CELL_BYTES = 4

function quotedBytes(text: string): number {
  return Buffer.byteLength(JSON.stringify(text))
}

/** Texts with a comma or a colon behind each. */
function listBytes(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + quotedBytes(text) + 1, 0)
}

/** Everything but the cells: brackets, names, commas and colons. */
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
 * Refuses an answer that would be too large.
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
    // Most answers are small, however long their numbers are.
    if (isNumeric && bytes + cells * LONGEST_NUMBER_BYTES <= maxBytes) return
    bytes += cellBytes(table, maxBytes - bytes)
  }
  if (bytes <= maxBytes) return
  throw new OnecopyError(
    'RESPONSE_TOO_LARGE',
    `expected an answer of at most ${maxBytes} bytes (--max-response), got at least ${bytes}: ` +
      `${rows.length} rows of ${columns.length} columns`,
  )
}
