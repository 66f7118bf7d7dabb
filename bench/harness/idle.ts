/**
 * What a load generator leaves when its time is up: a server that does not notice that its clients are gone computes
 * what they asked for, seconds of it where answers take long, and would take the CPUs from whoever is measured next.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { cpuSeconds, processTree } from './processes.js'

const LOOK_MS = 100
/** Of one CPU, over all of a server's processes: heartbeats take a hundredth. */
const IDLE_SHARE = 0.15
const DEADLINE_MS = 30_000

function cpuSecondsOf(rootPid: number): number {
  return processTree(rootPid).reduce((sum, pid) => sum + cpuSeconds(pid), 0)
}

/** Resolves when a process and all below it have nothing to do; rejects when that takes half a minute. */
export async function untilIdle(rootPid: number): Promise<void> {
  const startedMs = performance.now()
  for (let before = cpuSecondsOf(rootPid); ; ) {
    await pause(LOOK_MS)
    const now = cpuSecondsOf(rootPid)
    if ((now - before) * 1000 < IDLE_SHARE * LOOK_MS) return
    if (performance.now() - startedMs > DEADLINE_MS)
      throw new Error(`a server was still busy ${DEADLINE_MS} ms after the last request`)
    before = now
  }
}
