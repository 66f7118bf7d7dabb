/** The CSV files of a bundle: a header, then a line for every molecule. */
import { parse } from 'csv-parse/sync'
import { stringify } from 'csv-stringify/sync'
import { messageOf, OnecopyError } from '../errors.js'
import type { Row } from './orient.js'

export interface CsvTable {
  readonly header: readonly string[]
  readonly lines: readonly (readonly string[])[]
}

/** @throws OnecopyError INPUT_INVALID. */
export function parseCsv(text: string): CsvTable {
  let all: string[][]
  try {
    // Lines of other lengths are for their readers to judge.
    all = parse(text, { bom: true, relax_column_count: true, skip_empty_lines: false })
  } catch (thrown) {
    throw new OnecopyError('INPUT_INVALID', `expected CSV: ${messageOf(thrown)}`)
  }
  const [header, ...lines] = all
  if (header === undefined)
    throw new OnecopyError('INPUT_INVALID', 'expected a CSV file with a header, it is empty')
  return { header, lines }
}

/** The molecules of an input file: its first column, whatever that is called. */
export function firstColumn({ lines }: CsvTable): string[] {
  return lines.map(([cell = '']) => cell)
}

export function formatCsv(header: readonly string[], rows: readonly Row[]): string {
  return stringify([[...header], ...rows.map((row) => header.map((_, i) => row[i] ?? ''))])
}
