/**
 * Lists a segment folder without changing it: the folder of each server, whether that server still runs, and
 * its segments. Both the list command and the sweep rely on this module to decide which servers are dead.
 * Symbolic links are not followed, and entries that disappear meanwhile are omitted.
 */
import { constants, type Stats } from 'node:fs'
import { lstat, open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf, OnecopyError } from '../errors.js'
import type { ProcessIdentity } from '../process/identity.js'
import { checkSegmentFolder, isOwnerAlive, readOwner, SERVER_FOLDER_PATTERN } from './folder.js'
import { BLOCK_BYTES } from './holes.js'
import { SEGMENT_FILE_NAME, type SegmentHeader, TEMPORARY_FILE_NAME } from './layout.js'
import { readHeader, sealProblem } from './write.js'

/** For this long an unreadable owner record is attributed to a server that is starting. */
const UNREADABLE_GRACE_MS = 60_000

/**
 * 'live' and 'dead' are derived from the owner record. 'starting': the record is unreadable, but the folder
 * is young enough for it to appear soon. 'foreign': owned by another user and not inspected.
 */
export type ServerState = 'live' | 'dead' | 'starting' | 'foreign'

export interface ServerFolderListing {
  readonly path: string
  readonly name: string
  readonly uid: number
  /** Milliseconds since 1970. */
  readonly createdAtMs: number
  readonly owner: ProcessIdentity | null
  readonly state: ServerState
}

export interface SegmentListing {
  readonly path: string
  readonly model: string
  readonly version: string
  readonly bytes: number
  /** Memory used in the segment folder; less than the size while raw weights are released. */
  readonly memoryBytes: number
  /** False while it is written under its temporary name, and permanently if its server died meanwhile. */
  readonly isFinished: boolean
  /** Null if it is unreadable or not finished. */
  readonly header: SegmentHeader | null
  /** Why no worker would attach to it; null if no problem was found. Graph and weights are not read. */
  readonly problem: string | null
}

export interface ServerListing extends ServerFolderListing {
  readonly segments: readonly SegmentListing[]
}

function statOf(path: string): Promise<Stats | null> {
  return lstat(path).catch(() => null)
}

function stateOf(path: string, stat: Stats, owner: ProcessIdentity | null): ServerState {
  if (owner !== null) return isOwnerAlive(path, owner) ? 'live' : 'dead'
  return Date.now() - stat.mtimeMs > UNREADABLE_GRACE_MS ? 'dead' : 'starting'
}

/** The folder of one server and its state; null if `name` is not a server folder. */
export async function readServerFolder(
  segmentDir: string,
  name: string,
): Promise<ServerFolderListing | null> {
  if (!SERVER_FOLDER_PATTERN.test(name)) return null
  const path = join(segmentDir, name)
  const stat = await statOf(path)
  if (stat === null || !stat.isDirectory()) return null
  const { uid } = stat
  // File systems without creation times report zero.
  const createdAtMs = Math.round(stat.birthtimeMs > 0 ? stat.birthtimeMs : stat.mtimeMs)
  if (uid !== process.getuid?.()) return { path, name, uid, createdAtMs, owner: null, state: 'foreign' }
  const owner = await readOwner(path)
  return { path, name, uid, createdAtMs, owner, state: stateOf(path, stat, owner) }
}

async function inspect(path: string): Promise<Pick<SegmentListing, 'header' | 'problem'>> {
  let header: SegmentHeader | null = null
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      header = await readHeader(file)
      const stat = await file.stat()
      const isWhole = stat.size === header.fileBytes
      const problem = isWhole ? null : `expected ${header.fileBytes} bytes, got ${stat.size}`
      return { header, problem: sealProblem(stat) ?? problem }
    } finally {
      await file.close()
    }
  } catch (thrown) {
    return { header, problem: messageOf(thrown) }
  }
}

function sizesOf({ size, blocks }: Stats): Pick<SegmentListing, 'bytes' | 'memoryBytes'> {
  return { bytes: size, memoryBytes: blocks * BLOCK_BYTES }
}

/** The segment in the folder of one model version, finished or in progress; null if there is neither. */
async function readSegment(serverPath: string, folderName: string): Promise<SegmentListing | null> {
  const at = folderName.lastIndexOf('@')
  const folder = join(serverPath, folderName)
  if (at < 1 || (await statOf(folder))?.isDirectory() !== true) return null
  // Later generations of a version have a number: NAME@VERSION+2.
  const [version = ''] = folderName.slice(at + 1).split('+')
  const named = { model: folderName.slice(0, at), version }
  const temporaryPath = join(folder, TEMPORARY_FILE_NAME)
  const temporary = await statOf(temporaryPath)
  // Checked after the temporary name, so that a rename in between cannot hide the segment.
  const path = join(folder, SEGMENT_FILE_NAME)
  const finished = await statOf(path)
  if (finished === null) {
    if (temporary === null) return null
    const problem = temporary.isFile() ? null : sealProblem(temporary)
    return {
      ...{ ...named, path: temporaryPath, isFinished: false, header: null, problem },
      ...sizesOf(temporary),
    }
  }
  // Opening a pipe would block until a writer appears.
  const found = finished.isFile() ? await inspect(path) : { header: null, problem: sealProblem(finished) }
  if (found.problem !== null && (await statOf(path)) === null) return null
  return { ...named, path, ...sizesOf(finished), isFinished: true, ...found }
}

async function readSegments(server: ServerFolderListing): Promise<SegmentListing[]> {
  if (server.state === 'foreign') return []
  const names = await readdir(server.path).catch(() => [])
  const segments = await Promise.all(names.sort().map((name) => readSegment(server.path, name)))
  return segments.filter((segment) => segment !== null)
}

/**
 * All server folders in `segmentDir` with their segments, oldest first.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID if the segment folder is missing, not a directory, or
 *   unreadable.
 */
export async function listServers(segmentDir: string): Promise<ServerListing[]> {
  await checkSegmentFolder(segmentDir)
  const names = await readdir(segmentDir).catch((thrown) => {
    throw new OnecopyError(
      'SEGMENT_FOLDER_INVALID',
      `expected to read --segment-dir ${segmentDir}: ${messageOf(thrown)}`,
      { cause: thrown },
    )
  })
  const servers: ServerListing[] = []
  for (const name of names) {
    const server = await readServerFolder(segmentDir, name)
    if (server !== null) servers.push({ ...server, segments: await readSegments(server) })
  }
  return servers.sort((a, b) => a.createdAtMs - b.createdAtMs)
}
