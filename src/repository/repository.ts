/**
 * The model repository on disk. Three layouts:
 *
 *   DIR/NAME/VERSION/model.onnx   the layout of Triton and KServe; VERSION is a positive integer
 *   DIR/NAME.onnx                 version 1
 *   DIR/model.onnx                one model, named after DIR, version 1
 *   DIR/NAME, DIR/NAME/VERSION, DIR   a text model: a folder as the Hugging Face hub has it (src/text)
 *
 * External data stands beside the model or in folders below. `NAME/config.json` (`NAME.config.json` for a single
 * file, `config.json` for one model) holds what its operator decided, and which of the versions beside it are
 * served. Anything else is ignored: hidden entries, `lost+found`, other files, folders that hold no model.
 *
 * Each entry is scanned on its own: what is wrong with one is a problem of that one, or of one of its versions.
 */
import { readdir } from 'node:fs/promises'
import { resolve } from 'node:path'
import { type ErrorCode, messageOf, OnecopyError } from '../errors.js'
import { isTextFolder, readTextFolder } from '../text/folder.js'
import { modelFileOf } from '../text/model-files.js'
import { readModelConfig, type ServedModelConfig, type VersionPolicy } from './config.js'
import { insteadOfFile, kindOf } from './file-kind.js'
import { MODEL_FILE } from './model-path.js'
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

/** Why an entry, or one version of it, cannot be served as it stands. */
export interface RepositoryProblem {
  /** As the folder or file is called; not always one that a model may have. */
  readonly name: string
  /** Null: of the whole entry. */
  readonly version: string | null
  readonly code: ErrorCode
  readonly reason: string
}

export interface RepositoryScan {
  /** By name, then newest version first. */
  readonly sources: readonly ModelSource[]
  /** By name and version; one of them can have several. */
  readonly problems: readonly RepositoryProblem[]
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('REPOSITORY_INVALID', message)
}

/** Newest first: versions are compared as integers. */
export function compareVersions(a: string, b: string): number {
  return BigInt(a) < BigInt(b) ? 1 : BigInt(a) > BigInt(b) ? -1 : 0
}

/** The versions that stand beside one config, valid or not, newest first. */
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
 * What a policy leaves of the versions beside its config. A broken version takes no valid one's place, and is a problem
 * only where the policy asks for it.
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
      reason: `${configPath}: version_policy asks for version ${version}, the repository has ${listed}`,
    }))
  return { served: valid.filter(isAsked), problems: [...broken.filter(isAsked), ...missing] }
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
async function configure(versions: Versions): Promise<Configured> {
  const { configPath, name, valid, broken } = versions
  try {
    const config = await readModelConfig(configPath)
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

/** A name and version that stand twice: nobody can say which of the two is meant, so neither is served. */
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
          reason: `model ${first.name} version ${first.version} stands twice: ${[first, ...others].map(({ path }) => path).join(' and ')}`,
        },
  )
  return { once, twice }
}

/** Names by their characters, versions newest first, what is of the whole entry before them. */
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

async function entriesOf(root: string, dir: string): Promise<Buffer[]> {
  const found = await kindOf(root)
  if (found.kind !== 'folder')
    throw invalid(`expected --models ${dir} to be a folder, found ${insteadOfFile(found)}`)
  try {
    // Bytes: a name need not be UTF-8.
    return (await readdir(root, { encoding: 'buffer' })).sort(Buffer.compare)
  } catch (thrown) {
    throw invalid(`expected --models ${dir} to be a folder that can be read: ${messageOf(thrown)}`)
  }
}

/** A repository without a model and without a problem: most often the wrong folder. */
export function emptyRepository(dir: string): OnecopyError {
  return invalid(
    `no model in ${resolve(dir)}: expected NAME/VERSION/${MODEL_FILE} (VERSION a positive integer), NAME.onnx, ${MODEL_FILE}, or a folder with tokenizer.json`,
  )
}

/**
 * Lists the model versions in `dir` that their configs let be served, and what is wrong with the others.
 * @throws OnecopyError REPOSITORY_INVALID when the folder itself is missing or cannot be read.
 */
export async function scanRepository(dir: string): Promise<RepositoryScan> {
  const root = resolve(dir)
  const scans: EntryScan[] = []
  const entries = await entriesOf(root, dir)
  if (await isTextFolder(root)) scans.push(textModel(root))
  else for (const entry of entries) scans.push(await readEntry(root, entry))
  const { once, twice } = withoutTwice(scans.flatMap(({ found }) => found))
  const problems = scans.flatMap((scan) => scan.problems)
  const configured = await Promise.all(byConfig(once, problems).map(configure))
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
