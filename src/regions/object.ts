/**
 * POSIX shared memory objects of clients: files in /dev/shm, identified by keys. They are read and written
 * but never mapped: if a client truncated a mapped object, this process would die of SIGBUS. Without a
 * mapping the client gets an error. Every use checks the file again.
 *
 * Source: shm_open(3), shm_overview(7).
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, writeSync } from 'node:fs'
import { join } from 'node:path'
import { OnecopyError } from '../errors.js'

const OBJECTS_FOLDER = '/dev/shm'
const KEY_PATTERN = /^\/?([^/\0]{1,255})$/
/** Folders of onecopy servers and POSIX semaphores contain no tensors. */
const RESERVED_PREFIXES = ['onecopy-', 'sem.']

function refuse(key: string, what: string): OnecopyError {
  return new OnecopyError(
    'REQUEST_INVALID',
    `shared memory key ${JSON.stringify(key.slice(0, 300))}: ${what}`,
  )
}

/**
 * The file that a key names.
 * @throws OnecopyError REQUEST_INVALID if the key is malformed or reserved.
 */
export function pathOfKey(key: string): string {
  const name = key.match(KEY_PATTERN)?.[1]
  if (name === undefined || name === '.' || name === '..') {
    throw refuse(key, 'expected a name of at most 255 characters, with no slash except a leading one')
  }
  const reserved = RESERVED_PREFIXES.find((prefix) => name.startsWith(prefix))
  if (reserved !== undefined) throw refuse(key, `names starting with ${reserved} are reserved`)
  return join(OBJECTS_FOLDER, name)
}

function problemOf(stat: Stats, endBytes: number): string | null {
  if (!stat.isFile()) return 'expected a shared memory object, got something else'
  if (stat.nlink !== 1) return 'expected an object without hard links, got one with several names'
  if (stat.size < endBytes) return `expected at least ${endBytes} bytes, the object has ${stat.size}`
  return null
}

/** Opens the object for the duration of `work`, after checking that it reaches to byte `endBytes`. */
function withObject<T>(
  { key, flags, endBytes }: { readonly key: string; readonly flags: number; readonly endBytes: number },
  work: (fd: number) => T,
): T {
  const path = pathOfKey(key)
  let fd: number
  try {
    // Opening a pipe would otherwise block.
    fd = openSync(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    throw refuse(key, code === 'ENOENT' ? 'no such shared memory object' : `cannot be opened (${code})`)
  }
  try {
    const problem = problemOf(fstatSync(fd), endBytes)
    if (problem !== null) throw refuse(key, problem)
    return work(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * Checks that an object can be read and written up to byte `endBytes`.
 * @throws OnecopyError REQUEST_INVALID.
 */
export function checkObject(key: string, endBytes: number): void {
  withObject({ key, flags: constants.O_RDWR, endBytes }, () => {})
}

export interface ObjectRange {
  readonly key: string
  readonly offsetBytes: number
  readonly bytes: number
}

/**
 * Returns a copy of a range of an object.
 * @throws OnecopyError REQUEST_INVALID, before anything is allocated if the object is too small.
 */
export function readObject({ key, offsetBytes, bytes }: ObjectRange): Uint8Array<ArrayBuffer> {
  const endBytes = offsetBytes + bytes
  return withObject({ key, flags: constants.O_RDONLY, endBytes }, (fd) => {
    const copy = new Uint8Array(bytes)
    for (let at = 0; at < bytes; ) {
      const got = readSync(fd, copy, at, bytes - at, offsetBytes + at)
      if (got === 0)
        throw refuse(key, `expected at least ${endBytes} bytes, but the object was truncated meanwhile`)
      at += got
    }
    return copy
  })
}

/**
 * Writes bytes into an object without changing its size.
 * @throws OnecopyError REQUEST_INVALID.
 */
export function writeObject({ key, offsetBytes }: Omit<ObjectRange, 'bytes'>, bytes: Uint8Array): void {
  const endBytes = offsetBytes + bytes.length
  withObject({ key, flags: constants.O_RDWR, endBytes }, (fd) => {
    for (let at = 0; at < bytes.length; ) {
      try {
        at += writeSync(fd, bytes, at, bytes.length - at, offsetBytes + at)
      } catch (thrown) {
        const { code } = thrown as NodeJS.ErrnoException
        throw refuse(key, `cannot be written (${code})`)
      }
    }
  })
}
