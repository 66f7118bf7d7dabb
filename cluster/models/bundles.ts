/**
 * The models and the Ersilia bundle that a server starts with: a repository, one bundle or one ONNX
 * file.
 */
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Config } from '../../src/config/config.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { Bundle } from '../../src/ersilia/bundle.js'
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

/** The models found at startup, and the problems. */
interface Found {
  readonly sources: readonly ModelSource[]
  /** Problems of the selected models. */
  readonly problems: readonly RepositoryProblem[]
  /** Problems of models in the repository that are not selected. */
  readonly otherProblems: readonly RepositoryProblem[]
  /** Whether to serve the valid models despite problems with others. */
  readonly isTolerant: boolean
  /**
   * Whether a server without models is not ready. With explicit control, models arrive through load
   * requests.
   */
  readonly isModelRequired: boolean
}

/** For a single bundle or model. */
const SINGLE = { problems: [], otherProblems: [], isTolerant: false, isModelRequired: false } as const

export interface InitialModels extends Found {
  readonly mounted: MountedBundle | null
  /** Names that `onecopy run` accepts; empty for a repository without a bundle. */
  readonly names: readonly string[]
  readonly outputType: OutputType
  /** Memory per worker besides models: for transforms that open at startup. */
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

/** Imported lazily: parsers of YAML and CSV are a sixth of the primary's code. */
async function openBundle(path: string): Promise<Bundle> {
  const { readBundle } = await import('../../src/ersilia/bundle.js')
  return await readBundle(path)
}

/** @throws OnecopyError BUNDLE_INVALID, REPOSITORY_INVALID. */
async function resolveBundle(path: string, given: string | null): Promise<InitialModels> {
  const bundle = await openBundle(path)
  const name = given ?? bundle.card.Identifier
  const { outputType } = bundle
  const names = namesOf(bundle, name)
  if (bundle.checkpoint === null)
    return {
      ...{ sources: [], ...SINGLE },
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
    ...{ sources: [source], ...SINGLE },
    mounted: { path: bundle.root, modelName: name, isRequired: true },
    names,
    outputType,
    workerBytes: manifest === null ? 0 : (inputTransform(manifest.featurizer).privateBytes ?? 0),
  }
}

/**
 * The one model of the repository whose folder is also a bundle: POST /run serves a single model.
 */
async function bundleAmong(
  sources: readonly ModelSource[],
  log: Log,
): Promise<Omit<InitialModels, keyof Found>> {
  const none = { mounted: null, names: [], outputType: 'float', workerBytes: 0 } as const
  // NAME/VERSION/model.onnx
  const folders = new Map(sources.map(({ name, path }) => [name, dirname(dirname(path))]))
  const candidates: (readonly [name: string, folder: string])[] = []
  for (const [name, folder] of folders)
    if (await isFile(join(folder, 'model', 'framework', MANIFEST_FILE))) candidates.push([name, folder])
  const [candidate] = candidates
  if (candidate === undefined) return none
  const [name, folder] = candidate
  if (candidates.length > 1) {
    log.warn(
      { bundles: candidates.map(([one]) => one) },
      'POST /run is not served: the repository has several bundles (--bundle)',
    )
    return none
  }
  try {
    const bundle = await openBundle(folder)
    if (await isAmong(sources, bundle.checkpoint, name))
      return {
        mounted: { path: bundle.root, modelName: name, isRequired: false },
        names: namesOf(bundle, name),
        outputType: bundle.outputType,
        // The first request opens it.
        workerBytes: 0,
      }
    log.warn(
      { checkpoint: bundle.checkpoint },
      'POST /run is not served: the checkpoint is not a model of this repository',
    )
  } catch (thrown) {
    // An unreadable bundle does not affect the models of the repository.
    const code = thrown instanceof OnecopyError ? { code: thrown.code } : {}
    log.warn({ ...code, reason: messageOf(thrown) }, 'POST /run is not served')
  }
  return none
}

/** @throws OnecopyError REPOSITORY_INVALID; MODEL_NOT_FOUND for `--load-model` with `--exit-on-error on`. */
async function resolveRepository(
  { modelPaths, modelControl, loadModels, exitsOnError }: Config,
  log: Log,
): Promise<Found> {
  const { sources, problems } = await scanRepository(modelPaths)
  const isTolerant = modelControl === 'watch' || !exitsOnError
  if (modelControl !== 'explicit' || loadModels.includes('*')) {
    if (sources.length + problems.length === 0 && modelControl !== 'explicit') {
      const empty = emptyRepository(modelPaths)
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
    const unknown = new OnecopyError(
      'MODEL_NOT_FOUND',
      `--load-model: no model ${names} in ${modelPaths.join(', ')}`,
    )
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
export async function resolveInitialModels(config: Config, log: Log): Promise<InitialModels> {
  const { only, modelControl } = config
  if (only === null) {
    const found = await resolveRepository(config, log)
    const bundle = await bundleAmong(found.sources, log)
    const tokenizerBytes = found.sources.reduce((sum, one) => sum + (one.config.text?.tokenizerBytes ?? 0), 0)
    return { ...found, ...bundle, workerBytes: bundle.workerBytes + tokenizerBytes }
  }
  if (modelControl !== 'fixed')
    throw new OnecopyError(
      'CONFIG_INVALID',
      '--model-control: expected fixed: a bundle does not change while it is served',
    )
  if (!only.path.endsWith('.onnx')) return await resolveBundle(only.path, only.name)
  const name = only.name ?? modelPathOf(only.path).name
  return {
    ...{ sources: [await sourceOf(only.path, name)], ...SINGLE },
    mounted: null,
    names: [name],
    outputType: 'float',
    workerBytes: 0,
  }
}

/** The record of this server for other processes of the same user. */
export function residentNote(
  { sources, mounted, names, outputType }: InitialModels,
  socketPath: string | null,
): ResidentNote {
  return {
    names: [...names],
    // In a repository without a bundle, no model is the default.
    modelName: mounted?.modelName ?? (names.length === 0 ? null : (sources[0]?.name ?? null)),
    bundlePath: mounted?.path ?? null,
    outputType,
    socketPath,
  }
}

/**
 * Whether the checkpoint of a bundle is a model of the repository: the same file or a copy.
 * ersilia-pack packs only `model/`, so a bundle keeps its checkpoint there; the repository has it
 * in a version folder.
 */
async function isAmong(
  sources: readonly ModelSource[],
  checkpoint: string | null,
  name: string,
): Promise<boolean> {
  if (checkpoint === null) return false
  if (sources.some(({ path }) => path === checkpoint)) return true
  for (const { path } of sources.filter((source) => source.name === name)) {
    const [a, b] = await Promise.all([stat(path), stat(checkpoint)])
    if (a.size === b.size && (await readFile(path)).equals(await readFile(checkpoint))) return true
  }
  return false
}
