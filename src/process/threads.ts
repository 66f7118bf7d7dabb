/** Threads of this process as the kernel counts them. Source: proc_pid_stat(5). */
import { readFileSync, readlinkSync } from 'node:fs'

/** USER_HZ, which is 100 on every architecture that Node runs on. */
const TICK_MS = 10

/** The kernel's id of the calling thread; null where /proc does not say. */
export function ownThreadId(): number | null {
  try {
    // PID/task/TID
    return Number(readlinkSync('/proc/thread-self').split('/').at(-1))
  } catch {
    return null
  }
}

/** Time that a thread of this process has spent on a CPU, in milliseconds; null when it is gone. */
export function threadCpuMs(threadId: number): number | null {
  try {
    const text = readFileSync(`/proc/self/task/${threadId}/stat`, 'latin1')
    // The name may hold spaces and parentheses: fields start after the last one, with the third.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS
  } catch {
    return null
  }
}
