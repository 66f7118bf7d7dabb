/**
 * Starts the real server as a user would, in a separate segment folder, and checks that it leaves
 * nothing behind.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { urlHost } from '../../src/config/host-names.js'
import { assertAnswersWereRight, watchAnswers } from './api-watch.js'
import { PROJECT_ROOT } from './shared.js'
import { TEMPORARY_PREFIX } from './temporary-names.js'
import { withinDeadline } from './waiting.js'

/** Longer than any start, compilation of a large model included. */
const LOG_DEADLINE_MS = 150_000

const MAIN = join(PROJECT_ROOT, 'dist', 'cluster', 'main.js')

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface LogLine {
  readonly msg: string
  readonly level: string
  readonly pid: number
  readonly role: string
  readonly [field: string]: unknown
}

export interface StartOptions {
  readonly models?: string
  readonly args?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  readonly cacheDir?: string
  /** The `cgroup.procs` of a control group for the server. */
  readonly cgroup?: string
  /** Default: a temporary folder in shared memory. */
  readonly segmentDir?: string
  /** Wraps the command, for example to run it in a namespace. */
  readonly wrap?: (command: readonly string[]) => readonly string[]
}

/** A folder that is removed after the test. */
export function temporaryFolder(t: ExecutionContext, parent = tmpdir()): string {
  const path = mkdtempSync(join(parent, TEMPORARY_PREFIX))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Wraps a command in a shell that first joins the control group. */
function inCgroup(command: readonly string[], procs: string | undefined): readonly string[] {
  return procs === undefined ? command : ['sh', '-c', 'echo $$ > "$0" && exec "$@"', procs, ...command]
}

function isReadyLine({ role, msg }: LogLine): boolean {
  return role === 'primary' && msg === 'ready'
}

function urlsOf({ host, port, adminHost, adminPort }: LogLine): { url: string; adminUrl: string } {
  return {
    url: `http://${urlHost(String(host))}:${port}`,
    adminUrl: `http://${urlHost(String(adminHost))}:${adminPort}`,
  }
}

export class ServerUnderTest {
  readonly process: ChildProcess
  readonly segmentDir: string
  readonly cacheDir: string
  readonly exited: Promise<Exit>
  readonly log: LogLine[] = []
  stdout = ''
  stderr = ''
  #urls: { url: string; adminUrl: string } | undefined
  #waiters: { matches: (line: LogLine) => boolean; resolve: (line: LogLine) => void }[] = []

  constructor(t: ExecutionContext, options: StartOptions) {
    this.segmentDir = options.segmentDir ?? temporaryFolder(t, '/dev/shm')
    this.cacheDir = options.cacheDir ?? temporaryFolder(t)
    const command = [
      process.execPath,
      MAIN,
      'serve',
      ...(options.models === undefined ? [] : ['--models', options.models]),
      ...['--port', '0', '--admin-port', '0', '--segment-dir', this.segmentDir, '--cache-dir', this.cacheDir],
      ...(options.args ?? []),
    ]
    const [program = '', ...args] = inCgroup(options.wrap?.(command) ?? command, options.cgroup)
    this.process = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    })
    this.process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
    })
    let rest = ''
    this.process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) this.#takeLine(line)
    })
    this.exited = new Promise((resolve) => {
      this.process.on('close', (code, signal) => resolve({ code, signal }))
    })
    t.teardown(async () => {
      this.process.kill('SIGKILL')
      await this.exited
      for (const origin of Object.values(this.#urls ?? {})) assertAnswersWereRight(origin)
    })
  }

  #takeLine(text: string): void {
    if (!text.startsWith('{')) return
    const line = JSON.parse(text) as LogLine
    this.log.push(line)
    if (isReadyLine(line)) {
      this.#urls = urlsOf(line)
      const watches = [watchAnswers(this.#urls.url, 'public'), watchAnswers(this.#urls.adminUrl, 'admin')]
      void this.exited.then(() => {
        for (const end of watches) end()
      })
    }
    for (const waiter of this.#waiters.filter((one) => one.matches(line))) {
      this.#waiters = this.#waiters.filter((one) => one !== waiter)
      waiter.resolve(line)
    }
  }

  /**
   * Resolves with the first matching log line, past or future; rejects if the server ends before.
   */
  async logged(matches: (line: LogLine) => boolean): Promise<LogLine> {
    const said = this.log.find(matches)
    if (said !== undefined) return said
    const line = new Promise<LogLine>((resolve) => this.#waiters.push({ matches, resolve }))
    const ended = this.exited.then((exit) => {
      throw new Error(`the server ended (${JSON.stringify(exit)}) before that line:\n${this.stderr}`)
    })
    ended.catch(() => {})
    return await withinDeadline('a line of the log', Promise.race([line, ended]), LOG_DEADLINE_MS)
  }

  async ready(): Promise<{ url: string; adminUrl: string }> {
    return urlsOf(await this.logged(isReadyLine))
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Exit> {
    this.process.kill(signal)
    return await this.exited
  }

  /** Contents of the segment folder. */
  segments(): string[] {
    return readdirSync(this.segmentDir, { recursive: true }) as string[]
  }
}

export function spawnServer(t: ExecutionContext, options: StartOptions = {}): ServerUnderTest {
  return new ServerUnderTest(t, options)
}

/** Runs a short command as a user would. */
export function runCommand(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): { readonly code: number | null; readonly stdout: string; readonly stderr: string } {
  const env = { ...process.env, ...environment }
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8', env })
  return { code: status, stdout, stderr }
}

export interface RunningServer {
  readonly server: ServerUnderTest
  readonly url: string
  readonly adminUrl: string
}

export async function startServer(t: ExecutionContext, options: StartOptions = {}): Promise<RunningServer> {
  const server = spawnServer(t, options)
  return { server, ...(await server.ready()) }
}

/** Stops the server and checks a clean end: exit code 0, empty segment folder. */
export async function stopCleanly(t: ExecutionContext, server: ServerUnderTest): Promise<void> {
  t.deepEqual(await server.stop(), { code: 0, signal: null })
  t.deepEqual(server.segments(), [])
}
