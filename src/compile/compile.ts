/** The server's side of compilation: child processes, a deadline, a clean work folder, a clear error. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { messageOf, OnecopyError } from '../errors.js'
import { CHILD_DIR, RUNTIME_ENVIRONMENT } from '../runtime/environment.js'
import { formatMs } from '../units.js'
import { type CompileCache, type CompiledImage, findCompiled, imageName, makeWorkFolder } from './cache.js'
import { cacheKey } from './cache-key.js'
import {
  CompileNoticeSchema,
  type CompileReply,
  CompileReplySchema,
  type CompileRequest,
} from './compile-messages.js'
import { findKnownDigest, rememberDigest } from './known-files.js'

const COMPILE_MAIN = fileURLToPath(new URL('compile-main.js', import.meta.url))
/** The end of what a crashed compiler wrote: enough for its last words. */
const STDERR_TAIL_CHARACTERS = 2000
/** A compile process that has grown beyond this is ended: only its end gives the memory back. */
const KEEP_BELOW_BYTES = 256 * 1024 * 1024
/** A probe looks at its clock between runs; one that is this late hangs inside a run. */
const PROBE_TIMEOUT_MS = 30_000
const MAX_REPLY_CHARACTERS = 64 * 1024

/** Leaves the image as it is where there is nothing to measure, or no time. */
export type MeasureImage = (imagePath: string, signal: AbortSignal) => Promise<void>

export interface CompilerOptions {
  readonly cache: CompileCache
  readonly timeoutMs: number
  readonly signal: AbortSignal
  /** Longest time that the trial runs for batching may take before the model is compiled without them. */
  readonly probeTimeoutMs?: number
  /** Measures the private memory of a worker for a new image, and writes it into its header. */
  readonly measure?: MeasureImage
}

export interface CompileChoices {
  /** Keys of segments that can be had without compiling. */
  readonly heldKeys?: readonly string[]
  /** False compiles whatever the cache has: it was found to be damaged. */
  readonly isCacheTrusted?: boolean
}

/** One compile process and the one request it works on. */
class CompileProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  #output = ''
  #lastWords = ''
  #waiting: { resolve(reply: CompileReply): void; reject(error: OnecopyError): void } | null = null
  #stopped: OnecopyError | null = null
  /** Resolves when the process is gone. */
  readonly ended: Promise<void>
  readonly #probeTimeoutMs: number
  #probeTimer: NodeJS.Timeout | undefined

  constructor(probeTimeoutMs: number) {
    this.#probeTimeoutMs = probeTimeoutMs
    const child = spawn(process.execPath, [COMPILE_MAIN], {
      cwd: CHILD_DIR,
      env: { ...process.env, ...RUNTIME_ENVIRONMENT },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.#receive(text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-STDERR_TAIL_CHARACTERS)
    })
    // A compiler that died before it read its request is reported by its exit.
    child.stdin.on('error', () => {})
    child.on('error', (thrown) => this.stop(failed(`the compile process cannot start: ${thrown.message}`)))
    // Without a pid it never was.
    this.ended = new Promise((resolve) => {
      if (child.pid === undefined) resolve()
      else child.once('close', () => resolve())
    })
    child.on('close', (exitCode, exitSignal) => {
      const how = exitSignal === null ? `ended with code ${exitCode}` : `was ended by ${exitSignal}`
      const hint =
        exitSignal === 'SIGKILL' ? " (out of memory? compiling takes 2 to 5 times the model's size)" : ''
      const words = this.#lastWords.trim() || 'it said nothing'
      this.stop(this.#stopped ?? failed(`the compile process ${how}${hint}: ${words}`))
    })
  }

  #receive(text: string): void {
    this.#output += text
    if (this.#output.length > MAX_REPLY_CHARACTERS) this.stop(failed('the compile process wrote too much'))
    for (let end = this.#output.indexOf('\n'); end >= 0; end = this.#output.indexOf('\n')) {
      const line = this.#output.slice(0, end)
      this.#output = this.#output.slice(end + 1)
      this.#takeLine(line)
    }
  }

  #takeLine(line: string): void {
    try {
      const value: unknown = JSON.parse(line)
      if (CompileNoticeSchema.safeParse(value).success) this.#startProbeTimer()
      else this.#waiting?.resolve(CompileReplySchema.parse(value))
    } catch {
      this.stop(failed(`the compile process answered ${JSON.stringify(line.slice(0, 200))}`))
    }
  }

  #startProbeTimer(): void {
    clearTimeout(this.#probeTimer)
    this.#probeTimer = setTimeout(() => {
      this.stop(failed(`trial runs took longer than ${formatMs(this.#probeTimeoutMs)}`))
    }, this.#probeTimeoutMs)
  }

  /** Whether trial runs have begun for what the process works on, or worked on last. */
  get hasProbed(): boolean {
    return this.#probeTimer !== undefined
  }

  get isStopped(): boolean {
    return this.#stopped !== null
  }

  /** Ends the process; what it works on is rejected with `error`. */
  stop(error: OnecopyError): void {
    this.#stopped ??= error
    this.#child.kill('SIGKILL')
    this.#waiting?.reject(this.#stopped)
    this.#waiting = null
  }

  ask(request: CompileRequest): Promise<CompileReply> {
    if (this.#stopped !== null) return Promise.reject(this.#stopped)
    this.#probeTimer = undefined
    return new Promise<CompileReply>((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#child.stdin.write(`${JSON.stringify(request)}\n`)
    }).finally(() => {
      clearTimeout(this.#probeTimer)
      this.#waiting = null
    })
  }
}

function failed(message: string): OnecopyError {
  return new OnecopyError('COMPILE_FAILED', message)
}

function stopped(modelPath: string): OnecopyError {
  return new OnecopyError('SHUTTING_DOWN', `compiling ${modelPath} was stopped`)
}

/** Compiles one model after another. Owns at most one child process. */
export class Compiler {
  readonly #options: CompilerOptions
  #process: CompileProcess | undefined

  constructor(options: CompilerOptions) {
    this.#options = options
  }

  /**
   * Compiles one model version, or finds it in the cache or among `heldKeys`. A model that ends the process in trial runs for
   * batching is compiled again without them: requests of its own may never do what they did.
   * @throws OnecopyError MODEL_INVALID, MODEL_UNSUPPORTED, COMPILE_FAILED (the process crashed), TIMEOUT,
   *   SHUTTING_DOWN (the signal). Nothing is left in the cache but whole images.
   */
  async compile(
    modelPath: string,
    { heldKeys = [], isCacheTrusted = true }: CompileChoices = {},
  ): Promise<CompiledImage> {
    const known = isCacheTrusted ? await this.#findKnown(modelPath, heldKeys) : null
    if (known !== null) return known
    const attempt = (probe: boolean) =>
      this.#attempt({ modelPath, heldKeys: [...heldKeys], isCacheTrusted, probe })
    return (await attempt(true)) ?? ((await attempt(false)) as CompiledImage)
  }

  /** Without reading the model, where its files are those that were read before. */
  async #findKnown(modelPath: string, heldKeys: readonly string[]): Promise<CompiledImage | null> {
    const { cache } = this.#options
    const digest = await findKnownDigest(cache, modelPath)
    if (digest === null) return null
    return await findCompiled(cacheKey(digest), { heldKeys, folders: cache.folders })
  }

  /** Null when the process ended in trial runs. */
  async #attempt(
    request: Pick<CompileRequest, 'modelPath' | 'heldKeys' | 'isCacheTrusted' | 'probe'>,
  ): Promise<CompiledImage | null> {
    const { cache, signal, measure } = this.#options
    const workFolder = await makeWorkFolder(cache)
    try {
      const reply = await this.#ask({ ...request, workFolder, cacheFolders: [...cache.folders] })
      if (reply === null) return null
      if (reply.known !== null) await rememberDigest(request.modelPath, reply.known, { cache, workFolder })
      if (reply.outcome === 'held' || reply.cached) return reply
      await measure?.(reply.imagePath, signal)
      if (signal.aborted) throw stopped(request.modelPath)
      const imagePath = join(cache.writable, imageName(reply.key))
      await rename(reply.imagePath, imagePath).catch((thrown) => {
        throw failed(`the compiled image cannot be kept: ${messageOf(thrown)}`)
      })
      return { ...reply, imagePath }
    } finally {
      await rm(workFolder, { recursive: true, force: true })
    }
  }

  /** Null when the process ended in trial runs. */
  async #ask(request: CompileRequest): Promise<Exclude<CompileReply, { outcome: 'failed' }> | null> {
    const { modelPath } = request
    const { timeoutMs, signal, probeTimeoutMs = PROBE_TIMEOUT_MS } = this.#options
    // One that was ended between two models is no use for the next.
    if (this.#process?.isStopped === true) this.#process = undefined
    this.#process ??= new CompileProcess(probeTimeoutMs)
    const child = this.#process
    const onAbort = () => child.stop(stopped(modelPath))
    signal.addEventListener('abort', onAbort, { once: true })
    const timer = setTimeout(() => {
      child.stop(
        new OnecopyError(
          'TIMEOUT',
          `compiling ${modelPath} took longer than ${formatMs(timeoutMs)} (--compile-timeout)`,
        ),
      )
    }, timeoutMs)
    try {
      if (signal.aborted) onAbort()
      const reply = await child.ask(request)
      if (reply.outcome === 'failed') throw new OnecopyError(reply.code, reply.message)
      if (reply.residentBytes > KEEP_BELOW_BYTES) this.close()
      return reply
    } catch (thrown) {
      const endedInProbe = child.isStopped && child.hasProbed && !signal.aborted
      this.close()
      // What it holds is given back before the caller goes on, or ends.
      await child.ended
      if (endedInProbe) return null
      throw thrown
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
    }
  }

  close(): void {
    this.#process?.stop(new OnecopyError('SHUTTING_DOWN', 'the compiler was closed'))
    this.#process = undefined
  }
}
