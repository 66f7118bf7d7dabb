/** Which models a server begins with, and which Ersilia bundle it serves: a repository, one bundle, or one ONNX file. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../src/config/config.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import { type Bundle, readBundle } from '../src/ersilia/bundle.js'
import { MANIFEST_FILE } from '../src/ersilia/manifest.js'
import type { MountedBundle } from '../src/ersilia/mounted.js'
import type { OutputType } from '../src/ersilia/orient.js'
import type { ResidentNote } from '../src/ersilia/resident.js'
import type { Log } from '../src/log.js'
import { readModelConfig } from '../src/model/config.js'
import { checkName, type ModelSource, placeOf, scanRepository } from '../src/model/repository.js'
import { inputTransform } from '../src/transform/registry.js'

export interface Beginning {
  readonly sources: readonly ModelSource[]
  readonly mounted: MountedBundle | null
  /** Names that `onecopy run` may use; empty for a repository without a bundle. */
  readonly names: readonly string[]
  readonly outputType: OutputType
  /** What every worker will hold beside models: of transforms that are opened at the start. */
  readonly workerBytes: number
}

async function sourceOf(path: string, name: string): Promise<ModelSource> {
  checkName(name, path)
  return { name, version: '1', path, config: await readModelConfig(placeOf(path).configPath) }
}

function namesOf({ card }: Bundle, modelName: string): string[] {
  return [...new Set([modelName, card.Identifier, card.Slug])]
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() === true
}

/** @throws OnecopyError BUNDLE_INVALID, REPOSITORY_INVALID. */
async function beginWithBundle(path: string, given: string | null): Promise<Beginning> {
  const bundle = await readBundle(path)
  const name = given ?? bundle.card.Identifier
  const { outputType } = bundle
  const names = namesOf(bundle, name)
  if (bundle.checkpoint === null)
    return {
      sources: [],
      mounted: { path: bundle.root, modelName: null, isRequired: true },
      names,
      outputType,
      workerBytes: 0,
    }
  if (!(await isFile(bundle.checkpoint)))
    throw new OnecopyError('BUNDLE_INVALID', `checkpoint: expected an ONNX file at ${bundle.checkpoint}`)
  const source = await sourceOf(bundle.checkpoint, name)
  const { manifest } = bundle
  return {
    sources: [source],
    mounted: { path: bundle.root, modelName: name, isRequired: true },
    names,
    outputType,
    workerBytes: manifest === null ? 0 : (inputTransform(manifest.featurizer).privateBytes ?? 0),
  }
}

/** The one model of the repository whose folder is a bundle too; a server answers POST /run for one model. */
async function bundleAmong(
  modelsDir: string,
  sources: readonly ModelSource[],
  log: Log,
): Promise<Omit<Beginning, 'sources'>> {
  const none = { mounted: null, names: [], outputType: 'float', workerBytes: 0 } as const
  const names = [...new Set(sources.map(({ name }) => name))]
  const candidates: string[] = []
  for (const name of names)
    if (await isFile(join(modelsDir, name, 'model', 'framework', MANIFEST_FILE))) candidates.push(name)
  const [name] = candidates
  if (name === undefined) return none
  if (candidates.length > 1) {
    log.warn(
      { bundles: candidates },
      'POST /run is not served: the repository has several bundles (--bundle)',
    )
    return none
  }
  try {
    const bundle = await readBundle(join(modelsDir, name))
    if (sources.some(({ path }) => path === bundle.checkpoint))
      return {
        mounted: { path: bundle.root, modelName: name, isRequired: false },
        names: namesOf(bundle, name),
        outputType: bundle.outputType,
        // It is opened by its first request, if there is one.
        workerBytes: 0,
      }
    log.warn({ checkpoint: bundle.checkpoint }, 'POST /run is not served: the checkpoint is no model here')
  } catch (thrown) {
    if (!(thrown instanceof OnecopyError)) throw thrown
    log.warn({ code: thrown.code, reason: messageOf(thrown) }, 'POST /run is not served')
  }
  return none
}

async function beginWithRepository({ modelsDir, modelControl, loadModels }: Config): Promise<ModelSource[]> {
  const sources = await scanRepository(modelsDir)
  if (modelControl !== 'explicit' || loadModels.includes('*')) return sources
  const missing = loadModels.find((name) => !sources.some((source) => source.name === name))
  if (missing !== undefined)
    throw new OnecopyError(
      'MODEL_NOT_FOUND',
      `--load-model: no model ${JSON.stringify(missing)} in ${modelsDir}`,
    )
  return sources.filter(({ name }) => loadModels.includes(name))
}

/** @throws OnecopyError BUNDLE_INVALID, REPOSITORY_INVALID, MODEL_NOT_FOUND, CONFIG_INVALID. */
export async function beginWith(config: Config, log: Log): Promise<Beginning> {
  const { only, modelControl, modelsDir } = config
  if (only === null) {
    const sources = await beginWithRepository(config)
    return { sources, ...(await bundleAmong(modelsDir, sources, log)) }
  }
  if (modelControl !== 'fixed')
    throw new OnecopyError(
      'CONFIG_INVALID',
      '--model-control: a bundle is served as it is at the start: fixed',
    )
  if (!only.path.endsWith('.onnx')) return await beginWithBundle(only.path, only.name)
  const name = only.name ?? placeOf(only.path).name
  return {
    sources: [await sourceOf(only.path, name)],
    mounted: null,
    names: [name],
    outputType: 'float',
    workerBytes: 0,
  }
}

/** What other processes of this user are told. */
export function residentNote(
  { sources, mounted, names, outputType }: Beginning,
  socketPath: string | null,
): ResidentNote | null {
  if (names.length === 0) return null
  return {
    names: [...names],
    modelName: mounted === null ? (sources[0]?.name ?? null) : mounted.modelName,
    bundlePath: mounted?.path ?? null,
    outputType,
    socketPath,
  }
}
