/**
 * Whether the kernel has killed a process of this control group for memory: a SIGKILL alone does not say who sent it.
 * Sources: cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control), vmstat of the whole machine elsewhere.
 */
import { type ReadText, readLimits, readTextOrNull } from './cgroup.js'

function countIn(text: string | null): number | null {
  const [, count] = text?.match(/^oom_kill (\d+)$/m) ?? []
  return count === undefined ? null : Number(count)
}

/** Kills so far; null where the kernel does not tell. */
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

/** Kills since somebody asked last: each explains one process that ended by SIGKILL. */
export class OomKills {
  readonly #readText: ReadText
  #explained: number

  constructor(readText: ReadText = readTextOrNull) {
    this.#readText = readText
    this.#explained = oomKillCount(readText) ?? 0
  }

  /** Whether there was a kill that explains no other end yet; from here on it explains this one. */
  take(): boolean {
    if ((oomKillCount(this.#readText) ?? 0) <= this.#explained) return false
    this.#explained++
    return true
  }
}
