/**
 * Generated models on disk, as a model repository: OUT/NAME/VERSION/model.onnx, with a record of its seed and
 * digest.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import * as z from 'zod'
import { MODELS_DIR } from '../harness/paths.js'
import { buildModel } from './build.js'
import { writeOnnxFile } from './onnx-file.js'
import { type Recipe, recipeName, recipeSeed } from './recipes.js'

const RecordSchema = z.object({ seed: z.string(), bytes: z.int(), sha256: z.string() })
type FileRecord = z.infer<typeof RecordSchema>

export interface GeneratedModel extends FileRecord {
  readonly name: string
  readonly version: number
  readonly recipe: Recipe
  /** Folder to serve. It contains this model and others generated into it. */
  readonly repositoryDir: string
  readonly path: string
  readonly isReused: boolean
}

async function sha256Of(path: string): Promise<string | null> {
  const hash = createHash('sha256')
  try {
    await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  } catch {
    return null
  }
  return hash.digest('hex')
}

async function readRecord(path: string): Promise<FileRecord | null> {
  try {
    return RecordSchema.parse(JSON.parse(await readFile(path, 'utf8')))
  } catch {
    return null
  }
}

/** A model of the same recipe with other weights. */
export interface Variant {
  readonly name: string
  readonly version: number
}

/**
 * Generates the model, or reuses it if seed and digest match. By default it gets a separate repository. The
 * weights of a variant depend on its name and version.
 */
export async function ensureModel(
  recipe: Recipe,
  repositoryDir: string = join(MODELS_DIR, recipeName(recipe)),
  variant?: Variant,
): Promise<GeneratedModel> {
  const { name, version } = variant ?? { name: recipeName(recipe), version: 1 }
  const seed = variant === undefined ? recipeSeed(recipe) : `${recipeSeed(recipe)}/${name}@${version}`
  const path = join(repositoryDir, name, String(version), 'model.onnx')
  const recordPath = join(repositoryDir, name, version === 1 ? 'generated.json' : `generated-${version}.json`)
  const known = await readRecord(recordPath)
  if (known !== null && known.seed === seed && known.sha256 === (await sha256Of(path))) {
    return { ...known, name, version, recipe, repositoryDir, path, isReused: true }
  }
  await mkdir(dirname(path), { recursive: true })
  const record: FileRecord = { seed, ...(await writeOnnxFile(path, buildModel(recipe, seed))) }
  await writeFile(recordPath, `${JSON.stringify(record, null, 2)}\n`)
  return { ...record, name, version, recipe, repositoryDir, path, isReused: false }
}
