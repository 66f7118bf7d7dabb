/** Memory of a process as the kernel counts it, and what its control group allows. Source: proc_pid_smaps(5). */
import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { type ReadText, readLimits, readTextOrNull } from './cgroup.js'

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

/** What v1 says where there is no limit is a number near 2^63. */
const NO_LIMIT_FROM_BYTES = 2 ** 60

/**
 * Memory that the control group allows to all its processes together, shared memory that they write
 * included, in bytes; null where there is no limit.
 */
export function cgroupMemoryLimit(readText: ReadText = readTextOrNull): number | null {
  let smallest: number | null = null
  for (const { texts } of readLimits(
    'memory',
    { v1: ['memory.limit_in_bytes'], v2: 'memory.max' },
    readText,
  )) {
    const limit = Number((texts[0] ?? '').trim() || Number.NaN)
    if (limit > 0 && limit < NO_LIMIT_FROM_BYTES && (smallest === null || limit < smallest)) smallest = limit
  }
  return smallest
}

/** What one worker may take: the rest is that of the segments and of the others. */
const WORKER_SHARE = 0.8

/** By how much a worker may grow once it serves: more than there is cannot be given to it anyway. */
export function workerGrowthBytes(): number {
  return (cgroupMemoryLimit() ?? totalmem()) * WORKER_SHARE
}
