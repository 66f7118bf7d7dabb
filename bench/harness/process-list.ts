/**
 * Which processes a server consists of, also those that lost their parent: by process group, or by an
 * entry of the environment that all of them inherited. Zombies are dead. Source: proc_pid_stat(5).
 */
import { readdirSync, readFileSync } from 'node:fs'

export interface ListedProcess {
  readonly pid: number
  readonly groupId: number
  readonly parentPid: number
  /** Clock ticks from boot to its start: with the pid, a name that is never used twice. */
  readonly startTicks: number
  readonly args: readonly string[]
}

function readOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

/** A living process; null when it is gone. */
export function listedProcess(pid: number): ListedProcess | null {
  const stat = readOrNull(`/proc/${pid}/stat`)
  const cmdline = readOrNull(`/proc/${pid}/cmdline`)
  if (stat === null || cmdline === null) return null
  // The command name may hold spaces: fields start after its closing parenthesis, with field 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (fields[0] === 'Z' || fields[0] === 'X') return null
  return {
    pid,
    parentPid: Number(fields[1]),
    groupId: Number(fields[2]),
    startTicks: Number(fields[19]),
    args: cmdline.split('\0').slice(0, -1),
  }
}

export function isRunning({ pid, startTicks }: ListedProcess): boolean {
  return listedProcess(pid)?.startTicks === startTicks
}

function allPids(): number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger)
}

export function processesInGroup(groupId: number): ListedProcess[] {
  return allPids()
    .map(listedProcess)
    .filter((one) => one !== null)
    .filter((one) => one.groupId === groupId)
}

/** Processes whose environment holds `entry`, which is NAME=VALUE. */
export function processesMarked(entry: string): ListedProcess[] {
  return allPids()
    .filter((pid) => readOrNull(`/proc/${pid}/environ`)?.split('\0').includes(entry))
    .map(listedProcess)
    .filter((one) => one !== null)
}

/** The living children of a process; quicker than a look at all processes. */
export function childrenOf(pid: number): ListedProcess[] {
  let threads: string[]
  try {
    threads = readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
  return threads
    .flatMap((thread) => readOrNull(`/proc/${pid}/task/${thread}/children`)?.split(' ') ?? [])
    .filter((text) => text.trim() !== '')
    .map((text) => listedProcess(Number(text)))
    .filter((one) => one !== null)
}

export function isWorker({ args }: ListedProcess): boolean {
  return args.at(-1) === 'worker'
}

export function isCompiler({ args }: ListedProcess): boolean {
  return args.at(-1)?.endsWith('compile-main.js') === true
}

/** Sends a signal to a process that may be gone by now; true when it was still there. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
    return false
  }
}
