/**
 * Waits until a server is idle. After a load ends, a server that does not notice closed connections keeps
 * computing, sometimes for seconds, and would take CPU time from the next variant.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { cpuSeconds, processTree } from './processes.js'

const POLL_MS = 100
/** Share of one CPU, over all processes of a server. Heartbeats take about 1%. */
const IDLE_SHARE = 0.15
const DEADLINE_MS = 30_000

function cpuSecondsOf(rootPid: number): number {
  return processTree(rootPid).reduce((sum, pid) => sum + cpuSeconds(pid), 0)
}

/** Resolves when a process and its descendants are idle; rejects after the deadline. */
export async function untilIdle(rootPid: number): Promise<void> {
  const startedMs = performance.now()
  for (let before = cpuSecondsOf(rootPid); ; ) {
    await pause(POLL_MS)
    const now = cpuSecondsOf(rootPid)
    if ((now - before) * 1000 < IDLE_SHARE * POLL_MS) return
    if (performance.now() - startedMs > DEADLINE_MS)
      throw new Error(`a server was still busy ${DEADLINE_MS} ms after the last request`)
    before = now
  }
}
