/**
 * Releases pages in the middle of an in-memory file. They read as zeros afterwards, and writing them
 * allocates memory again. Source: fallocate(2).
 */
import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { chmod, open, stat } from 'node:fs/promises'
import { createRequire } from 'node:module'

const FALLOC_FL_KEEP_SIZE = 1
const FALLOC_FL_PUNCH_HOLE = 2
/** Unit of `st_blocks`. Source: stat(2). */
export const BLOCK_BYTES = 512

type Fallocate = (fd: number, mode: number, offset: number, length: number) => number

const require = createRequire(import.meta.url)
let loaded: Fallocate | null | undefined

/** Null if libc is unavailable. */
function fallocate(): Fallocate | null {
  if (loaded !== undefined) return loaded
  try {
    const koffi = require('koffi') as typeof import('koffi')
    loaded = koffi
      .load(null)
      .func('int fallocate(int fd, int mode, int64_t offset, int64_t length)') as Fallocate
  } catch {
    loaded = null
  }
  return loaded
}

/** Whether this process can punch holes at all. */
export function canPunchHoles(): boolean {
  return fallocate() !== null
}

/** Returns whether the file system supports it. Partially covered pages are zeroed and kept. */
export function punchHole(fd: number, offsetBytes: number, lengthBytes: number): boolean {
  return fallocate()?.(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offsetBytes, lengthBytes) === 0
}

/** Memory used by a file on a tmpfs, in bytes; less than its size if it has holes. */
export async function allocatedBytes(path: string): Promise<number> {
  return (await stat(path)).blocks * BLOCK_BYTES
}

/** Opens a sealed file for writing and seals it again immediately: only this handle can write. */
export async function openSealed(path: string): Promise<FileHandle> {
  await chmod(path, 0o600)
  try {
    return await open(path, constants.O_RDWR | constants.O_NOFOLLOW)
  } finally {
    await chmod(path, 0o400)
  }
}
