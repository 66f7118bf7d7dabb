/** A model that is no bundle, seen as one: numbers in, a line of a CSV file each, and its outputs as columns. */
import { dirname } from 'node:path'
import { OnecopyError } from '../errors.js'
import type { SegmentListing } from '../segment/listing.js'
import { elementCount, requiredOf, type TensorSpec } from '../tensor.js'
import { NumbersOptionsSchema } from '../transform/numbers.js'
import type { Bundle } from './bundle.js'
import { ManifestSchema } from './manifest.js'

/** One name for each element of an output's row. */
function columnsOf({ name, shape }: TensorSpec): string[] {
  const rest = shape?.slice(1) ?? []
  const count = rest.includes(-1) ? 1 : elementCount(rest)
  return count === 1 ? [name] : Array.from({ length: count }, (_, i) => `${name}_${i}`)
}

/**
 * @throws OnecopyError BUNDLE_INVALID for a model that takes anything but one row of numbers.
 */
export function plainBundle({ path, model, header }: SegmentListing): Bundle {
  const inputs = requiredOf(header?.inputs ?? [])
  const [input] = inputs
  const rest = input?.shape?.slice(1) ?? [-1]
  const datatype = NumbersOptionsSchema.shape.datatype.safeParse(input?.datatype)
  if (
    header === null ||
    input === undefined ||
    inputs.length !== 1 ||
    rest.includes(-1) ||
    !datatype.success
  ) {
    throw new OnecopyError(
      'BUNDLE_INVALID',
      `model ${model}: onecopy run takes models with one input, of rows of numbers of a fixed length; wrap others in a bundle`,
    )
  }
  const columns = header.outputs.flatMap(columnsOf)
  return {
    root: dirname(path),
    framework: dirname(path),
    card: { Identifier: model, Slug: model },
    manifest: ManifestSchema.parse({
      checkpoint: 'model.onnx',
      featurizer: { kind: 'numbers', length: elementCount(rest), datatype: datatype.data },
      output: {
        kind: 'values',
        columns: Object.fromEntries(header.outputs.map((output) => [output.name, columnsOf(output)])),
      },
    }),
    checkpoint: null,
    runScript: null,
    columns,
    columnTypes: columns.map(() => ''),
    inputHeader: [input.name],
    exampleInputs: [],
    exampleOutputs: null,
    outputType: header.outputs.some((output) => output.datatype === 'BYTES') ? 'string' : 'float',
  }
}
