/**
 * The compile cache: a folder of images named by their cache keys. If the folder is not writable, as in a
 * container with a read-only root, existing images are still used. New images are then in a temporary folder
 * until they are copied into shared memory.
 */
import { readlinkSync } from 'node:fs'
import { access, constants, mkdir, mkdtemp, open, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf, OnecopyError } from '../errors.js'
import { isAlive, ownIdentity } from '../process/identity.js'
import { readHeader } from '../segment/write.js'

/** The name of a work folder identifies its owner, so that folders of dead servers can be removed. */
const WORK_FOLDER_PATTERN = /^(?:onecopy)?\.work-(\d+)-(\d+)-(\d+)-([0-9a-f-]+)-/
/**
 * A pid from another container means nothing here, so such work folders are kept for longer than any
 * compilation takes.
 */
const FOREIGN_WORK_GRACE_MS = 24 * 3_600_000

export interface CompileCache {
  /** Folders to search for images. */
  readonly folders: readonly string[]
  /** Folder for new images. */
  readonly writable: string
  /** Why new images are not kept; null if they are. */
  readonly problem: string | null
}

/** Number of the pid namespace of this process. Source: pid_namespaces(7). */
function pidNamespace(): string {
  return readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')
}

function workPrefix(): string {
  const { pid, startTicks, bootId } = ownIdentity()
  return `.work-${pidNamespace()}-${pid}-${startTicks}-${bootId}-`
}

/** File name of an image in a cache folder. */
export function imageName(key: string): string {
  return `${key}.segment`
}

/** Path of an image that outlives this server; null if there is none. */
export async function findKeptImage(
  { folders, writable, problem }: CompileCache,
  key: string,
): Promise<string | null> {
  for (const folder of folders) {
    const path = join(folder, imageName(key))
    const isTemporary = problem !== null && folder === writable
    if (!isTemporary && (await stat(path).catch(() => null)) !== null) return path
  }
  return null
}

async function isWhole(imagePath: string, key: string): Promise<boolean> {
  const file = await open(imagePath, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => null)
  if (file === null) return false
  try {
    const header = await readHeader(file)
    return header.key === key && header.fileBytes === (await file.stat()).size
  } catch {
    return false
  } finally {
    await file.close()
  }
}

export type CompiledImage =
  | {
      readonly outcome: 'compiled'
      readonly key: string
      readonly imagePath: string
      readonly cached: boolean
    }
  /** The caller already holds this key. */
  | { readonly outcome: 'held'; readonly key: string }

/**
 * Finds a result that makes compilation unnecessary: a held key, or an image with a valid header. Null if
 * there is none.
 */
export async function findCompiled(
  key: string,
  { heldKeys, folders }: { readonly heldKeys: readonly string[]; readonly folders: readonly string[] },
): Promise<CompiledImage | null> {
  if (heldKeys.includes(key)) return { outcome: 'held', key }
  for (const imagePath of folders.map((folder) => join(folder, imageName(key)))) {
    if (await isWhole(imagePath, key)) return { outcome: 'compiled', key, imagePath, cached: true }
  }
  return null
}

/** Creates a folder for one compilation, in the file system of the resulting image. */
export async function makeWorkFolder({ writable }: CompileCache): Promise<string> {
  return await mkdtemp(join(writable, workPrefix()))
}

async function isOlderThan(path: string, ageMs: number): Promise<boolean> {
  const found = await stat(path).catch(() => null)
  return found !== null && Date.now() - found.mtimeMs > ageMs
}

async function removeDeadWork(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    const [, namespace, pid, startTicks, bootId] = name.match(WORK_FOLDER_PATTERN) ?? []
    if (pid === undefined || startTicks === undefined || bootId === undefined) continue
    const path = join(folder, name)
    const isDone =
      namespace === pidNamespace()
        ? !isAlive({ pid: Number(pid), startTicks: Number(startTicks), bootId })
        : await isOlderThan(path, FOREIGN_WORK_GRACE_MS)
    if (isDone) await rm(path, { recursive: true, force: true })
  }
}

/**
 * Opens the cache and removes the work folders of dead servers.
 * @throws OnecopyError CONFIG_INVALID if neither the cache nor the temporary folder is writable.
 */
export async function openCache(cacheDir: string): Promise<CompileCache> {
  let problem: string
  try {
    await mkdir(cacheDir, { recursive: true, mode: 0o700 })
    await access(cacheDir, constants.W_OK | constants.X_OK)
    await removeDeadWork(cacheDir)
    return { folders: [cacheDir], writable: cacheDir, problem: null }
  } catch (thrown) {
    problem = messageOf(thrown)
  }
  try {
    const { writable } = await openTemporaryCache(problem)
    return { folders: [cacheDir, writable], writable, problem }
  } catch (thrown) {
    throw new OnecopyError(
      'CONFIG_INVALID',
      `expected --cache-dir ${cacheDir} or ${tmpdir()} to be writable: ${problem}; ${messageOf(thrown)}`,
    )
  }
}

/** A cache in the temporary folder; `closeCache` removes it. */
export async function openTemporaryCache(problem = 'a temporary cache keeps nothing'): Promise<CompileCache> {
  await removeDeadWork(tmpdir())
  const writable = await mkdtemp(join(tmpdir(), `onecopy${workPrefix()}`))
  return { folders: [writable], writable, problem }
}

/** Removes a temporary cache. */
export async function closeCache({ writable, problem }: CompileCache): Promise<void> {
  if (problem !== null) await rm(writable, { recursive: true, force: true })
}
