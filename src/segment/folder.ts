/**
 * The folder of one server inside the segment folder, with mode 0700: `onecopy-PID-STARTTICKS`, with one
 * subfolder per model version. Its name and `owner.json` identify the owner, so that later starts can
 * distinguish leftovers of dead servers from segments of running ones.
 */
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { lstat, mkdir, readFile, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf, OnecopyError } from '../errors.js'
import { isAlive, ownIdentity, type ProcessIdentity, ProcessIdentitySchema } from '../process/identity.js'
import { holdLock, isLockHeld } from '../process/lock.js'

export const SERVER_FOLDER_PATTERN = /^onecopy-(\d+)-(\d+)$/
const OWNER_FILE = 'owner.json'

export interface ServerFolder {
  readonly path: string
  readonly owner: ProcessIdentity
  /**
   * Locked while this process runs. A number rather than a FileHandle, which would be closed on garbage
   * collection.
   */
  readonly ownerFd: number
}

/**
 * Rejects a segment folder that no server can use.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID if it is missing, not a directory, or a symbolic link.
 */
export async function checkSegmentFolder(segmentDir: string): Promise<void> {
  const stat = await lstat(segmentDir).catch(() => null)
  if (stat?.isDirectory() === true) return
  throw new OnecopyError(
    'SEGMENT_FOLDER_INVALID',
    `expected --segment-dir ${segmentDir} to be an existing directory (a tmpfs, such as /dev/shm), ` +
      `got ${stat === null ? 'nothing there' : 'something else (a symbolic link is not followed)'}`,
  )
}

/** Magic numbers of in-memory file systems. Source: statfs(2). */
const MEMORY_FILE_SYSTEMS = new Set([0x01021994, 0x858458f6])

/** Whether the folder is on an in-memory file system. Files on a disk are cached and written back. */
export async function isInMemory(segmentDir: string): Promise<boolean> {
  return MEMORY_FILE_SYSTEMS.has((await statfs(segmentDir)).type)
}

/**
 * Creates the folder of this process.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID if the segment folder is missing, not a directory, or not
 *   writable.
 */
export async function createServerFolder(segmentDir: string): Promise<ServerFolder> {
  await checkSegmentFolder(segmentDir)
  const owner = ownIdentity()
  const path = join(segmentDir, `onecopy-${owner.pid}-${owner.startTicks}`)
  try {
    await mkdir(path, { mode: 0o700 })
    const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants
    const ownerFd = openSync(join(path, OWNER_FILE), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o400)
    holdLock(ownerFd)
    writeSync(ownerFd, JSON.stringify(owner))
    return { path, owner, ownerFd }
  } catch (thrown) {
    throw new OnecopyError(
      'SEGMENT_FOLDER_INVALID',
      `expected to create ${path} with mode 0700: ${messageOf(thrown)}`,
      { cause: thrown },
    )
  }
}

/** The owner recorded in a server's folder; null if the record is missing or invalid. */
export async function readOwner(folderPath: string): Promise<ProcessIdentity | null> {
  try {
    const parsed = ProcessIdentitySchema.safeParse(
      JSON.parse(await readFile(join(folderPath, OWNER_FILE), 'utf8')),
    )
    return parsed.success ? parsed.data : null
  } catch {
    return null
  }
}

/**
 * Whether the recorded owner of a folder still runs. A pid of another container has no meaning here, but the
 * lock on the record works across containers.
 */
export function isOwnerAlive(folderPath: string, owner: ProcessIdentity): boolean {
  if (isAlive(owner)) return true
  let fd: number
  try {
    fd = openSync(join(folderPath, OWNER_FILE), constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch {
    return false
  }
  try {
    return isLockHeld(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * Removes the folder of a server or segment. Live mappings of its files stay valid until they are unmapped.
 */
export async function removeFolder(folderPath: string): Promise<void> {
  await rm(folderPath, { recursive: true, force: true })
}
