/**
 * A server whose processes are all known by an environment variable that they inherit. Each can be signalled
 * alone or with all others, and none can survive unnoticed.
 */
import { randomUUID } from 'node:crypto'
import { readdirSync } from 'node:fs'
import type { ExecutionContext } from 'ava'
import {
  childrenOf,
  isCompiler,
  isWorker,
  processesMarked,
  signalIfThere,
} from '../../bench/harness/processes.js'
import { type ServerUnderTest, type StartOptions, spawnServer } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

const MARK = 'FAULT_TEST_SERVER'

export class FaultServer {
  readonly server: ServerUnderTest
  readonly #mark: string

  constructor(t: ExecutionContext, options: StartOptions) {
    const id = randomUUID()
    this.#mark = `${MARK}=${id}`
    this.server = spawnServer(t, { ...options, env: { ...options.env, [MARK]: id } })
    // Runs before the cleanup of the server: a stopped process would keep its pipes open for ever.
    t.teardown(() => this.killEverything())
  }

  get primaryPid(): number {
    return this.server.process.pid ?? 0
  }

  /** @throws Error with its output if the server has ended. */
  assertAlive(): void {
    const { exitCode, signalCode } = this.server.process
    if (exitCode === null && signalCode === null) return
    throw new Error(`the server ended with ${signalCode ?? exitCode}:\n${this.server.stderr}`)
  }

  workerPids(): number[] {
    return childrenOf(this.primaryPid)
      .filter(isWorker)
      .map(({ pid }) => pid)
  }

  compilerPids(): number[] {
    return childrenOf(this.primaryPid)
      .filter(isCompiler)
      .map(({ pid }) => pid)
  }

  /** The primary first, because it decides the reaction to a signal to all. */
  everyPid(): number[] {
    const others = processesMarked(this.#mark).map(({ pid }) => pid)
    return [this.primaryPid, ...others.filter((pid) => pid !== this.primaryPid)]
  }

  signalEverything(signal: NodeJS.Signals): void {
    for (const pid of this.everyPid()) signalIfThere(pid, signal)
  }

  killEverything(): void {
    for (;;) {
      const alive = processesMarked(this.#mark)
      if (alive.length === 0) return
      for (const { pid } of alive) signalIfThere(pid, 'SIGKILL')
    }
  }

  /** Rejects with the names of processes that survive a generous deadline. */
  async untilGone(): Promise<void> {
    await until('all processes of the server to exit', () => processesMarked(this.#mark).length === 0)
  }

  /** Work folders of compilations that were not removed. */
  workFolders(): string[] {
    return readdirSync(this.server.cacheDir).filter((name) => name.startsWith('.work-'))
  }

  /** Files in all places that must be empty. */
  leftovers(): string[] {
    return [...this.server.segments(), ...this.workFolders()]
  }
}
