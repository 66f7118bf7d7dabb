/**
 * One entry of a model repository: a file or folder at its top level. Errors are returned as
 * problems of the entry or of one of its versions; nothing is thrown.
 */
import { readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { isTextFolder } from '../text/folder.js'
import { VERSION_PATTERN } from './config.js'
import { contentKindOf, insteadOfFile, isFile, isFolder, kindOf, systemReason } from './file-kind.js'
import {
  CONFIG_FILE,
  MODEL_FILE,
  type ModelPath,
  modelPathOf,
  nameProblem,
  textPathOf,
} from './model-path.js'

/** A model file before its config is read. */
export interface FoundModel extends ModelPath {
  /** The model's file; of a text model its folder, in which the config decides over the file. */
  readonly path: string
  /** A folder with a tokenizer: a text model. */
  readonly textFolder?: string
}

export interface EntryProblem {
  readonly name: string
  /** Null: the problem concerns the whole entry. */
  readonly version: string | null
  /** The config that governs this version; null if the problem is independent of a config. */
  readonly configPath: string | null
  readonly reason: string
}

export interface EntryScan {
  readonly found: readonly FoundModel[]
  readonly problems: readonly EntryProblem[]
}

/** Exists at the root of ext file systems and is readable only by root. */
const LOST_AND_FOUND = 'lost+found'
/** Too many digits for a version. */
const TOO_LONG_VERSION_PATTERN = /^[1-9]\d{18,}$/

const NOTHING: EntryScan = { found: [], problems: [] }

function problemOf(name: string, reason: string): EntryScan {
  return { found: [], problems: [{ name, version: null, configPath: null, reason }] }
}

/** A model that is a single file at the top of the repository. */
function singleFile(path: string): EntryScan {
  const place = modelPathOf(path)
  const problem = nameProblem(place.name, path)
  return problem === null ? { found: [{ ...place, path }], problems: [] } : problemOf(place.name, problem)
}

/** The only model of a repository: DIR/model.onnx. */
function onlyModel(root: string): EntryScan {
  const name = basename(root)
  const problem = nameProblem(name, root)
  if (problem !== null) return problemOf(name, problem)
  const path = join(root, MODEL_FILE)
  return { found: [{ name, version: '1', path, configPath: join(root, CONFIG_FILE) }], problems: [] }
}

function textPath(folder: string): Pick<FoundModel, 'path' | 'textFolder'> {
  return { path: folder, textFolder: folder }
}

/** A folder as the Hugging Face hub has it. */
export function textModel(folder: string): EntryScan {
  const place = textPathOf(folder)
  const problem = nameProblem(place.name, folder)
  return problem === null
    ? { found: [{ ...place, ...textPath(folder) }], problems: [] }
    : problemOf(place.name, problem)
}

/**
 * What one folder inside a model's folder is: a version, one with a problem, or null: nothing of
 * ours.
 */
async function readVersion(
  folder: string,
  name: string,
  version: string,
): Promise<FoundModel | EntryProblem | null> {
  const isVersion = VERSION_PATTERN.test(version)
  if (!isVersion && !TOO_LONG_VERSION_PATTERN.test(version)) return null
  const configPath = join(folder, CONFIG_FILE)
  const path = join(folder, version, MODEL_FILE)
  const problem = (reason: string): EntryProblem => ({ name, version, configPath, reason })
  const versionFolder = await kindOf(join(folder, version))
  if (versionFolder.kind === 'unreadable')
    return problem(`${join(folder, version)}: expected a version folder, found ${versionFolder.what}`)
  if (versionFolder.kind !== 'folder') return null
  if (isVersion && (await isTextFolder(join(folder, version))))
    return { ...{ name, version, configPath }, ...textPath(join(folder, version)) }
  const model = await contentKindOf(path)
  if (!isVersion) {
    const reason = `${join(folder, version)}: expected a version of at most 18 digits, got ${version.length}`
    return model.kind === 'file' ? problem(reason) : null
  }
  if (model.kind === 'file') return { name, version, path, configPath }
  // Removed since the folder was listed.
  if (model.kind === 'absent' && !(await isFolder(join(folder, version)))) return null
  return problem(
    `${join(folder, version)}: expected a file ${MODEL_FILE} in a version folder, found ${insteadOfFile(model)}`,
  )
}

/** Why a folder without versions looks like a misplaced model; null if it does not. */
async function misplacedModel(folder: string, names: readonly string[]): Promise<string | null> {
  const direct = await kindOf(join(folder, MODEL_FILE))
  if (direct.kind === 'file')
    return `${join(folder, MODEL_FILE)}: expected it in a version folder: ${join(folder, 'VERSION', MODEL_FILE)}`
  for (const name of names.filter((one) => !one.startsWith('.'))) {
    if (!(await isFolder(join(folder, name)))) continue
    if (await isFile(join(folder, name, MODEL_FILE)))
      return `${join(folder, name)}: expected a version folder to be named by a positive integer, such as 1`
    for (const inner of await readdir(join(folder, name)).catch(() => [])) {
      const model = join(folder, name, inner, MODEL_FILE)
      if (VERSION_PATTERN.test(inner) && (await isFile(model)))
        return `${model}: a model name cannot contain "/"; expected NAME/VERSION/${MODEL_FILE} below the repository`
    }
  }
  return null
}

async function readFolder(path: string, name: string): Promise<EntryScan> {
  let names: string[]
  try {
    names = (await readdir(path)).sort()
  } catch (thrown) {
    // Removed or replaced by a file: the next scan handles it.
    if ((await kindOf(path)).kind !== 'folder') return NOTHING
    return problemOf(name, `${path}: expected a readable folder: ${systemReason(thrown)}`)
  }
  const found: FoundModel[] = []
  const problems: EntryProblem[] = []
  for (const version of names) {
    const read = await readVersion(path, name, version)
    if (read === null) continue
    if ('reason' in read) problems.push(read)
    else found.push(read)
  }
  if (found.length > 0 || problems.length > 0) {
    const problem = nameProblem(name, path)
    return problem === null ? { found, problems } : problemOf(name, problem)
  }
  if (await isTextFolder(path)) return textModel(path)
  const misplaced = await misplacedModel(path, names)
  return misplaced === null ? NOTHING : problemOf(name, misplaced)
}

/** A name that is not UTF-8 cannot be used in URLs or JSON. It is displayed with `\xNN`. */
async function readForeignName(root: string, bytes: Buffer): Promise<EntryScan> {
  const shown = [...bytes]
    .map((byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, '0')}`,
    )
    .join('')
  const path = Buffer.concat([Buffer.from(`${root}/`), bytes])
  const { kind } = await kindOf(path)
  const inside = kind === 'folder' ? await readdir(path).catch(() => []) : []
  const isModel =
    shown.endsWith('.onnx') || inside.some((name) => name === MODEL_FILE || VERSION_PATTERN.test(name))
  return isModel
    ? problemOf(shown, `${join(root, shown)}: expected a name in UTF-8, got other bytes`)
    : NOTHING
}

function textOf(bytes: Buffer): string | null {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return null
  }
}

/** Reads the entry with this name at the top of the repository `root`. */
export async function readEntry(root: string, bytes: Buffer): Promise<EntryScan> {
  const entry = textOf(bytes)
  if (entry === null) return await readForeignName(root, bytes)
  // Hidden entries belong to tools or to atomically updated volumes (`..data` and its target),
  // whose links
  // are separate entries.
  if (entry.startsWith('.') || entry === LOST_AND_FOUND) return NOTHING
  const path = join(root, entry)
  if (!entry.endsWith('.onnx')) {
    const found = await kindOf(path)
    if (found.kind === 'folder') return await readFolder(path, entry)
    // A broken link may have pointed to a model. For a config, the code that reads the config
    // reports it.
    const isMissed = found.kind === 'unreadable' && !entry.endsWith(CONFIG_FILE)
    return isMissed ? problemOf(entry, `${path}: expected a file or a folder, found ${found.what}`) : NOTHING
  }
  const found = await contentKindOf(path)
  if (found.kind === 'absent') return NOTHING
  if (found.kind === 'folder') return await readFolder(path, entry)
  const isOnly = entry === MODEL_FILE
  if (found.kind === 'file') return isOnly ? onlyModel(root) : singleFile(path)
  const name = isOnly ? basename(root) : modelPathOf(path).name
  return problemOf(name, `${path}: expected a model file, found ${insteadOfFile(found)}`)
}
