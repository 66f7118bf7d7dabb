/**
 * Limits the memory growth of a process. Without its own limit, a process can reserve more memory than is
 * available. When the pages are touched, the kernel then kills a process of its choice, perhaps the primary.
 * With a limit the allocation fails in the process that requested it. Mapped files and shared memory do not
 * count. Source: prlimit(2), RLIMIT_DATA.
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'

const RLIMIT_DATA = 2

const require = createRequire(import.meta.url)

/**
 * Private memory of a process that counts against the limit, whether touched or not; null if the process is
 * gone.
 */
async function dataBytes(pid: number): Promise<number | null> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '')
  const kilobytes = /^VmData:\s+(\d+) kB/m.exec(status)?.[1]
  return kilobytes === undefined ? null : Number(kilobytes) * 1024
}

/**
 * Lets a process of the same user grow by at most `bytes`. Returns false if the limit cannot be set: libc is
 * unavailable, the kernel refuses, or the process is gone.
 */
export async function limitDataGrowth(pid: number, bytes: number): Promise<boolean> {
  const now = await dataBytes(pid)
  if (now === null) return false
  try {
    const koffi = require('koffi') as typeof import('koffi')
    // Two unsigned longs each: the soft limit, which applies, and the hard limit, which is not changed.
    const prlimit = koffi
      .load(null)
      .func('int prlimit(int pid, int resource, const uint64_t *to, _Out_ uint64_t *from)')
    const limits = new BigUint64Array(2)
    if (prlimit(pid, RLIMIT_DATA, null, limits) !== 0) return false
    const wanted = BigInt(Math.round(now + bytes))
    // The environment of the server has a lower limit, which stays.
    if ((limits[0] as bigint) < wanted) return true
    limits[0] = wanted
    return prlimit(pid, RLIMIT_DATA, limits, null) === 0
  } catch {
    return false
  }
}
