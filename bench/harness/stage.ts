/**
 * Owns everything that a bench starts: child processes, each in its own process group, and folders in shared
 * memory. All are removed however the bench ends: success, failure, Ctrl-C or another signal. SIGTERM comes
 * first, then SIGKILL to the whole group after a deadline, so no worker outlives its primary.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type ChildOptions, ChildServer } from './child-server.js'

const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

let openStages = 0
let isStopped = false

/** Whether a signal has arrived. Later failures are a consequence of it. */
export function wasStopped(): boolean {
  return isStopped
}

/**
 * Handles signals between stages: the process ends through its exit handlers, which remove partial files.
 * While a stage is open, the stage handles the signal.
 */
export function exitOnSignals(): void {
  for (const [signal, exitCode] of Object.entries(SIGNALS)) {
    process.on(signal, () => {
      isStopped = true
      if (openStages === 0) process.exit(exitCode)
    })
  }
}

export class Stage {
  readonly #children = new Set<ChildServer>()
  readonly #folders = new Set<string>()
  #isEnding = false

  readonly #onSignal = (signal: NodeJS.Signals) => {
    const exitCode = SIGNALS[signal as keyof typeof SIGNALS]
    // A second signal ends immediately; the exit handler kills the remaining processes.
    if (this.#isEnding) process.exit(exitCode)
    this.#isEnding = true
    isStopped = true
    process.stderr.write(`\n${signal}: stopping\n`)
    // Later failures are a consequence of stopped servers.
    process.on('uncaughtException', () => {})
    void this.close().finally(() => process.exit(exitCode))
  }

  readonly #onExit = () => {
    for (const child of this.#children) child.killGroup()
    for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true })
  }

  constructor() {
    openStages++
    for (const signal of Object.keys(SIGNALS)) process.on(signal, this.#onSignal)
    process.on('exit', this.#onExit)
  }

  /** Starts a child and waits for its ready line. */
  async start(options: ChildOptions): Promise<ChildServer> {
    if (this.#isEnding) throw new Error('the bench was stopped')
    const child = new ChildServer(options)
    this.#children.add(child)
    await child.ready
    return child
  }

  async stop(child: ChildServer): Promise<void> {
    await child.close()
    this.#children.delete(child)
  }

  /** Creates a folder that the stage removes. */
  folder(parent: string, prefix: string): string {
    const folder = mkdtempSync(join(parent, prefix))
    this.#folders.add(folder)
    return folder
  }

  async close(): Promise<void> {
    await Promise.all([...this.#children].map((child) => this.stop(child)))
    for (const folder of this.#folders) await rm(folder, { recursive: true, force: true })
    this.#folders.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
    for (const signal of Object.keys(SIGNALS)) process.off(signal, this.#onSignal)
    process.off('exit', this.#onExit)
    openStages--
  }
}
