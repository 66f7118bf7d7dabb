/**
 * Identifies a process by pid, start time and boot id, which stays unambiguous when pids are reused. In a
 * container the server always has pid 1, and `kill(pid, 0)` succeeds for a zombie, so a pid alone is not
 * enough. Source: proc_pid_stat(5), proc_sys_kernel(5).
 */
import { readFileSync } from 'node:fs'
import * as z from 'zod'

export const ProcessIdentitySchema = z.object({
  pid: z.int().positive(),
  /** Field 22 of /proc/PID/stat: clock ticks from boot to the start of the process. */
  startTicks: z.int().nonnegative(),
  /** /proc/sys/kernel/random/boot_id: changes at every boot. */
  bootId: z.string().min(1),
})

export type ProcessIdentity = z.infer<typeof ProcessIdentitySchema>

interface ProcessStat {
  readonly state: string
  readonly startTicks: number
}

function readStat(pid: number | 'self'): ProcessStat | null {
  let text: string
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  } catch {
    return null
  }
  // The command name can contain spaces and parentheses, so fields start after the last parenthesis.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  return { state: fields[0] ?? '', startTicks: Number(fields[19]) }
}

function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
}

/** The identity of the calling process. */
export function ownIdentity(): ProcessIdentity {
  const stat = readStat('self')
  if (stat === null) throw new Error('expected /proc to be mounted: /proc/self/stat cannot be read')
  return { pid: process.pid, startTicks: stat.startTicks, bootId: readBootId() }
}

/** Whether exactly this process still runs. A zombie counts as dead: it holds no memory. */
export function isAlive(identity: ProcessIdentity): boolean {
  if (identity.bootId !== readBootId()) return false
  const stat = readStat(identity.pid)
  return stat !== null && stat.state !== 'Z' && stat.state !== 'X' && stat.startTicks === identity.startTicks
}
