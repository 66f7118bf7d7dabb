/** The ranges of a file that a process has mapped. Source: proc_pid_maps(5). */
import { readFile } from 'node:fs/promises'

export interface FileRange {
  readonly offsetBytes: number
  readonly bytes: number
}

/** Address range, permissions, offset into the file, device, inode. */
const LINE = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+)/

/**
 * The mapped ranges of the file with this inode number; none if the process is gone. Files with the same
 * number on other file systems are included, so the result can contain too much but never too little.
 * @throws The error of reading /proc if that is not permitted.
 */
export async function mappedRanges(pid: number, inode: number): Promise<FileRange[]> {
  const maps = await readFile(`/proc/${pid}/maps`, 'latin1').catch((thrown: NodeJS.ErrnoException) => {
    // ESRCH: the process ended between open and read.
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
