/**
 * Keeps the compile cache below its limit: the images that were used least recently go, but never one that a living server
 * uses. Servers that share a cache folder, in other containers too, tell each other by locks on the images: each shares the
 * lock of those that it serves from, and who removes an image holds its lock alone. So an image is in use or removed, not both.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { canLock, tryHoldLock, tryShareLock } from '../process/lock.js'
import { type CompileCache, findKeptImage } from './cache.js'

const IMAGE_PATTERN = /^[0-9a-f]{64}\.segment$/
/** What is remembered of model files, a small file each. */
const RECORD_PATTERN = /\.json$/
const MAX_RECORDS = 16_384
/** Found or made by a server that has not come to locking it. */
const GRACE_MS = 60_000
const LOCK_FILE = '.eviction.lock'

/**
 * Keeps an image in the cache until the returned file is closed, and counts as its use; null where it is not kept, or was
 * removed meanwhile.
 */
export async function holdImage(cache: CompileCache, key: string): Promise<FileHandle | null> {
  const path = await findKeptImage(cache, key)
  if (path === null) return null
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => null)
  if (file === null) return null
  const there = tryShareLock(file.fd) ? await stat(path).catch(() => null) : null
  if (there === null || there.ino !== (await file.stat()).ino) {
    await file.close()
    return null
  }
  const now = new Date()
  // Another user's, or in a folder that cannot be written: it is not removed from there either.
  await file.utimes(now, now).catch(() => {})
  return file
}

interface Found {
  readonly path: string
  readonly bytes: number
  readonly usedMs: number
}

/** Files by a pattern of their names, the one that was used least recently first. */
async function findFiles(folder: string, names: readonly string[], pattern: RegExp): Promise<Found[]> {
  const found = await Promise.all(
    names
      .filter((name) => pattern.test(name))
      .map(async (name): Promise<Found | null> => {
        const path = join(folder, name)
        const facts = await stat(path).catch(() => null)
        return facts === null ? null : { path, bytes: facts.size, usedMs: facts.mtimeMs }
      }),
  )
  return found.filter((one) => one !== null).sort((a, b) => a.usedMs - b.usedMs)
}

/** False where somebody uses it. */
async function removeUnused(path: string): Promise<boolean> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => null)
  if (file === null) return false
  try {
    if (!tryHoldLock(file.fd)) return false
    await rm(path, { force: true })
    return true
  } finally {
    await file.close()
  }
}

export interface Eviction {
  /** Images that were removed. */
  readonly removed: number
  readonly removedBytes: number
  /** What is left: more than the limit where all of it is in use. */
  readonly leftBytes: number
}

/**
 * Removes what is beyond `maxBytes`; null where nothing can be told: nothing is kept here, others are at it, or there are no locks.
 */
export async function evictImages(cache: CompileCache, maxBytes: number): Promise<Eviction | null> {
  const { writable: folder, problem } = cache
  if (problem !== null || !canLock()) return null
  await using lock = await open(join(folder, LOCK_FILE), 'a', 0o600)
  if (!tryHoldLock(lock.fd)) return null
  const names = await readdir(folder)
  const records = await findFiles(folder, names, RECORD_PATTERN)
  for (const { path } of records.slice(0, -MAX_RECORDS)) await rm(path, { force: true })
  const images = await findFiles(folder, names, IMAGE_PATTERN)
  let leftBytes = images.reduce((sum, { bytes }) => sum + bytes, 0)
  let removed = 0
  let removedBytes = 0
  for (const { path, bytes, usedMs } of images) {
    if (leftBytes <= maxBytes || Date.now() - usedMs < GRACE_MS) break
    if (!(await removeUnused(path))) continue
    leftBytes -= bytes
    removedBytes += bytes
    removed++
  }
  return { removed, removedBytes, leftBytes }
}
