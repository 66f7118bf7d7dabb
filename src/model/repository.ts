/**
 * The model repository on disk. Three layouts:
 *
 *   DIR/NAME/VERSION/model.onnx   the layout of Triton and KServe; VERSION is a positive integer
 *   DIR/NAME.onnx                 version 1
 *   DIR/model.onnx                one model, named after DIR, version 1
 *
 * External-data files stand beside the model. `NAME/config.json` (`NAME.config.json` for a single file,
 * `config.json` for one model) holds what its operator decided, and which of the versions beside it are
 * served. Anything else is ignored.
 */
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { OnecopyError } from '../errors.js'
import { readModelConfig, type ServedModelConfig, VERSION_PATTERN, type VersionPolicy } from './config.js'

/** Letters, digits, dot, underscore, hyphen; not starting with a dot; at most 128: safe in paths and URLs. */
export const MODEL_NAME_PATTERN = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/
const MODEL_FILE = 'model.onnx'
const CONFIG_FILE = 'config.json'

export interface ModelSource {
  readonly name: string
  /** Digits without leading zeros. */
  readonly version: string
  readonly path: string
  readonly config: ServedModelConfig
}

/** Where a model file stands in a repository, and where its config does. */
export interface ModelPlace {
  readonly name: string
  readonly version: string
  readonly configPath: string
}

/** A model as it was found, before its config is read. */
interface FoundModel extends ModelPlace {
  readonly path: string
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('REPOSITORY_INVALID', message)
}

/** How a repository that this very file stands in calls it. Whether the name can be served is not checked. */
export function placeOf(modelPath: string): ModelPlace {
  const path = resolve(modelPath)
  const folder = dirname(path)
  if (basename(path) !== MODEL_FILE) {
    const name = basename(path, '.onnx')
    return { name, version: '1', configPath: join(folder, `${name}.${CONFIG_FILE}`) }
  }
  const version = basename(folder)
  if (!VERSION_PATTERN.test(version))
    return { name: basename(folder), version: '1', configPath: join(folder, CONFIG_FILE) }
  return { name: basename(dirname(folder)), version, configPath: join(dirname(folder), CONFIG_FILE) }
}

/** @throws OnecopyError REPOSITORY_INVALID where a model of this name cannot be served. */
export function checkName(name: string, path: string): void {
  if (MODEL_NAME_PATTERN.test(name)) return
  throw invalid(
    `model name ${JSON.stringify(name)} (${path}): expected 1 to 128 letters, digits, dots, underscores or hyphens, ` +
      'not starting with a dot; a name cannot hold "/"',
  )
}

type Kind = 'file' | 'folder' | 'other'

async function kindOf(path: string): Promise<Kind> {
  // Follows links: volumes of Kubernetes are made of them.
  const found = await stat(path).catch(() => null)
  return found?.isFile() ? 'file' : found?.isDirectory() ? 'folder' : 'other'
}

/** Where a model stands too deep: `org/model/1/model.onnx` would need a name with a slash. */
async function nestedModel(folder: string): Promise<string | null> {
  for (const entry of await readdir(folder)) {
    if ((await kindOf(join(folder, entry))) !== 'folder') continue
    for (const inner of await readdir(join(folder, entry)).catch(() => [])) {
      const model = join(entry, inner, MODEL_FILE)
      if (VERSION_PATTERN.test(inner) && (await kindOf(join(folder, model))) === 'file') return model
    }
  }
  return null
}

async function versionsIn(folder: string, name: string): Promise<FoundModel[]> {
  const found: FoundModel[] = []
  for (const version of await readdir(folder)) {
    if (!VERSION_PATTERN.test(version) || (await kindOf(join(folder, version))) !== 'folder') continue
    const path = join(folder, version, MODEL_FILE)
    if ((await kindOf(path)) !== 'file') {
      throw invalid(`${join(folder, version)}: expected a file ${MODEL_FILE} in a version folder, found none`)
    }
    found.push({ name, version, path, configPath: join(folder, CONFIG_FILE) })
  }
  return found
}

/** Newest first: versions are compared as integers. */
export function compareVersions(a: string, b: string): number {
  return BigInt(a) < BigInt(b) ? 1 : BigInt(a) > BigInt(b) ? -1 : 0
}

/** What a policy leaves of the versions beside its config, newest first. */
function applyPolicy<Model extends { readonly version: string }>(
  policy: VersionPolicy,
  models: readonly Model[],
  configPath: string,
): Model[] {
  const newestFirst = models.toSorted((a, b) => compareVersions(a.version, b.version))
  if (policy.kind === 'all') return newestFirst
  if (policy.kind === 'latest') return newestFirst.slice(0, policy.count)
  const present = newestFirst.map(({ version }) => version)
  const missing = policy.versions.filter((version) => !present.includes(version))
  if (missing.length > 0) {
    throw invalid(
      `${configPath}: version_policy asks for ${missing.join(', ')}, the repository has ${present.join(', ')}`,
    )
  }
  return newestFirst.filter(({ version }) => policy.versions.includes(version))
}

/** Each config is read once, and decides over the versions that stand beside it. */
async function configure(found: readonly FoundModel[]): Promise<ModelSource[]> {
  const byConfig = new Map<string, FoundModel[]>()
  for (const model of found)
    byConfig.set(model.configPath, [...(byConfig.get(model.configPath) ?? []), model])
  const served = [...byConfig].map(async ([configPath, models]) => {
    const config = await readModelConfig(configPath)
    return applyPolicy(config.versionPolicy, models, configPath).map(({ name, version, path }) => ({
      name,
      version,
      path,
      config,
    }))
  })
  return (await Promise.all(served)).flat()
}

/**
 * Lists the model versions in `dir` that their configs let be served, by name and then newest version first.
 * @throws OnecopyError REPOSITORY_INVALID when the folder is missing or empty, a name cannot be served, a
 *   config is not as expected, or asks for a version that is not there.
 */
export async function scanRepository(dir: string): Promise<ModelSource[]> {
  const root = resolve(dir)
  if ((await kindOf(root)) !== 'folder') throw invalid(`expected --models ${dir} to be a folder, found none`)

  const found: FoundModel[] = []
  for (const entry of (await readdir(root)).sort()) {
    if (entry.startsWith('.')) continue
    const path = join(root, entry)
    const kind = await kindOf(path)
    if (kind === 'file' && entry === MODEL_FILE) {
      checkName(basename(root), root)
      found.push({ name: basename(root), version: '1', path, configPath: join(root, CONFIG_FILE) })
    } else if (kind === 'file' && entry.endsWith('.onnx')) {
      const place = placeOf(path)
      checkName(place.name, path)
      found.push({ ...place, path })
    } else if (kind === 'folder') {
      const versions = await versionsIn(path, entry)
      if (versions.length > 0) checkName(entry, path)
      else if ((await kindOf(join(path, MODEL_FILE))) === 'file') {
        throw invalid(
          `${join(path, MODEL_FILE)}: expected it in a version folder: ${join(path, 'VERSION', MODEL_FILE)}`,
        )
      } else {
        const nested = await nestedModel(path)
        if (nested !== null) {
          throw invalid(
            `${join(path, nested)}: a model name cannot hold "/"; expected ${join(root, 'NAME', 'VERSION', MODEL_FILE)}`,
          )
        }
      }
      found.push(...versions)
    }
  }

  if (found.length === 0) {
    throw invalid(
      `no model in ${root}: expected NAME/VERSION/${MODEL_FILE} (VERSION a positive integer), NAME.onnx or ${MODEL_FILE}`,
    )
  }
  const seen = new Map<string, string>()
  for (const { name, version, path } of found) {
    const earlier = seen.get(`${name}@${version}`)
    if (earlier !== undefined)
      throw invalid(`model ${name} version ${version} stands twice: ${earlier} and ${path}`)
    seen.set(`${name}@${version}`, path)
  }
  return (await configure(found)).sort((a, b) =>
    a.name < b.name ? -1 : a.name > b.name ? 1 : compareVersions(a.version, b.version),
  )
}
