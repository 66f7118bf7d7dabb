/** Which models a server begins with, and which Ersilia bundle it serves: a repository, one bundle, or one ONNX file. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Config } from '../../src/config/config.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { type Bundle, readBundle } from '../../src/ersilia/bundle.js'
import { MANIFEST_FILE } from '../../src/ersilia/manifest.js'
import type { MountedBundle } from '../../src/ersilia/mounted.js'
import type { OutputType } from '../../src/ersilia/orient.js'
import type { ResidentNote } from '../../src/ersilia/resident.js'
import type { Log } from '../../src/log.js'
import { readModelConfig } from '../../src/repository/config.js'
import { checkName, modelPathOf } from '../../src/repository/model-path.js'
import {
  emptyRepository,
  type ModelSource,
  type RepositoryProblem,
  scanRepository,
} from '../../src/repository/repository.js'
import { inputTransform } from '../../src/transform/registry.js'

/** Which models there are to begin with, and what is wrong with others. */
interface Found {
  readonly sources: readonly ModelSource[]
  /** Of what was asked for. */
  readonly problems: readonly RepositoryProblem[]
  /** Of what stands in the repository and was not asked for. */
  readonly otherProblems: readonly RepositoryProblem[]
  /** Whether what can be served is, where not everything can. */
  readonly isTolerant: boolean
  /** Whether a server without any model is not ready. Under explicit control models come when they are asked for. */
  readonly isModelRequired: boolean
}

/** A bundle or a model that is all there is. */
const ALONE = { problems: [], otherProblems: [], isTolerant: false, isModelRequired: false } as const

export interface Beginning extends Found {
  readonly mounted: MountedBundle | null
  /** Names that `onecopy run` may use; empty for a repository without a bundle. */
  readonly names: readonly string[]
  readonly outputType: OutputType
  /** What every worker will hold beside models: of transforms that are opened at the start. */
  readonly workerBytes: number
}

async function sourceOf(path: string, name: string): Promise<ModelSource> {
  checkName(name, path)
  return { name, version: '1', path, config: await readModelConfig(modelPathOf(path).configPath) }
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
      ...{ sources: [], ...ALONE },
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
    ...{ sources: [source], ...ALONE },
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
): Promise<Omit<Beginning, keyof Found>> {
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
    // Whatever it is, the models beside it are served.
    const code = thrown instanceof OnecopyError ? { code: thrown.code } : {}
    log.warn({ ...code, reason: messageOf(thrown) }, 'POST /run is not served')
  }
  return none
}

/** @throws OnecopyError REPOSITORY_INVALID; MODEL_NOT_FOUND for `--load-model` with `--exit-on-error on`. */
async function beginWithRepository(
  { modelsDir, modelControl, loadModels, exitsOnError }: Config,
  log: Log,
): Promise<Found> {
  const { sources, problems } = await scanRepository(modelsDir)
  const isTolerant = modelControl === 'watch' || !exitsOnError
  if (modelControl !== 'explicit' || loadModels.includes('*')) {
    if (sources.length + problems.length === 0 && modelControl !== 'explicit') {
      const empty = emptyRepository(modelsDir)
      if (!isTolerant) throw empty
      log.warn({ code: empty.code }, empty.message)
    }
    const isModelRequired = modelControl !== 'explicit'
    return { sources, problems, otherProblems: [], isTolerant, isModelRequired }
  }
  const isAsked = ({ name }: { readonly name: string }) => loadModels.includes(name)
  const missing = loadModels.filter((name) => ![...sources, ...problems].some((one) => one.name === name))
  if (missing.length > 0) {
    const names = missing.map((name) => JSON.stringify(name)).join(', ')
    const unknown = new OnecopyError('MODEL_NOT_FOUND', `--load-model: no model ${names} in ${modelsDir}`)
    if (!isTolerant) throw unknown
    log.error({ code: unknown.code }, unknown.message)
  }
  return {
    sources: sources.filter(isAsked),
    problems: problems.filter(isAsked),
    otherProblems: problems.filter((problem) => !isAsked(problem)),
    ...{ isTolerant, isModelRequired: false },
  }
}

/** @throws OnecopyError BUNDLE_INVALID, REPOSITORY_INVALID, MODEL_NOT_FOUND, CONFIG_INVALID. */
export async function beginWith(config: Config, log: Log): Promise<Beginning> {
  const { only, modelControl, modelsDir } = config
  if (only === null) {
    const found = await beginWithRepository(config, log)
    const bundle = await bundleAmong(modelsDir, found.sources, log)
    const tokenizerBytes = found.sources.reduce((sum, one) => sum + (one.config.text?.tokenizerBytes ?? 0), 0)
    return { ...found, ...bundle, workerBytes: bundle.workerBytes + tokenizerBytes }
  }
  if (modelControl !== 'fixed')
    throw new OnecopyError(
      'CONFIG_INVALID',
      '--model-control: a bundle is served as it is at the start: fixed',
    )
  if (!only.path.endsWith('.onnx')) return await beginWithBundle(only.path, only.name)
  const name = only.name ?? modelPathOf(only.path).name
  return {
    ...{ sources: [await sourceOf(only.path, name)], ...ALONE },
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
