/** Determines what is at a path without opening it, because opening a named pipe would block. */
import { access, constants, lstat, readlink, stat } from 'node:fs/promises'
import { messageOf } from '../errors.js'

export type FileKind =
  | { readonly kind: 'file' | 'folder' }
  /** Does not exist, or no longer. */
  | { readonly kind: 'absent' }
  /** Neither a file nor a folder. */
  | { readonly kind: 'special'; readonly what: string }
  /** Exists but is not accessible. */
  | { readonly kind: 'unreadable'; readonly what: string }

/** ENOTDIR: a parent folder was replaced by a file. */
const ABSENT = new Set(['ENOENT', 'ENOTDIR'])

function isAbsent(thrown: unknown): boolean {
  return ABSENT.has((thrown as NodeJS.ErrnoException).code ?? '')
}

/** The reason of a file system error without the system call and path: `EACCES: permission denied`. */
export function systemReason(thrown: unknown): string {
  return messageOf(thrown).split(', ')[0] as string
}

async function danglingLink(path: string | Buffer): Promise<FileKind> {
  try {
    if ((await lstat(path)).isSymbolicLink())
      return { kind: 'unreadable', what: `a broken link to ${await readlink(path)}` }
  } catch {
    // Removed meanwhile.
  }
  return { kind: 'absent' }
}

/** Follows links, because Kubernetes volumes consist of links. */
export async function kindOf(path: string | Buffer): Promise<FileKind> {
  try {
    const found = await stat(path)
    if (found.isDirectory()) return { kind: 'folder' }
    if (!found.isFile()) {
      const what = found.isFIFO() ? 'a named pipe' : found.isSocket() ? 'a socket' : 'a device'
      return { kind: 'special', what }
    }
    return { kind: 'file' }
  } catch (thrown) {
    if (isAbsent(thrown)) return await danglingLink(path)
    return { kind: 'unreadable', what: `an unreadable path (${systemReason(thrown)})` }
  }
}

/** Like kindOf, for a file whose content is needed: it must also be readable. */
export async function contentKindOf(path: string): Promise<FileKind> {
  const found = await kindOf(path)
  if (found.kind !== 'file') return found
  try {
    await access(path, constants.R_OK)
    return found
  } catch (thrown) {
    // Removed meanwhile.
    if (isAbsent(thrown)) return { kind: 'absent' }
    return { kind: 'unreadable', what: `an unreadable file (${systemReason(thrown)})` }
  }
}

export async function isFile(path: string | Buffer): Promise<boolean> {
  return (await kindOf(path)).kind === 'file'
}

export async function isFolder(path: string | Buffer): Promise<boolean> {
  return (await kindOf(path)).kind === 'folder'
}

/** What an error message reports as found instead of a file. */
export function insteadOfFile(found: FileKind): string {
  if (found.kind === 'absent') return 'none'
  return found.kind === 'special' || found.kind === 'unreadable' ? found.what : `a ${found.kind}`
}
