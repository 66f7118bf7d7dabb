/** What stands at a path. Nothing is opened: a named pipe would never answer. */
import { access, constants, lstat, readlink, stat } from 'node:fs/promises'
import { messageOf } from '../errors.js'

export type FileKind =
  | { readonly kind: 'file' | 'folder' }
  /** Nothing, or nothing any more. */
  | { readonly kind: 'absent' }
  /** Neither a file nor a folder. */
  | { readonly kind: 'special'; readonly what: string }
  /** There, but not to be reached or read. */
  | { readonly kind: 'unreadable'; readonly what: string }

/** ENOTDIR: a folder on the way was replaced by a file. */
const ABSENT = new Set(['ENOENT', 'ENOTDIR'])

function isAbsent(thrown: unknown): boolean {
  return ABSENT.has((thrown as NodeJS.ErrnoException).code ?? '')
}

/** Of an error of the file system: `EACCES: permission denied`, without the call and its path. */
export function systemReason(thrown: unknown): string {
  return messageOf(thrown).split(', ')[0] as string
}

async function danglingLink(path: string | Buffer): Promise<FileKind> {
  try {
    if ((await lstat(path)).isSymbolicLink())
      return { kind: 'unreadable', what: `a link to ${await readlink(path)}, where nothing is` }
  } catch {
    // Removed meanwhile.
  }
  return { kind: 'absent' }
}

/** Links are followed: volumes of Kubernetes are made of them. */
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
    return { kind: 'unreadable', what: `what cannot be read (${systemReason(thrown)})` }
  }
}

/** The same of a file whose content is needed: one that may not be read is none. */
export async function contentKindOf(path: string): Promise<FileKind> {
  const found = await kindOf(path)
  if (found.kind !== 'file') return found
  try {
    await access(path, constants.R_OK)
    return found
  } catch (thrown) {
    // Removed meanwhile.
    if (isAbsent(thrown)) return { kind: 'absent' }
    return { kind: 'unreadable', what: `a file that cannot be read (${systemReason(thrown)})` }
  }
}

export async function isFile(path: string | Buffer): Promise<boolean> {
  return (await kindOf(path)).kind === 'file'
}

export async function isFolder(path: string | Buffer): Promise<boolean> {
  return (await kindOf(path)).kind === 'folder'
}

/** What an error message says stands there instead of a file. */
export function insteadOfFile(found: FileKind): string {
  if (found.kind === 'absent') return 'none'
  return found.kind === 'special' || found.kind === 'unreadable' ? found.what : `a ${found.kind}`
}
