/**
 * Keeps the compile cache below its size limit by removing the least recently used images, but never one that
 * a running server uses. Servers that share a cache folder, also across containers, coordinate with file
 * locks. A server holds a shared lock on each image it uses, and removal requires an exclusive lock.
 */
import { constants } from 'node:fs'
import { type FileHandle, open, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { canLock, tryHoldLock, tryShareLock } from '../process/lock.js'
import { type CompileCache, findKeptImage } from './cache.js'

const IMAGE_PATTERN = /^[0-9a-f]{64}\.segment$/
/** Records of known model files, one small file each. */
const RECORD_PATTERN = /\.json$/
const MAX_RECORDS = 16_384
/** Time for a server that found or created an image to lock it. */
const GRACE_MS = 60_000
const LOCK_FILE = '.eviction.lock'

/**
 * Marks an image as used and keeps it in the cache until the returned file is closed. Null if the cache does
 * not keep it or it was removed meanwhile.
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
  // Fails for files of other users and in read-only folders, where no image is removed either.
  await file.utimes(now, now).catch(() => {})
  return file
}

interface Found {
  readonly path: string
  readonly bytes: number
  readonly usedMs: number
}

/** Files whose names match the pattern, least recently used first. */
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

/** False if the file is in use. */
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
  /** Number of removed images. */
  readonly removed: number
  readonly removedBytes: number
  /** Remaining bytes; above the limit if all remaining images are in use. */
  readonly leftBytes: number
}

/**
 * Removes images until the cache is below `maxBytes`. Null if eviction is impossible: nothing is kept here,
 * another server evicts at the moment, or locks are unavailable.
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
