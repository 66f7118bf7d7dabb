/**
 * Detects whether the kernel killed a process of this control group for lack of memory; SIGKILL alone does
 * not tell who sent it. Sources: cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control),
 * otherwise vmstat of the whole machine.
 */
import { type ReadText, readLimits, readTextOrNull } from './cgroup.js'

function countIn(text: string | null): number | null {
  const [, count] = text?.match(/^oom_kill (\d+)$/m) ?? []
  return count === undefined ? null : Number(count)
}

/** OOM kills so far; null if the kernel does not report them. */
export function oomKillCount(readText: ReadText = readTextOrNull): number | null {
  for (const { texts } of readLimits(
    'memory',
    { v1: ['memory.oom_control'], v2: 'memory.events' },
    readText,
  )) {
    const count = countIn(texts[0] ?? null)
    if (count !== null) return count
  }
  return countIn(readText('/proc/vmstat'))
}

/** Counts the OOM kills that have not yet been attributed to a process killed by SIGKILL. */
export class OomKills {
  readonly #readText: ReadText
  #explained: number

  constructor(readText: ReadText = readTextOrNull) {
    this.#readText = readText
    this.#explained = oomKillCount(readText) ?? 0
  }

  /** Whether there is an OOM kill that has not been attributed yet; attributes it to the caller's process. */
  take(): boolean {
    if ((oomKillCount(this.#readText) ?? 0) <= this.#explained) return false
    this.#explained++
    return true
  }
}
