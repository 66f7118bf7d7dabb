/**
 * Reads and writes CSV files: a header, then one row per line with any line ending. Nothing is dropped
 * silently: invalid input is an error with its position.
 */
import { parse } from 'csv-parse/sync'
import { stringify } from 'csv-stringify/sync'
import { messageOf, OnecopyError } from '../errors.js'
import type { Cell } from '../transform/transform.js'
import { decodeText } from './csv-text.js'
import { numberText, type Row } from './orient.js'

export interface CsvTable {
  readonly header: readonly string[]
  readonly lines: readonly (readonly string[])[]
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('INPUT_INVALID', message)
}

/**
 * Parses a file. A blank line is a row with one empty field. A quote inside an unquoted field is data.
 * @throws OnecopyError INPUT_INVALID.
 */
export function parseCsv(bytes: Uint8Array): CsvTable {
  let all: string[][]
  try {
    all = parse(decodeText(bytes), {
      bom: true,
      record_delimiter: ['\r\n', '\n', '\r'],
      relax_quotes: true,
      // Callers validate the number of fields.
      relax_column_count: true,
      skip_empty_lines: false,
    })
  } catch (thrown) {
    throw invalid(`expected CSV: ${messageOf(thrown)}`)
  }
  const [header, ...lines] = all
  if (header === undefined) throw invalid('expected a CSV file with a header, got an empty file')
  return { header, lines }
}

/**
 * The molecules of an input file: its first column, whatever its name.
 * @throws OnecopyError INPUT_INVALID for a row with more fields than the header: a comma may have split the
 *   molecule.
 */
export function firstColumn({ header, lines }: CsvTable): string[] {
  return lines.map((line, i) => {
    if (line.slice(header.length).some((cell) => cell !== ''))
      throw invalid(
        `row ${i + 1}: expected ${header.length} fields as in the header, got ${line.length}; quote molecules that contain a comma`,
      )
    return line[0] ?? ''
  })
}

/** The first duplicate name in a header; null if there is none. */
export function duplicateName(header: readonly string[]): string | null {
  return header.find((name, i) => header.indexOf(name) !== i) ?? null
}

/**
 * Formats a file that Python's csv and pandas read back row by row. Both skip empty lines, so a row with one
 * empty field is written as `""`.
 */
export function formatCsv(header: readonly string[], rows: readonly Row[]): string {
  return stringify([[...header], ...rows.map((row) => header.map((_, i) => cellText(row[i] ?? null)))], {
    quoted_empty: header.length === 1,
    // Most readers treat a carriage return as a line ending.
    quoted_match: /\r/,
  })
}

function cellText(cell: Cell): string {
  if (cell === null) return ''
  return typeof cell === 'number' ? numberText(cell) : cell
}
