/**
 * The model repository on disk. Three layouts:
 *
 *   DIR/NAME/VERSION/model.onnx   the layout of Triton and KServe; VERSION is a positive integer
 *   DIR/NAME.onnx                 version 1
 *   DIR/model.onnx                one model, named after DIR, version 1
 *   DIR/NAME, DIR/NAME/VERSION, DIR   a text model: a folder as the Hugging Face hub has it (src/text)
 *
 * External data is next to the model or in subfolders. `NAME/config.json` (`NAME.config.json` for a single
 * file, `config.json` for a single model) contains the operator's settings and selects the served versions.
 * Everything else is ignored: hidden entries, `lost+found`, other files, folders without a model.
 *
 * Each entry is scanned separately, so a problem affects only its own entry or version.
 */
import { readdir } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { type ErrorCode, messageOf, OnecopyError } from '../errors.js'
import { isTextFolder, readTextFolder } from '../text/folder.js'
import { modelFileOf } from '../text/model-files.js'
import {
  checkModelConfig,
  readModelConfig,
  type ServedModelConfig,
  VERSION_PATTERN,
  type VersionPolicy,
} from './config.js'
import { insteadOfFile, isFile, kindOf } from './file-kind.js'
import { MODEL_FILE, modelPathOf, nameProblem } from './model-path.js'
import {
  type EntryProblem,
  type EntryScan,
  type FoundModel,
  readEntry,
  textModel,
} from './repository-entry.js'

export interface ModelSource {
  readonly name: string
  /** Digits without leading zeros. */
  readonly version: string
  readonly path: string
  readonly config: ServedModelConfig
}

/** Why an entry, or one version of it, cannot be served. */
export interface RepositoryProblem {
  /** The folder or file name; it may be an invalid model name. */
  readonly name: string
  /** Null: the problem concerns the whole entry. */
  readonly version: string | null
  readonly code: ErrorCode
  readonly reason: string
}

export interface RepositoryScan {
  /** Sorted by name, then newest version first. */
  readonly sources: readonly ModelSource[]
  /** Sorted by name and version; a version can have several problems. */
  readonly problems: readonly RepositoryProblem[]
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('REPOSITORY_INVALID', message)
}

/** Newest first; versions are compared as integers. */
export function compareVersions(a: string, b: string): number {
  return BigInt(a) < BigInt(b) ? 1 : BigInt(a) > BigInt(b) ? -1 : 0
}

/** All versions governed by one config, valid or not, newest first. */
interface Versions {
  readonly configPath: string
  readonly name: string
  readonly valid: readonly FoundModel[]
  readonly broken: readonly EntryProblem[]
}

interface Configured {
  readonly sources: readonly ModelSource[]
  readonly problems: readonly EntryProblem[]
}

/**
 * Selects versions by policy. A broken version does not displace a valid one, and is reported only
 * if the policy selects it.
 */
function applyPolicy(
  policy: VersionPolicy,
  { configPath, name, valid, broken }: Versions,
): { readonly served: readonly FoundModel[]; readonly problems: readonly EntryProblem[] } {
  if (policy.kind === 'all') return { served: valid, problems: broken }
  if (policy.kind === 'latest') {
    const served = valid.slice(0, policy.count)
    const oldest = served.length < policy.count ? undefined : served.at(-1)
    const isAsked = ({ version }: EntryProblem) =>
      oldest === undefined || version === null || compareVersions(version, oldest.version) < 0
    return { served, problems: broken.filter(isAsked) }
  }
  const isAsked = ({ version }: { readonly version: string | null }) =>
    version !== null && policy.versions.includes(version)
  const present = new Set([...valid, ...broken].map(({ version }) => version))
  const listed = [...present].toSorted((a, b) => compareVersions(a as string, b as string)).join(', ')
  const missing = policy.versions
    .filter((version) => !present.has(version))
    .map((version) => ({
      ...{ name, version, configPath },
      reason: `${configPath}: version_policy requires version ${version}, but the repository has ${listed}`,
    }))
  return { served: valid.filter(isAsked), problems: [...broken.filter(isAsked), ...missing] }
}

/** What is to be taken for the config of a model, whatever its file says. */
export interface ConfigOverride {
  readonly model: string
  readonly config: Readonly<Record<string, unknown>>
}

/** Of a text model also what its folder says, which is found out for each version. */
async function fileAndConfig(
  { path, textFolder }: FoundModel,
  config: ServedModelConfig,
): Promise<Pick<ModelSource, 'path' | 'config'>> {
  const { textOverrides } = config
  if (textFolder === undefined) {
    if (Object.keys(textOverrides).length === 0) return { path, config }
    throw invalid(`${path}: "text" is in its config: expected tokenizer.json and config.json beside it`)
  }
  const text = await readTextFolder(textFolder, textOverrides)
  return { path: await modelFileOf(textFolder, textOverrides.file), config: { ...config, text } }
}

/** A config is read once, and decides over the versions that stand beside it. */
async function configure(versions: Versions, override: ConfigOverride | null): Promise<Configured> {
  const { configPath, name, valid, broken } = versions
  try {
    const config =
      override?.model === name
        ? await checkModelConfig(override.config, configPath)
        : await readModelConfig(configPath)
    const { served, problems } = applyPolicy(config.versionPolicy, versions)
    const sources: ModelSource[] = []
    const unread: EntryProblem[] = []
    for (const found of served) {
      const { version } = found
      try {
        sources.push({ name, version, ...(await fileAndConfig(found, config)) })
      } catch (thrown) {
        unread.push({ name, version, configPath, reason: messageOf(thrown) })
      }
    }
    return { sources, problems: [...problems, ...unread] }
  } catch (thrown) {
    const reason = messageOf(thrown)
    const unconfigured = [...valid, ...broken].map(({ version }) => ({ name, version, configPath, reason }))
    return { sources: [], problems: [...broken, ...unconfigured] }
  }
}

function byConfig(found: readonly FoundModel[], problems: readonly EntryProblem[]): Versions[] {
  const groups = new Map<string, { name: string; valid: FoundModel[]; broken: EntryProblem[] }>()
  const groupOf = (configPath: string, name: string) => {
    const group = groups.get(configPath) ?? { name, valid: [], broken: [] }
    groups.set(configPath, group)
    return group
  }
  for (const model of found) groupOf(model.configPath, model.name).valid.push(model)
  for (const problem of problems)
    if (problem.configPath !== null) groupOf(problem.configPath, problem.name).broken.push(problem)
  return [...groups].map(([configPath, { name, valid, broken }]) => ({
    ...{ configPath, name, broken },
    valid: valid.toSorted((a, b) => compareVersions(a.version, b.version)),
  }))
}

/** Rejects all models that share a name and version, because the intended one is ambiguous. */
function withoutTwice(found: readonly FoundModel[]): {
  readonly once: readonly FoundModel[]
  readonly twice: readonly EntryProblem[]
} {
  const byKey = new Map<string, FoundModel[]>()
  for (const model of found) {
    const key = `${model.name}@${model.version}`
    byKey.set(key, [...(byKey.get(key) ?? []), model])
  }
  const groups = [...byKey.values()]
  const once = groups.flatMap((group) => (group.length === 1 ? group : []))
  const twice = groups.flatMap(([first, ...others]) =>
    first === undefined || others.length === 0
      ? []
      : {
          ...{ name: first.name, version: first.version, configPath: null },
          reason: `model ${first.name} version ${first.version} exists twice: ${[first, ...others].map(({ path }) => path).join(' and ')}`,
        },
  )
  return { once, twice }
}

/** Sorts by name, then newest version first; problems of whole entries come before versions. */
function inOrder<One extends { readonly name: string; readonly version: string | null }>(
  all: readonly One[],
): One[] {
  return all.toSorted((a, b) => {
    if (a.name !== b.name) return a.name < b.name ? -1 : 1
    if (a.version === null || b.version === null)
      return Number(b.version === null) - Number(a.version === null)
    return compareVersions(a.version, b.version)
  })
}

/** As bytes, because a name need not be valid UTF-8. */
async function entriesOf(root: string): Promise<Buffer[]> {
  try {
    return (await readdir(root, { encoding: 'buffer' })).sort(Buffer.compare)
  } catch (thrown) {
    throw invalid(`expected ${root} to be a readable folder: ${messageOf(thrown)}`)
  }
}

/**
 * Whether a folder is one model, NAME/VERSION/model.onnx or NAME/VERSION with a tokenizer, and not
 * a repository of models.
 */
async function isModelFolder(root: string, entries: readonly Buffer[]): Promise<boolean> {
  for (const entry of entries) {
    const name = entry.toString('latin1')
    if (!VERSION_PATTERN.test(name)) continue
    if ((await isFile(join(root, name, MODEL_FILE))) || (await isTextFolder(join(root, name)))) return true
  }
  return false
}

/** Reads one path that the operator named: a repository, the folder of a model, or a model file. */
async function readPath(path: string): Promise<EntryScan[]> {
  const root = resolve(path)
  const found = await kindOf(root)
  if (found.kind === 'file' && root.endsWith('.onnx')) {
    const place = modelPathOf(root)
    const reason = nameProblem(place.name, root)
    if (reason === null) return [{ found: [{ ...place, path: root }], problems: [] }]
    return [{ found: [], problems: [{ name: place.name, version: null, configPath: null, reason }] }]
  }
  if (found.kind !== 'folder')
    throw invalid(
      `expected ${path} to be a model repository, the folder of a model or a file .onnx, found ${insteadOfFile(found)}`,
    )
  if (await isTextFolder(root)) return [textModel(root)]
  const entries = await entriesOf(root)
  if (await isModelFolder(root, entries)) return [await readEntry(dirname(root), Buffer.from(basename(root)))]
  const scans: EntryScan[] = []
  for (const entry of entries) scans.push(await readEntry(root, entry))
  return scans
}

/** A repository without models and without problems is usually the wrong folder. */
export function emptyRepository(paths: readonly string[]): OnecopyError {
  return invalid(
    `no model in ${paths.map((path) => resolve(path)).join(', ')}: expected NAME/VERSION/${MODEL_FILE} (VERSION a positive integer), NAME.onnx, ${MODEL_FILE}, or a folder with tokenizer.json`,
  )
}

/**
 * Lists the model versions in these repositories, model folders and model files that their configs
 * select, and the problems of the others.
 * @throws OnecopyError REPOSITORY_INVALID if a path itself is missing, unreadable or something
 *   else.
 */
export async function scanRepository(
  paths: string | readonly string[],
  override: ConfigOverride | null = null,
): Promise<RepositoryScan> {
  const scans: EntryScan[] = []
  for (const path of [paths].flat()) scans.push(...(await readPath(path)))
  const { once, twice } = withoutTwice(scans.flatMap(({ found }) => found))
  const problems = scans.flatMap((scan) => scan.problems)
  const configured = await Promise.all(
    byConfig(once, problems).map((versions) => configure(versions, override)),
  )
  const all = [
    ...problems.filter(({ configPath }) => configPath === null),
    ...twice,
    ...configured.flatMap((one) => one.problems),
  ]
  return {
    sources: inOrder(configured.flatMap(({ sources }) => sources)),
    problems: inOrder(all).map(({ name, version, reason }) => ({
      ...{ name, version, reason },
      code: 'REPOSITORY_INVALID' as const,
    })),
  }
}
