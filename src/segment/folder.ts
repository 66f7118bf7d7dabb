/**
 * The 0700 folder of one server inside the segment folder: `onecopy-PID-STARTTICKS`, with one folder per
 * model version in it. Its name and `owner.json` say whose it is, so that a later start can tell a dead
 * server's leftovers from a living server's segments.
 */
import { constants } from 'node:fs'
import { lstat, mkdir, open, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf, OnecopyError } from '../errors.js'
import { ownIdentity, type ProcessIdentity, ProcessIdentitySchema } from '../process/identity.js'

export const SERVER_FOLDER_PATTERN = /^onecopy-(\d+)-(\d+)$/
const OWNER_FILE = 'owner.json'

export interface ServerFolder {
  readonly path: string
  readonly owner: ProcessIdentity
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
    const file = await open(
      join(path, OWNER_FILE),
      constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | constants.O_NOFOLLOW,
      0o400,
    )
    try {
      await file.writeFile(JSON.stringify(owner))
    } finally {
      await file.close()
    }
  } catch (thrown) {
    throw new OnecopyError(
      'SEGMENT_FOLDER_INVALID',
      `expected to create ${path} with mode 0700: ${messageOf(thrown)}`,
      { cause: thrown },
    )
  }
  return { path, owner }
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

/** Removes a server's folder and all in it. Live mappings of its files stay valid until they are dropped. */
export async function removeServerFolder(folderPath: string): Promise<void> {
  await rm(folderPath, { recursive: true, force: true })
}
