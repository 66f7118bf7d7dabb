/**
 * The server side of compilation: child processes, deadlines, clean work folders and clear errors.
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { messageOf, OnecopyError } from '../errors.js'
import { programFile } from '../installation.js'
import { CHILD_DIR, RUNTIME_ENVIRONMENT } from '../runtime/environment.js'
import { SEGMENT_FILE_NAME } from '../segment/layout.js'
import { formatMs } from '../units.js'
import { type CompileCache, type CompiledImage, findCompiled, imageName, makeWorkFolder } from './cache.js'
import { cacheKey } from './cache-key.js'
import { COMPILE_FACTORS } from './compile-memory.js'
import {
  type CompileNotice,
  CompileNoticeSchema,
  type CompileReply,
  CompileReplySchema,
  type CompileRequest,
} from './compile-messages.js'
import { findKnownDigest, rememberDigest } from './known-files.js'

/** Length of the kept tail of standard error, for the message of a crash. */
const STDERR_TAIL_CHARACTERS = 2000
/** A compile process above this size is ended, because only that returns its memory. */
const KEEP_BELOW_BYTES = 256 * 1024 * 1024
/** A probe checks the clock between runs; after this time a single run is stuck. */
const PROBE_TIMEOUT_MS = 30_000
const MAX_REPLY_CHARACTERS = 64 * 1024

export interface CompilerOptions {
  readonly cache: CompileCache
  readonly timeoutMs: number
  readonly signal: AbortSignal
  /** Time limit for batching trial runs before the model is compiled without them. */
  readonly probeTimeoutMs?: number
}

export interface CompileChoices {
  /** Keys of segments that are available without compilation. */
  readonly heldKeys?: readonly string[]
  /** False: compile even if the cache has an image, because it was found damaged. */
  readonly isCacheTrusted?: boolean
  /**
   * Called when an image is complete except for its header, which trial runs still change. Called
   * again if the model is compiled once more. The file gets its final name when `compile` resolves.
   */
  readonly onImage?: (imagePath: string) => void
  /** Called when the compilation of a model of that size begins, because it is in no cache. */
  readonly onCompiling?: (modelBytes: number) => void
}

/** One compile process and its current request. */
class CompileProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  #output = ''
  #lastWords = ''
  #waiting: {
    resolve(reply: CompileReply): void
    reject(error: OnecopyError): void
    onNotice: ((notice: CompileNotice) => void) | undefined
  } | null = null
  #stopped: OnecopyError | null = null
  /** Resolves when the process has ended. */
  readonly ended: Promise<void>
  readonly #probeTimeoutMs: number
  #probeTimer: NodeJS.Timeout | undefined

  constructor(probeTimeoutMs: number) {
    this.#probeTimeoutMs = probeTimeoutMs
    const child = spawn(process.execPath, [programFile('src/compile/compile-main.js')], {
      cwd: CHILD_DIR,
      env: { ...process.env, ...RUNTIME_ENVIRONMENT },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.#child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => this.#receive(text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-STDERR_TAIL_CHARACTERS)
    })
    // If the compiler dies before reading its request, its exit reports the error.
    child.stdin.on('error', () => {})
    child.on('error', (thrown) => this.stop(failed(`the compile process cannot start: ${thrown.message}`)))
    // Without a pid the process never started.
    this.ended = new Promise((resolve) => {
      if (child.pid === undefined) resolve()
      else child.once('close', () => resolve())
    })
    child.on('close', (exitCode, exitSignal) => {
      const how = exitSignal === null ? `ended with code ${exitCode}` : `was killed by ${exitSignal}`
      const hint =
        exitSignal === 'SIGKILL'
          ? ` (out of memory? compiling takes ${COMPILE_FACTORS.least} to ${COMPILE_FACTORS.most} times the model's size)`
          : ''
      const words = this.#lastWords.trim() || 'it wrote no error message'
      this.stop(this.#stopped ?? failed(`the compile process ${how}${hint}: ${words}`))
    })
  }

  #receive(text: string): void {
    this.#output += text
    if (this.#output.length > MAX_REPLY_CHARACTERS)
      this.stop(failed('the compile process wrote too much output'))
    for (let end = this.#output.indexOf('\n'); end >= 0; end = this.#output.indexOf('\n')) {
      const line = this.#output.slice(0, end)
      this.#output = this.#output.slice(end + 1)
      this.#takeLine(line)
    }
  }

  #takeLine(line: string): void {
    try {
      const value: unknown = JSON.parse(line)
      const notice = CompileNoticeSchema.safeParse(value)
      if (notice.success) {
        if (notice.data.notice === 'probing') this.#startProbeTimer()
        this.#waiting?.onNotice?.(notice.data)
      } else this.#waiting?.resolve(CompileReplySchema.parse(value))
    } catch {
      this.stop(failed(`the compile process sent an invalid reply ${JSON.stringify(line.slice(0, 200))}`))
    }
  }

  #startProbeTimer(): void {
    clearTimeout(this.#probeTimer)
    this.#probeTimer = setTimeout(() => {
      this.stop(failed(`trial runs took longer than ${formatMs(this.#probeTimeoutMs)}`))
    }, this.#probeTimeoutMs)
  }

  /** Whether trial runs have started for the current or latest request. */
  get hasProbed(): boolean {
    return this.#probeTimer !== undefined
  }

  get isStopped(): boolean {
    return this.#stopped !== null
  }

  /** Kills the process and rejects the pending request with `error`. */
  stop(error: OnecopyError): void {
    this.#stopped ??= error
    this.#child.kill('SIGKILL')
    this.#waiting?.reject(this.#stopped)
    this.#waiting = null
  }

  ask(request: CompileRequest, onNotice?: (notice: CompileNotice) => void): Promise<CompileReply> {
    if (this.#stopped !== null) return Promise.reject(this.#stopped)
    this.#probeTimer = undefined
    return new Promise<CompileReply>((resolve, reject) => {
      this.#waiting = { resolve, reject, onNotice }
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

/** Compiles models one after another. Owns at most one child process. */
export class Compiler {
  readonly #options: CompilerOptions
  #process: CompileProcess | undefined

  constructor(options: CompilerOptions) {
    this.#options = options
  }

  /**
   * Compiles one model version, or finds it in the cache or among `heldKeys`. A model that crashes
   * in batching trial runs is compiled again without them, because real requests may never trigger
   * the crash.
   * @throws OnecopyError MODEL_INVALID, MODEL_UNSUPPORTED, COMPILE_FAILED (the process crashed),
   *   TIMEOUT, SHUTTING_DOWN (aborted by the signal). The cache contains only complete images
   *   afterwards.
   */
  async compile(
    modelPath: string,
    { heldKeys = [], isCacheTrusted = true, ...choices }: CompileChoices = {},
  ): Promise<CompiledImage> {
    const known = isCacheTrusted ? await this.#findKnown(modelPath, heldKeys) : null
    if (known !== null) return known
    const attempt = (probe: boolean) =>
      this.#attempt({ modelPath, heldKeys: [...heldKeys], isCacheTrusted, probe }, choices)
    return (await attempt(true)) ?? ((await attempt(false)) as CompiledImage)
  }

  /** Avoids reading the model if its files have not changed. */
  async #findKnown(modelPath: string, heldKeys: readonly string[]): Promise<CompiledImage | null> {
    const { cache } = this.#options
    const digest = await findKnownDigest(cache, modelPath)
    if (digest === null) return null
    return await findCompiled(cacheKey(digest), { heldKeys, folders: cache.folders })
  }

  /** Null if the process ended during trial runs. */
  async #attempt(
    request: Pick<CompileRequest, 'modelPath' | 'heldKeys' | 'isCacheTrusted' | 'probe'>,
    { onImage, onCompiling }: Pick<CompileChoices, 'onImage' | 'onCompiling'>,
  ): Promise<CompiledImage | null> {
    const { cache, signal } = this.#options
    const workFolder = await makeWorkFolder(cache)
    try {
      const reply = await this.#ask(
        { ...request, workFolder, cacheFolders: [...cache.folders] },
        (notice) => {
          if (notice.notice === 'compiling') onCompiling?.(notice.modelBytes)
          else onImage?.(join(workFolder, SEGMENT_FILE_NAME))
        },
      )
      if (reply === null) return null
      if (reply.known !== null) await rememberDigest(request.modelPath, reply.known, { cache, workFolder })
      if (reply.outcome === 'held' || reply.cached) return reply
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

  /** Null if the process ended during trial runs. */
  async #ask(
    request: CompileRequest,
    onNotice: (notice: CompileNotice) => void,
  ): Promise<Exclude<CompileReply, { outcome: 'failed' }> | null> {
    const { modelPath } = request
    const { timeoutMs, signal, probeTimeoutMs = PROBE_TIMEOUT_MS } = this.#options
    // A process that was stopped between two models is replaced.
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
      const reply = await child.ask(request, onNotice)
      if (reply.outcome === 'failed') throw new OnecopyError(reply.code, reply.message)
      if (reply.residentBytes > KEEP_BELOW_BYTES) this.close()
      return reply
    } catch (thrown) {
      const endedInProbe = child.isStopped && child.hasProbed && !signal.aborted
      this.close()
      // Wait until its memory is freed before the caller continues.
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
