/** What the kernel says about processes that are not ours. Source: proc_pid_stat(5), proc_pid_smaps(5). */
import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'

/** Ticks of /proc/PID/stat: USER_HZ, 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

function statFields(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The command name may hold spaces: fields start after its closing parenthesis, with field 3.
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return null
  }
}

/** The living children of a process, by pid, with their arguments. */
export function childArguments(parentPid: number): Map<number, string[]> {
  const children = new Map<number, string[]>()
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry)
    if (!Number.isInteger(pid) || Number(statFields(pid)?.[1]) !== parentPid) continue
    try {
      const text = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      // A zombie has no arguments left.
      if (text !== '') children.set(pid, text.split('\0').slice(0, -1))
    } catch {
      // Gone between the two looks.
    }
  }
  return children
}

/** CPU time of a process so far, all threads, user and system. */
export function cpuSeconds(pid: number): number {
  const fields = statFields(pid)
  return fields === null ? 0 : (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** Every process below a process, itself first. */
export function processTree(rootPid: number): number[] {
  return [rootPid, ...[...childArguments(rootPid).keys()].flatMap(processTree)]
}

export interface MappedMemory {
  readonly sharedBytes: number
  readonly privateBytes: number
  /** Shared pages divided by the number of processes that map them. */
  readonly proportionalBytes: number
}

/** Resident memory of the mappings whose file `isWanted` accepts; an unlinked one ends in ` (deleted)`. */
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
