import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import test from 'ava'
import { childrenOf } from '../../../bench/harness/processes.js'
import { startServer, stopCleanly } from '../../helpers/server.js'
import { until } from '../../helpers/waiting.js'

/** How often a process has slept. */
function sleepsOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, 'latin1')
  return Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(text)?.[1])
}

test('an idle worker wakes a few times a second, for its heartbeat', async (t) => {
  const { server } = await startServer(t, { args: ['--workers', '2'] })
  const workers = childrenOf(server.process.pid as number)
  t.is(workers.length, 2)
  for (const { pid } of workers) {
    await until('a second in which the worker wakes fewer than 50 times', async () => {
      const before = sleepsOf(pid)
      await pause(1000)
      return sleepsOf(pid) - before < 50
    })
  }
  await stopCleanly(t, server)
})
