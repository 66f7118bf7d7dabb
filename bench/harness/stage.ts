/**
 * Owns everything that a bench starts: child processes, each in a process group of its own, and folders
 * in shared memory. Whatever way the bench ends (done, failed, Ctrl-C, a signal), they are gone after it:
 * SIGTERM first, past a deadline SIGKILL to the whole group, so that no worker outlives its primary.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type ChildOptions, ChildServer } from './child-server.js'

const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

let openStages = 0
let isStopped = false

/** A signal came: what fails from here on fails because it was stopped. */
export function wasStopped(): boolean {
  return isStopped
}

/**
 * For the time between stages: a signal ends the process through its exit handlers, which remove what is half written.
 * While a stage is open, the stage ends it.
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
    // The second wish is not kept waiting: the exit handler kills what is left.
    if (this.#isEnding) process.exit(exitCode)
    this.#isEnding = true
    isStopped = true
    process.stderr.write(`\n${signal}: stopping\n`)
    // What fails from here on fails because its server was stopped.
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

  /** A new folder that goes when the stage does. */
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
