/**
 * Reads what stands in a segment folder, changing nothing: each server's folder, whether its server still
 * runs, and the segments in it. The one place that decides who is dead, for the list and for the sweep. No
 * symbolic link is followed, and whatever disappears while it is read is left out: servers come and go.
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

/** An owner record that cannot be read is trusted to a start in progress for this long. */
const UNREADABLE_GRACE_MS = 60_000

/**
 * 'live' and 'dead' follow the owner's record. 'starting': the record cannot be read, and the folder is
 * young enough for it to be still on its way. 'foreign': another user's, not looked into.
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
  /** What it takes of the folder's memory: less than its size while its raw weights are released. */
  readonly memoryBytes: number
  /** False while it is written under its temporary name, and for ever where its server died over it. */
  readonly isFinished: boolean
  /** Null where it cannot be read, and for what is not finished. */
  readonly header: SegmentHeader | null
  /** Why no worker would attach to it; null where nothing was found. Graph and weights are not read. */
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

/** One server's folder and the state of its server; null where `name` is not that of a server's folder. */
export async function readServerFolder(
  segmentDir: string,
  name: string,
): Promise<ServerFolderListing | null> {
  if (!SERVER_FOLDER_PATTERN.test(name)) return null
  const path = join(segmentDir, name)
  const stat = await statOf(path)
  if (stat === null || !stat.isDirectory()) return null
  const { uid } = stat
  // File systems that keep no time of creation say zero.
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

/** The segment in one model version's folder, or the file it is being written to; null where neither stands. */
async function readSegment(serverPath: string, folderName: string): Promise<SegmentListing | null> {
  const at = folderName.lastIndexOf('@')
  const folder = join(serverPath, folderName)
  if (at < 1 || (await statOf(folder))?.isDirectory() !== true) return null
  // Later generations of a version carry a number: NAME@VERSION+2.
  const [version = ''] = folderName.slice(at + 1).split('+')
  const named = { model: folderName.slice(0, at), version }
  const temporaryPath = join(folder, TEMPORARY_FILE_NAME)
  const temporary = await statOf(temporaryPath)
  // After the temporary name: a rename between the two is then seen at least once.
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
  // Opening a pipe would wait for its writer.
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
 * Every server's folder in `segmentDir` with its segments, oldest first.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID when the segment folder is missing, not a directory, or unreadable.
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
