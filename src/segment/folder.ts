/**
 * The 0700 folder of one server inside the segment folder: `onecopy-PID-STARTTICKS`, with one folder per
 * model version in it. Its name and `owner.json` say whose it is, so that a later start can tell a dead
 * server's leftovers from a living server's segments.
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
  /** Locked for as long as this process lives. A number, not a handle: it must not be closed when it is collected. */
  readonly ownerFd: number
}

/**
 * Refuses a segment folder that no server can use.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID when it is missing, not a directory, or a symbolic link.
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

/** Magic numbers of file systems that are memory. Source: statfs(2). */
const MEMORY_FILE_SYSTEMS = new Set([0x01021994, 0x858458f6])

/** Whether files there are memory and nothing else; on a disk they are cached, and written back. */
export async function isInMemory(segmentDir: string): Promise<boolean> {
  return MEMORY_FILE_SYSTEMS.has((await statfs(segmentDir)).type)
}

/**
 * Creates this process's folder.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID when the segment folder is missing, not a directory, or not writable.
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

/** The owner recorded in a server's folder, or null where the record is missing or does not fit its schema. */
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
 * Whether the owner recorded in a folder still runs. In another container its pid means something else here,
 * but its lock is held all the same.
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

/** Removes a server's or a segment's folder and all in it. Live mappings of its files stay valid until they are dropped. */
export async function removeFolder(folderPath: string): Promise<void> {
  await rm(folderPath, { recursive: true, force: true })
}
