/**
 * How much more memory a process may take for itself. Without a limit of its own a process that asks for more than there
 * is gets it, and the kernel ends a process of its choice when the pages are touched, this server's primary perhaps. With one
 * the allocation fails, and what asked for it says so. Mapped files and shared memory do not count. Source: prlimit(2), RLIMIT_DATA.
 */
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'

const RLIMIT_DATA = 2

const require = createRequire(import.meta.url)

/** Memory of a process that counts: reserved, whether touched or not; null where it is gone. */
async function dataBytes(pid: number): Promise<number | null> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '')
  const kilobytes = /^VmData:\s+(\d+) kB/m.exec(status)?.[1]
  return kilobytes === undefined ? null : Number(kilobytes) * 1024
}

/**
 * Lets a process of this user grow by so much from here on; false where that cannot be set: libc cannot be reached, the kernel
 * refuses, or the process is gone.
 */
export async function limitDataGrowth(pid: number, bytes: number): Promise<boolean> {
  const now = await dataBytes(pid)
  if (now === null) return false
  try {
    const koffi = require('koffi') as typeof import('koffi')
    // Two unsigned longs each: the soft limit, which counts, and the hard one, which stays.
    const prlimit = koffi
      .load(null)
      .func('int prlimit(int pid, int resource, const uint64_t *to, _Out_ uint64_t *from)')
    const limits = new BigUint64Array(2)
    if (prlimit(pid, RLIMIT_DATA, null, limits) !== 0) return false
    const wanted = BigInt(Math.round(now + bytes))
    // A lower one was set by whoever started the server.
    if ((limits[0] as bigint) < wanted) return true
    limits[0] = wanted
    return prlimit(pid, RLIMIT_DATA, limits, null) === 0
  } catch {
    return false
  }
}
