/**
 * CSV files: a header, then a row for every line, whatever ends it. Nothing in a file is left out without a word: what
 * cannot be read as it stands is an error that says where.
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
 * Reads a file. A blank line is a row too: of one empty field. A quote within a field that does not begin with one is
 * data.
 * @throws OnecopyError INPUT_INVALID.
 */
export function parseCsv(bytes: Uint8Array): CsvTable {
  let all: string[][]
  try {
    all = parse(decodeText(bytes), {
      bom: true,
      record_delimiter: ['\r\n', '\n', '\r'],
      relax_quotes: true,
      // Lines of other lengths are for their readers to judge.
      relax_column_count: true,
      skip_empty_lines: false,
    })
  } catch (thrown) {
    throw invalid(`expected CSV: ${messageOf(thrown)}`)
  }
  const [header, ...lines] = all
  if (header === undefined) throw invalid('expected a CSV file with a header, it is empty')
  return { header, lines }
}

/**
 * The molecules of an input file: its first column, whatever that is called.
 * @throws OnecopyError INPUT_INVALID for a row of more fields than the header: a comma may have cut its molecule.
 */
export function firstColumn({ header, lines }: CsvTable): string[] {
  return lines.map((line, i) => {
    if (line.slice(header.length).some((cell) => cell !== ''))
      throw invalid(
        `row ${i + 1}: expected ${header.length} fields as in the header, got ${line.length}; put a molecule with a comma in quotes`,
      )
    return line[0] ?? ''
  })
}

/** The first name that stands in a header more than once; null where there is none. */
export function duplicateName(header: readonly string[]): string | null {
  return header.find((name, i) => header.indexOf(name) !== i) ?? null
}

/**
 * A file that comes back row by row, with Python's csv and pandas too: both pass over empty lines, so a row of one
 * empty field is `""`.
 */
export function formatCsv(header: readonly string[], rows: readonly Row[]): string {
  return stringify([[...header], ...rows.map((row) => header.map((_, i) => cellText(row[i] ?? null)))], {
    quoted_empty: header.length === 1,
    // A carriage return ends a line for most readers.
    quoted_match: /\r/,
  })
}

function cellText(cell: Cell): string {
  if (cell === null) return ''
  return typeof cell === 'number' ? numberText(cell) : cell
}
