/** CPU time of threads of this process as counted by the kernel. Source: proc_pid_stat(5). */
import { readFileSync, readlinkSync } from 'node:fs'

/** USER_HZ is 100 on every architecture that Node supports. */
const TICK_MS = 10

/** The kernel's id of the calling thread; null if /proc does not provide it. */
export function ownThreadId(): number | null {
  try {
    // PID/task/TID
    return Number(readlinkSync('/proc/thread-self').split('/').at(-1))
  } catch {
    return null
  }
}

/** CPU time of a thread of this process in milliseconds; null if the thread is gone. */
export function threadCpuMs(threadId: number): number | null {
  try {
    const text = readFileSync(`/proc/self/task/${threadId}/stat`, 'latin1')
    // The name can contain spaces and parentheses, so fields start after the last parenthesis, with the third
    // field.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS
  } catch {
    return null
  }
}
