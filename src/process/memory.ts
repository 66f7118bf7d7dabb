/**
 * Memory use of a process as counted by the kernel, and the memory limit of its control group. Source:
 * proc_pid_smaps(5).
 */
import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { type ReadText, readLimits, readTextOrNull } from './cgroup.js'

export interface ProcessMemory {
  /** Pages that no other process maps: Private_Clean + Private_Dirty, in bytes. */
  readonly privateBytes: number
  /** Pages that other processes also map: Shared_Clean + Shared_Dirty, in bytes. */
  readonly sharedBytes: number
  /** Proportional set size: shared pages divided by the number of processes that map them, in bytes. */
  readonly proportionalBytes: number
}

/**
 * Reads /proc/PID/smaps_rollup; null if the process is gone or not readable. Pages of a tmpfs segment that
 * only one process maps count as private, so measure with at least two processes alive.
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

/** cgroup v1 reports no limit as a number near 2^63. */
const NO_LIMIT_FROM_BYTES = 2 ** 60

/**
 * Memory limit in bytes for all processes of the control group together, including shared memory they write;
 * null without a limit.
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

/** The share of the limit that one worker may take; the rest is for segments and other processes. */
const WORKER_SHARE = 0.8

/** How much a worker may grow while it serves. */
export function workerGrowthBytes(): number {
  return (cgroupMemoryLimit() ?? totalmem()) * WORKER_SHARE
}
