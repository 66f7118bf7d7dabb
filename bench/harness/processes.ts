/** Process information from the kernel. Source: proc_pid_stat(5), proc_pid_smaps(5). */
import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'

/** Unit of the times in /proc/PID/stat: USER_HZ, 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

export interface ListedProcess {
  readonly pid: number
  readonly groupId: number
  readonly parentPid: number
  /** Clock ticks from boot to its start. Together with the pid, this is unique. */
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

/**
 * The fields of /proc/PID/stat from field 3 on, after the command name, which may contain spaces.
 */
function statFields(pid: number): string[] | null {
  const stat = readOrNull(`/proc/${pid}/stat`)
  return stat === null ? null : stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** A live process; null if it has exited or is a zombie. */
export function listedProcess(pid: number): ListedProcess | null {
  const fields = statFields(pid)
  const cmdline = readOrNull(`/proc/${pid}/cmdline`)
  if (fields === null || cmdline === null || fields[0] === 'Z' || fields[0] === 'X') return null
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

function listed(pids: readonly number[]): ListedProcess[] {
  return pids.map(listedProcess).filter((one) => one !== null)
}

function allPids(): number[] {
  return readdirSync('/proc').map(Number).filter(Number.isInteger)
}

/** Live processes of a group, including those whose parent has died. */
export function processesInGroup(groupId: number): ListedProcess[] {
  return listed(allPids()).filter((one) => one.groupId === groupId)
}

/** Live processes whose environment contains `entry`, which is NAME=VALUE. */
export function processesMarked(entry: string): ListedProcess[] {
  return listed(allPids().filter((pid) => readOrNull(`/proc/${pid}/environ`)?.split('\0').includes(entry)))
}

/** The live children of a process. */
export function childrenOf(pid: number): ListedProcess[] {
  let threads: string[]
  try {
    threads = readdirSync(`/proc/${pid}/task`)
  } catch {
    return []
  }
  const pids = threads
    .flatMap((thread) => readOrNull(`/proc/${pid}/task/${thread}/children`)?.split(' ') ?? [])
    .filter((text) => text.trim() !== '')
  return listed(pids.map(Number))
}

/** Pids of a process and all its descendants, the process first. */
export function processTree(rootPid: number): number[] {
  return [rootPid, ...childrenOf(rootPid).flatMap(({ pid }) => processTree(pid))]
}

export function isWorker({ args }: Pick<ListedProcess, 'args'>): boolean {
  return args.at(-1) === 'worker'
}

export function isCompiler({ args }: ListedProcess): boolean {
  return args.at(-1)?.endsWith('compile-main.js') === true
}

/** Sends a signal to a process that may have exited. Returns whether it still existed. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
    return false
  }
}

/** CPU time of a process so far, all threads, user and system. */
export function cpuSeconds(pid: number): number {
  const fields = statFields(pid)
  return fields === null ? 0 : (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

export interface MappedMemory {
  readonly sharedBytes: number
  readonly privateBytes: number
  /** Shared pages divided by the number of processes that map them. */
  readonly proportionalBytes: number
}

/**
 * Resident memory of the mappings whose file `isWanted` accepts; an unlinked one ends in `
 * (deleted)`.
 */
export async function mappedMemoryWhere(
  pid: number,
  isWanted: (path: string) => boolean,
): Promise<MappedMemory> {
  const bytes = { Shared: 0, Private: 0, Pss: 0 }
  let isInside = false
  for (const line of (await readFile(`/proc/${pid}/smaps`, 'latin1')).split('\n')) {
    const [, path] = line.match(/^[0-9a-f]+-[0-9a-f]+ \S{4} \S+ \S+ \d+\s*(.*)$/) ?? []
    if (path !== undefined) isInside = isWanted(path)
    if (!isInside) continue
    const [, name, kibibytes] =
      line.match(/^(Shared_Clean|Shared_Dirty|Private_Clean|Private_Dirty|Pss):\s+(\d+) kB/) ?? []
    if (name === undefined) continue
    bytes[name.split('_')[0] as keyof typeof bytes] += Number(kibibytes) * 1024
  }
  return { sharedBytes: bytes.Shared, privateBytes: bytes.Private, proportionalBytes: bytes.Pss }
}

/** Resident memory of the mappings of files under `folder`, unlinked ones included. */
export async function mappedMemory(pid: number, folder: string): Promise<MappedMemory> {
  return await mappedMemoryWhere(pid, (path) => path.startsWith(`${folder}/`))
}
