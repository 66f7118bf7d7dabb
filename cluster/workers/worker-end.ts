/**
 * Why a worker ended. Its signal alone does not say: SIGKILL comes from the kernel, from an operator and from this
 * server; and only a fault while the runtime computes tells anything about the model that it computed.
 */
import type { OnecopyError } from '../../src/errors.js'
import { EXIT } from '../exit-codes.js'

/** What a process gets for what it did itself. `kill` can send them too, and cannot be told apart. */
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

/** What the log says of each. */
export const END_MESSAGES: Readonly<Record<WorkerEnd, string>> = {
  'runtime fault': 'worker ended inside the runtime',
  fault: 'worker crashed outside the runtime',
  'out of memory': 'worker killed by the kernel: out of memory',
  'killed from outside': 'worker killed from outside',
  'ended from outside': 'worker ended: it was asked to from outside',
  'killed by the server': 'worker killed by the server',
  'failed to start': 'worker failed to start',
  bug: 'worker ended by a bug',
  unknown: 'worker ended',
}

export interface ProcessExit {
  readonly exitCode: number | null
  readonly signal: string | null
}

export interface EndFacts extends ProcessExit {
  /** What it said about itself, or was killed for. */
  readonly failure: OnecopyError | null
  /** Whether this process killed it. */
  readonly wasKilledHere: boolean
  /** Whether its runtime loaded or computed a model at that moment. */
  readonly wasRunning: boolean
  /** Whether the kernel has killed a process for memory that explains no other end; asked only where it matters. */
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
  // A worker answers SIGTERM by draining.
  if (exitCode === 0) return 'ended from outside'
  return exitCode === EXIT.bug ? 'bug' : 'unknown'
}
