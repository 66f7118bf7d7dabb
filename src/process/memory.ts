/** Memory of a process as the kernel counts it. Source: proc_pid_smaps(5). */
import { readFile } from 'node:fs/promises'

export interface ProcessMemory {
  /** Pages no other process maps: Private_Clean + Private_Dirty, in bytes. */
  readonly privateBytes: number
  /** Pages other processes map too: Shared_Clean + Shared_Dirty, in bytes. */
  readonly sharedBytes: number
  /** Proportional set size: shared pages divided by the number of processes that map them, in bytes. */
  readonly proportionalBytes: number
}

/**
 * Reads /proc/PID/smaps_rollup; null when the process is gone or not ours to read. Pages of a tmpfs
 * segment that only one process maps count as its private ones: measure with two or more alive.
 */
export async function readProcessMemory(pid: number | 'self'): Promise<ProcessMemory | null> {
  let text: string
  try {
    text = await readFile(`/proc/${pid}/smaps_rollup`, 'latin1')
  } catch {
    return null
  }
  const bytesOf = (field: string) =>
    Number(text.match(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm'))?.[1] ?? 0) * 1024
  return {
    privateBytes: bytesOf('Private_Clean') + bytesOf('Private_Dirty'),
    sharedBytes: bytesOf('Shared_Clean') + bytesOf('Shared_Dirty'),
    proportionalBytes: bytesOf('Pss'),
  }
}
