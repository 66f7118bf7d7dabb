/** Which parts of a file a process has mapped. Source: proc_pid_maps(5). */
import { readFile } from 'node:fs/promises'

export interface FileRange {
  readonly offsetBytes: number
  readonly bytes: number
}

/** Address range, permissions, offset into the file, device, inode. */
const LINE = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+)/

/**
 * The ranges of the file with that inode number in one process, none for a process that is gone. Of another file system
 * a file with the same number counts too: more than is mapped, never less.
 * @throws the error of reading /proc where it is not allowed.
 */
export async function mappedRanges(pid: number, inode: number): Promise<FileRange[]> {
  const maps = await readFile(`/proc/${pid}/maps`, 'latin1').catch((thrown: NodeJS.ErrnoException) => {
    // ESRCH: it ended between the two calls.
    if (thrown.code === 'ENOENT' || thrown.code === 'ESRCH') return ''
    throw thrown
  })
  return maps.split('\n').flatMap((line) => {
    const [, from = '', to = '', offset = '', number] = line.match(LINE) ?? []
    if (Number(number) !== inode) return []
    const bytes = Number(BigInt(`0x${to}`) - BigInt(`0x${from}`))
    return [{ offsetBytes: Number.parseInt(offset, 16), bytes }]
  })
}
