/** Checks that a bundle reproduces its own example outputs from its example inputs. */
import { OnecopyError } from '../errors.js'
import type { Bundle } from './bundle.js'
import { convertCell } from './orient.js'
import type { Predictor } from './predictor.js'

function areClose(expected: number, got: number, tolerance: number): boolean {
  return Math.abs(expected - got) <= tolerance * Math.max(1, Math.abs(expected))
}

/**
 * Runs the examples and returns the number of compared molecules; 0 if the bundle has none.
 * @throws OnecopyError EXAMPLES_NOT_REPRODUCED naming the first value that differs, BUNDLE_INVALID if inputs
 *   and outputs differ in number.
 */
export async function checkExamples(bundle: Bundle, predictor: Predictor): Promise<number> {
  const { exampleInputs, exampleOutputs, columns, manifest, columnTypes, outputType } = bundle
  if (exampleOutputs === null || exampleInputs.length === 0) return 0
  const { header, lines } = exampleOutputs
  if (!columns.some((column) => header.includes(column))) return 0
  const count = Math.min(exampleInputs.length, lines.length)
  const rows = await predictor.predict(exampleInputs.slice(0, count))
  const tolerance = manifest?.tolerance ?? 0
  for (const [i, row] of rows.entries()) {
    for (const [j, column] of columns.entries()) {
      const at = header.indexOf(column)
      if (at < 0) continue
      // Text columns are compared as text, numeric columns as numbers regardless of formatting.
      const example = lines[i]?.[at] ?? null
      const mayBeText = columnTypes[j] === '' && outputType === 'string'
      const isText = columnTypes[j] === 'string' || (mayBeText && convertCell(example, 'float') === null)
      const type = isText ? 'string' : 'float'
      const expected = convertCell(example, type)
      const got = convertCell(row[j] ?? null, type)
      const isSame =
        typeof expected === 'number' && typeof got === 'number'
          ? areClose(expected, got, tolerance)
          : expected === got
      if (isSame) continue
      throw new OnecopyError(
        'EXAMPLES_NOT_REPRODUCED',
        `example ${i + 1} (${exampleInputs[i]}), column ${column}: run_output.csv has ${expected}, the model returns ${got}`,
      )
    }
  }
  if (exampleInputs.length === lines.length) return count
  throw new OnecopyError(
    'BUNDLE_INVALID',
    `expected one row of example output for each of the ${exampleInputs.length} example inputs, got ${lines.length}`,
  )
}
