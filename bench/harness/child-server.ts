/** One started variant: its process, the line that says it is ready, its last words where it is not. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { z } from 'zod'
import { childrenOf, type ListedProcess } from './processes.js'

/** Sixty models are compiled one after the other before a server is ready for the first time. */
const READY_TIMEOUT_MS = 600_000
/** Of servers that only a probe tells ready: their own words may not reach us. */
const PROBE_TIMEOUT_MS = 180_000
const STOP_TIMEOUT_MS = 10_000
const WORKERS_TIMEOUT_MS = 5000
const POLL_MS = 50
/** Often: what it takes is part of what is measured. */
const PROBE_MS = 10
const LAST_WORDS_LINES = 20

export interface ChildOptions {
  readonly name: string
  /** This very Node where none is named. */
  readonly command?: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** For servers that say nothing: ready when this port answers a GET of this path with 200. */
  readonly probe?: { readonly port: number; readonly path: string }
  /** A variant that is told what to do by messages; it also learns from the channel that the bench is gone. */
  readonly hasChannel: boolean
  /** Told every line of its standard error. */
  readonly onLine?: (line: string) => void
}

const ReadySchema = z.object({
  msg: z.literal('ready'),
  port: z.int().optional(),
  adminPort: z.int().optional(),
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

/** Settings of whoever runs the bench must not configure the servers. */
function cleanEnvironment(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('ONECOPY_'))
  return { ...Object.fromEntries(inherited), NODE_ENV: 'production' }
}

export class ChildServer {
  readonly name: string
  readonly process: ChildProcess
  readonly ready: Promise<Ready>
  readonly #lastWords: string[] = []
  readonly #exited: Promise<unknown>

  constructor(options: ChildOptions) {
    const { name, command = process.execPath, args, env = {}, hasChannel } = options
    this.name = name
    this.process = spawn(command, args, {
      // A group of its own: the terminal's Ctrl-C reaches only the bench, which stops it in good order.
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe', ...(hasChannel ? (['ipc'] as const) : [])],
      env: { ...cleanEnvironment(), ...env },
    })
    this.#exited = once(this.process, 'exit')
    // Its end is noticed where it matters; a failed start is reported by `ready`.
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
        // It does not listen yet.
      }
      if (this.#isGone) throw new Error(`${this.name} is gone`)
      await pause(PROBE_MS)
    }
  }

  get #isGone(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null
  }

  #waitUntilReady({ onLine = () => {}, probe }: ChildOptions): Promise<Ready> {
    return new Promise((resolve, reject) => {
      const fail = (what: string) => reject(new Error(`${this.name} ${what}:\n${this.#lastWords.join('\n')}`))
      const timeoutMs = probe === undefined ? READY_TIMEOUT_MS : PROBE_TIMEOUT_MS
      const timer = setTimeout(() => fail(`was not ready after ${timeoutMs} ms`), timeoutMs)
      const succeed = (ready: Ready) => {
        clearTimeout(timer)
        resolve(ready)
      }
      // Why it is gone is said below.
      if (probe !== undefined) this.#probe(probe).then(succeed, () => {})
      const { stderr } = this.process
      if (stderr === null) throw new Error('expected the child to have a standard error')
      createInterface({ input: stderr }).on('line', (line) => {
        onLine(line)
        this.#lastWords.push(line)
        if (this.#lastWords.length > LAST_WORDS_LINES) this.#lastWords.shift()
        const ready = parseReady(line)
        if (ready !== null) succeed(ready)
      })
      this.process.once('error', (thrown) => fail(`did not start (${thrown.message})`))
      this.process.once('exit', (exitCode, signal) => {
        clearTimeout(timer)
        // Its last line may still be on its way.
        setImmediate(() => fail(`ended with ${signal ?? exitCode} before it was ready`))
      })
    })
  }

  get pid(): number {
    return this.process.pid ?? 0
  }

  /** Throws with its last words when the process is gone: what was measured meanwhile is worth nothing. */
  assertAlive(): void {
    if (!this.#isGone) return
    const { exitCode, signalCode } = this.process
    throw new Error(`${this.name} ended with ${signalCode ?? exitCode}:\n${this.#lastWords.join('\n')}`)
  }

  /** Pids of the live children that `isWorker` accepts. */
  workersNow(isWorker: (child: ListedProcess) => boolean): number[] {
    return childrenOf(this.pid)
      .filter(isWorker)
      .map(({ pid }) => pid)
  }

  /** The same, once there are exactly `count`. */
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

  /** SIGKILL to the process and whatever it started. */
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
