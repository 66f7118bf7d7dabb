/**
 * The process of a started variant: waits for its ready line and reports its last output if it
 * fails.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import * as z from 'zod'
import { childrenOf, type ListedProcess } from './processes.js'

/** The first start of a server can compile sixty models. */
const READY_TIMEOUT_MS = 600_000
/** For servers without a ready line. Their output may not reach the bench. */
const PROBE_TIMEOUT_MS = 180_000
const STOP_TIMEOUT_MS = 10_000
const WORKERS_TIMEOUT_MS = 5000
const POLL_MS = 50
/** Short, because the poll interval is part of the measurement. */
const PROBE_MS = 10
const MAX_LAST_LINES = 20

export interface ChildOptions {
  readonly name: string
  /** Default: this Node executable. */
  readonly command?: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** For servers without a ready line: ready when a GET of this path on this port returns 200. */
  readonly probe?: { readonly port: number; readonly path: string }
  /** Whether it has an IPC channel. The variant also exits when the channel closes. */
  readonly hasChannel: boolean
  /** Receives every line of its standard error. */
  readonly onLine?: (line: string) => void
}

const ReadySchema = z.object({
  msg: z.literal('ready'),
  port: z.int().optional(),
  adminPort: z.int().optional(),
  grpcPort: z.int().optional(),
})
export type Ready = z.infer<typeof ReadySchema>

function parseReady(line: string): Ready | null {
  if (!line.startsWith('{')) return null
  try {
    return ReadySchema.safeParse(JSON.parse(line)).data ?? null
  } catch {
    return null
  }
}

/** ONECOPY_ variables of the caller must not configure the servers. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('ONECOPY_'))
  return { ...Object.fromEntries(inherited), NODE_ENV: 'production' }
}

export class ChildServer {
  readonly name: string
  readonly process: ChildProcess
  readonly ready: Promise<Ready>
  #readyAtMs = Number.NaN
  readonly #lastLines: string[] = []
  readonly #exited: Promise<unknown>

  constructor(options: ChildOptions) {
    const { name, command = process.execPath, args, env = {}, hasChannel } = options
    this.name = name
    this.process = spawn(command, args, {
      // A separate process group: Ctrl-C reaches only the bench, which then stops the process.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', ...(hasChannel ? (['ipc'] as const) : [])],
      env: { ...cleanEnvironment(), ...env },
    })
    this.#exited = once(this.process, 'exit')
    // Prevents an unhandled rejection; `ready` reports a failed start.
    this.#exited.catch(() => {})
    this.ready = this.#waitUntilReady(options)
    this.ready.catch(() => {})
  }

  async #probe({ port, path }: { readonly port: number; readonly path: string }): Promise<Ready> {
    for (;;) {
      try {
        const response = await fetch(`http://127.0.0.1:${port}${path}`)
        await response.arrayBuffer()
        if (response.status === 200) return { msg: 'ready', port }
      } catch {
        // Not listening yet.
      }
      if (this.#isGone) throw new Error(`${this.name} has exited`)
      await pause(PROBE_MS)
    }
  }

  /** When it was ready, in the time of `performance.now()`; NaN before. */
  get readyAtMs(): number {
    return this.#readyAtMs
  }

  get #isGone(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null
  }

  #waitUntilReady({ onLine = () => {}, probe }: ChildOptions): Promise<Ready> {
    return new Promise((resolve, reject) => {
      const fail = (what: string) => reject(new Error(`${this.name} ${what}:\n${this.#lastLines.join('\n')}`))
      const timeoutMs = probe === undefined ? READY_TIMEOUT_MS : PROBE_TIMEOUT_MS
      const timer = setTimeout(() => fail(`was not ready within ${timeoutMs} ms`), timeoutMs)
      const succeed = (ready: Ready) => {
        clearTimeout(timer)
        this.#readyAtMs = performance.now()
        resolve(ready)
      }
      // The exit handler below reports why it ended.
      if (probe !== undefined) this.#probe(probe).then(succeed, () => {})
      const { stderr } = this.process
      if (stderr === null) throw new Error('expected the child to have a standard error')
      createInterface({ input: stderr }).on('line', (line) => {
        onLine(line)
        this.#lastLines.push(line)
        if (this.#lastLines.length > MAX_LAST_LINES) this.#lastLines.shift()
        const ready = parseReady(line)
        if (ready !== null) succeed(ready)
      })
      this.process.once('error', (thrown) => fail(`did not start (${thrown.message})`))
      this.process.once('exit', (exitCode, signal) => {
        clearTimeout(timer)
        // Its last line may still be buffered.
        setImmediate(() => fail(`ended with ${signal ?? exitCode} before it was ready`))
      })
    })
  }

  get pid(): number {
    return this.process.pid ?? 0
  }

  /** Throws with its last output if the process has exited: the measurement is then invalid. */
  assertAlive(): void {
    if (!this.#isGone) return
    const { exitCode, signalCode } = this.process
    throw new Error(`${this.name} ended with ${signalCode ?? exitCode}:\n${this.#lastLines.join('\n')}`)
  }

  /** Pids of the live children that `isWorker` accepts. */
  workersNow(isWorker: (child: ListedProcess) => boolean): number[] {
    return childrenOf(this.pid)
      .filter(isWorker)
      .map(({ pid }) => pid)
  }

  /** Waits until there are exactly `count` of them. */
  async workerPids(count: number, isWorker: (child: ListedProcess) => boolean): Promise<number[]> {
    const deadlineMs = performance.now() + WORKERS_TIMEOUT_MS
    for (;;) {
      const workers = this.workersNow(isWorker)
      if (workers.length === count) return workers.sort((a, b) => a - b)
      if (performance.now() > deadlineMs) {
        throw new Error(`expected ${this.name} to have ${count} workers, found ${workers.length}`)
      }
      await pause(POLL_MS)
    }
  }

  /** Sends SIGKILL to the process and all its descendants in the group. */
  killGroup(): void {
    if (this.process.pid === undefined) return
    try {
      process.kill(-this.process.pid, 'SIGKILL')
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ESRCH') throw thrown
    }
  }

  async close(): Promise<void> {
    const timer = setTimeout(() => this.killGroup(), STOP_TIMEOUT_MS)
    this.process.kill('SIGTERM')
    if (!this.#isGone) await this.#exited.catch(() => {})
    clearTimeout(timer)
    this.killGroup()
  }
}
