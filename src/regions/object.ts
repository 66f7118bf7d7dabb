/**
 * POSIX shared memory objects of clients: the files of /dev/shm, named by keys. They are read and written, never
 * mapped: a client that shortens an object under a mapping would end this process with SIGBUS, and here it is
 * told so. Every use looks at the file again.
 *
 * Source: shm_open(3), shm_overview(7).
 */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, writeSync } from 'node:fs'
import { join } from 'node:path'
import { OnecopyError } from '../errors.js'

const OBJECTS_FOLDER = '/dev/shm'
const KEY_PATTERN = /^\/?([^/\0]{1,255})$/
/** Folders of servers like this one, and POSIX semaphores: no tensors. */
const RESERVED_PREFIXES = ['onecopy-', 'sem.']

function refuse(key: string, what: string): OnecopyError {
  return new OnecopyError(
    'REQUEST_INVALID',
    `shared memory key ${JSON.stringify(key.slice(0, 300))}: ${what}`,
  )
}

/**
 * The file that a key names.
 * @throws OnecopyError REQUEST_INVALID for what is no name of an object, or one that clients may not name.
 */
export function pathOfKey(key: string): string {
  const name = key.match(KEY_PATTERN)?.[1]
  if (name === undefined || name === '.' || name === '..') {
    throw refuse(key, 'expected a name of at most 255 characters, without a slash but one in front')
  }
  const reserved = RESERVED_PREFIXES.find((prefix) => name.startsWith(prefix))
  if (reserved !== undefined) throw refuse(key, `names that begin with ${reserved} are reserved`)
  return join(OBJECTS_FOLDER, name)
}

function problemOf(stat: Stats, endBytes: number): string | null {
  if (!stat.isFile()) return 'expected a shared memory object, got something else'
  if (stat.nlink !== 1) return 'expected an object of one name, got a link'
  if (stat.size < endBytes) return `expected at least ${endBytes} bytes, the object has ${stat.size}`
  return null
}

/** Opens the object, checked to reach to byte `endBytes`, for as long as `work` takes. */
function withObject<T>(
  { key, flags, endBytes }: { readonly key: string; readonly flags: number; readonly endBytes: number },
  work: (fd: number) => T,
): T {
  const path = pathOfKey(key)
  let fd: number
  try {
    // A pipe would make the opener wait.
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
 * A copy of some bytes of an object.
 * @throws OnecopyError REQUEST_INVALID; nothing is allocated for bytes that are not there.
 */
export function readObject({ key, offsetBytes, bytes }: ObjectRange): Uint8Array<ArrayBuffer> {
  const endBytes = offsetBytes + bytes
  return withObject({ key, flags: constants.O_RDONLY, endBytes }, (fd) => {
    const copy = new Uint8Array(bytes)
    for (let at = 0; at < bytes; ) {
      const got = readSync(fd, copy, at, bytes - at, offsetBytes + at)
      if (got === 0) throw refuse(key, `expected at least ${endBytes} bytes, it was shortened meanwhile`)
      at += got
    }
    return copy
  })
}

/**
 * Writes bytes into an object, which keeps its size.
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
