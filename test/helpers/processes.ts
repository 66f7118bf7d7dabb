/** Creates processes in given states and reads states from the kernel. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { ExecutionContext } from 'ava'
import { ownIdentity, type ProcessIdentity } from '../../src/process/identity.js'

/** Fields of /proc/PID/stat, starting with the state. */
function statFields(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

/** Waits until the process has the state with this letter, see proc_pid_stat(5). */
export async function untilState(pid: number, state: 'T' | 'Z'): Promise<void> {
  const deadlineMs = performance.now() + 20_000
  while (statFields(pid)[0] !== state) {
    if (performance.now() > deadlineMs) throw new Error(`waited 20 s for process ${pid} to be ${state}`)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** A zombie: its parent, alive until the end of the test, never waits for it. */
export async function startZombie(t: ExecutionContext): Promise<ProcessIdentity> {
  // The shell prints the pid of a child and then execs a program that never waits for it.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'])
  t.teardown(() => parent.kill('SIGKILL'))
  const [output] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(output.toString())
  await untilState(pid, 'Z')
  return { ...ownIdentity(), pid, startTicks: Number(statFields(pid)[19]) }
}

/** Stops a process and its children first, so that none can react to the kill. */
export async function killWithChildren(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  await untilState(pid, 'T')
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean)
  for (const child of children) process.kill(Number(child), 'SIGKILL')
  process.kill(pid, 'SIGKILL')
}
