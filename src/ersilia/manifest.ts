/**
 * `model/framework/serve.json` declares what a bundle's run.sh does, without Python. It is the only file to
 * add to a bundle so that its model is loaded once. Keys: docs/ersilia.md.
 */
import { readFile } from 'node:fs/promises'
import { isAbsolute, relative, resolve } from 'node:path'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { InputChoiceSchema, OutputChoiceSchema } from '../transform/registry.js'

export const MANIFEST_FILE = 'serve.json'

const tensorName = z.string().min(1)

const ManifestFileSchema = z.strictObject({
  /** Path of the ONNX file, relative to the bundle. */
  checkpoint: z
    .string()
    .min(1)
    .refine((path) => path.endsWith('.onnx'), 'expected the path of an .onnx file'),
  /** Converts molecules to tensors. */
  featurizer: InputChoiceSchema,
  /**
   * The model inputs for the featurizer's tensors, in their order; the default is all model inputs in order.
   */
  input: z.union([tensorName.transform((name) => [name]), z.array(tensorName).min(1)]).optional(),
  /** Converts model outputs to columns. */
  output: OutputChoiceSchema.default({ kind: 'values', options: { activation: 'none' } }),
  /** Maximum molecules per batch. */
  batch_size: z.int().min(1).max(4096).default(256),
  /** Permitted difference from run_output.csv, relative or absolute, whichever is larger. */
  tolerance: z.number().positive().max(1).default(1e-3),
})

export const MANIFEST_KEYS = Object.keys(ManifestFileSchema.shape)

export const ManifestSchema = ManifestFileSchema.transform((file) => ({
  checkpoint: file.checkpoint,
  featurizer: file.featurizer,
  inputNames: file.input ?? null,
  output: file.output,
  batchSize: file.batch_size,
  tolerance: file.tolerance,
}))

export type Manifest = z.output<typeof ManifestSchema>

/**
 * Reads a bundle's manifest; null if it has none.
 * @throws OnecopyError BUNDLE_INVALID naming every invalid key.
 */
export async function readManifest(path: string): Promise<Manifest | null> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw new OnecopyError('BUNDLE_INVALID', `${path}: ${messageOf(thrown)}`, { cause: thrown })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (thrown) {
    throw new OnecopyError('BUNDLE_INVALID', `${path}: expected JSON: ${messageOf(thrown)}`)
  }
  const parsed = ManifestSchema.safeParse(value)
  if (parsed.success) return parsed.data
  throw new OnecopyError('BUNDLE_INVALID', `${path}: ${z.prettifyError(parsed.error)}`)
}

/**
 * The path of the checkpoint. Bundles are untrusted, so it must be inside the bundle.
 * @throws OnecopyError BUNDLE_INVALID.
 */
export function checkpointPath(bundleRoot: string, { checkpoint }: Manifest): string {
  return pathInside(bundleRoot, 'checkpoint', checkpoint)
}

function pathInside(bundleRoot: string, key: string, given: string): string {
  const path = resolve(bundleRoot, given)
  const inside = relative(bundleRoot, path)
  if (!isAbsolute(given) && !inside.startsWith('..') && !isAbsolute(inside)) return path
  throw new OnecopyError('BUNDLE_INVALID', `${key}: expected a path inside the bundle, got ${given}`)
}

/**
 * The manifest with the paths of its featurizer absolute: its thread does not know the bundle.
 * @throws OnecopyError BUNDLE_INVALID.
 */
export function withFeaturizerPaths(bundleRoot: string, manifest: Manifest): Manifest {
  const { featurizer } = manifest
  if (featurizer.kind !== 'tokenizer') return manifest
  const file = pathInside(bundleRoot, 'featurizer.file', featurizer.options.file)
  return { ...manifest, featurizer: { ...featurizer, options: { ...featurizer.options, file } } }
}
