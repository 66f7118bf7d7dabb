/**
 * Classifies the end of a worker. A signal alone is ambiguous: SIGKILL comes from the kernel, an operator or
 * this server. Only a fault while the runtime computes indicates a problem with the model.
 */
import type { OnecopyError } from '../../src/errors.js'
import { EXIT } from '../exit-codes.js'

/** Signals that a process causes itself. The same signals sent by `kill` look identical. */
const FAULTS: readonly string[] = ['SIGSEGV', 'SIGFPE', 'SIGABRT', 'SIGBUS', 'SIGILL', 'SIGTRAP', 'SIGSYS']

export type WorkerEnd =
  | 'runtime fault'
  | 'fault'
  | 'out of memory'
  | 'killed from outside'
  | 'ended from outside'
  | 'killed by the server'
  | 'failed to start'
  | 'bug'
  | 'unknown'

/** The log message for each. */
export const END_MESSAGES: Readonly<Record<WorkerEnd, string>> = {
  'runtime fault': 'worker crashed inside the runtime',
  fault: 'worker crashed outside the runtime',
  'out of memory': 'worker killed by the kernel: out of memory',
  'killed from outside': 'worker killed by an outside signal',
  'ended from outside': 'worker terminated by an outside signal',
  'killed by the server': 'worker killed by the server',
  'failed to start': 'worker failed to start',
  bug: 'worker exited after a bug',
  unknown: 'worker ended',
}

export interface ProcessExit {
  readonly exitCode: number | null
  readonly signal: string | null
}

export interface EndFacts extends ProcessExit {
  /** The failure that it reported or was killed for. */
  readonly failure: OnecopyError | null
  /** Whether this process killed it. */
  readonly wasKilledHere: boolean
  /** Whether its runtime was loading or computing a model. */
  readonly wasRunning: boolean
  /** Whether there is an OOM kill that no other end accounts for. Called only if it matters. */
  readonly takeOomKill: () => boolean
}

export function endOf(facts: EndFacts): WorkerEnd {
  const { exitCode, signal, failure, wasKilledHere, wasRunning, takeOomKill } = facts
  if (signal !== null && FAULTS.includes(signal)) return wasRunning ? 'runtime fault' : 'fault'
  if (signal === 'SIGKILL') {
    if (wasKilledHere) return 'killed by the server'
    return takeOomKill() ? 'out of memory' : 'killed from outside'
  }
  if (signal !== null) return 'killed from outside'
  if (failure !== null) return 'failed to start'
  // A worker drains on SIGTERM and exits with 0.
  if (exitCode === 0) return 'ended from outside'
  return exitCode === EXIT.bug ? 'bug' : 'unknown'
}
