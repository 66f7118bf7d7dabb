/**
 * Presents a model that is not a bundle as one: each CSV line is a row of numbers, and the outputs become
 * columns.
 */
import { dirname } from 'node:path'
import { OnecopyError } from '../errors.js'
import type { SegmentListing } from '../segment/listing.js'
import { elementCount, requiredOf, type TensorSpec } from '../tensor.js'
import { NumbersOptionsSchema } from '../transform/numbers.js'
import type { Bundle } from './bundle.js'
import { ManifestSchema } from './manifest.js'

/** One name for each element of an output row. */
function columnsOf({ name, shape }: TensorSpec): string[] {
  const rest = shape?.slice(1) ?? []
  const count = rest.includes(-1) ? 1 : elementCount(rest)
  return count === 1 ? [name] : Array.from({ length: count }, (_, i) => `${name}_${i}`)
}

/**
 * @throws OnecopyError BUNDLE_INVALID for a model that does not take exactly one input with rows of numbers.
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
      `model ${model}: onecopy run supports models with one input of fixed-length rows of numbers; wrap other models in a bundle`,
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
