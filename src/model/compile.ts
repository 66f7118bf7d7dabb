/** The server's side of compilation: a child process, a deadline, a clean work folder, a clear error. */
import { spawn } from 'node:child_process'
import { access, constants, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf, OnecopyError } from '../errors.js'
import { isAlive, ownIdentity } from '../process/identity.js'
import { formatMs } from '../units.js'
import { type CompileReply, CompileReplySchema, type CompileRequest } from './compile-messages.js'

const COMPILE_MAIN = fileURLToPath(new URL('compile-main.js', import.meta.url))
const WORK_FOLDER_PATTERN = /^\.work-(\d+)-(\d+)-([0-9a-f-]+)-/
/** The end of what a crashed compiler wrote: enough for its last words. */
const STDERR_TAIL_CHARACTERS = 2000
const MAX_REPLY_CHARACTERS = 64 * 1024

export interface CompileOptions {
  readonly modelPath: string
  readonly cacheDir: string
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface CompiledImage {
  readonly key: string
  readonly imagePath: string
  readonly cached: boolean
}

/**
 * Makes the cache folder usable and removes the work folders of dead servers.
 * @throws OnecopyError CONFIG_INVALID when it cannot be written.
 */
export async function prepareCache(cacheDir: string): Promise<void> {
  try {
    await mkdir(cacheDir, { recursive: true, mode: 0o700 })
    await access(cacheDir, constants.W_OK | constants.X_OK)
  } catch (thrown) {
    throw new OnecopyError('CONFIG_INVALID', `expected --cache-dir ${cacheDir} to be writable: ${messageOf(thrown)}`)
  }
  for (const name of await readdir(cacheDir)) {
    const [, pid, startTicks, bootId] = name.match(WORK_FOLDER_PATTERN) ?? []
    if (pid === undefined || startTicks === undefined || bootId === undefined) continue
    if (isAlive({ pid: Number(pid), startTicks: Number(startTicks), bootId })) continue
    await rm(join(cacheDir, name), { recursive: true, force: true })
  }
}

function runCompiler(request: CompileRequest, { timeoutMs, signal }: CompileOptions): Promise<CompileReply> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [COMPILE_MAIN], { stdio: ['pipe', 'pipe', 'pipe'] })
    let output = ''
    let lastWords = ''
    let stopped: OnecopyError | null = null
    const stop = (error: OnecopyError) => {
      stopped ??= error
      child.kill('SIGKILL')
    }
    const timer = setTimeout(() => {
      stop(new OnecopyError('TIMEOUT', `compiling ${request.modelPath} took longer than ${formatMs(timeoutMs)} (--compile-timeout)`))
    }, timeoutMs)
    const onAbort = () => stop(new OnecopyError('SHUTTING_DOWN', `compiling ${request.modelPath} was stopped`))
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()

    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (output.length > MAX_REPLY_CHARACTERS) stop(new OnecopyError('COMPILE_FAILED', 'the compile process wrote too much'))
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      lastWords = (lastWords + text).slice(-STDERR_TAIL_CHARACTERS)
    })
    // A compiler that died before it read its request is reported by its exit.
    child.stdin.on('error', () => {})
    child.stdin.write(`${JSON.stringify(request)}\n`)
    child.on('error', (thrown) => stop(new OnecopyError('COMPILE_FAILED', `the compile process cannot start: ${thrown.message}`)))
    child.on('close', (exitCode, exitSignal) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', onAbort)
      if (stopped !== null) return reject(stopped)
      try {
        resolve(CompileReplySchema.parse(JSON.parse(output)))
      } catch {
        const end = exitSignal === null ? `ended with code ${exitCode}` : `was ended by ${exitSignal}`
        const hint = exitSignal === 'SIGKILL' ? ' (out of memory? compiling takes 2 to 5 times the model\'s size)' : ''
        reject(new OnecopyError('COMPILE_FAILED', `the compile process ${end}${hint}: ${lastWords.trim() || 'it said nothing'}`))
      }
    })
  })
}

/**
 * Compiles one model version, or finds it in the cache.
 * @throws OnecopyError MODEL_INVALID, MODEL_UNSUPPORTED, COMPILE_FAILED (the process crashed), TIMEOUT,
 *   SHUTTING_DOWN (the signal). Nothing is left in the cache but whole images.
 */
export async function compileToCache(options: CompileOptions): Promise<CompiledImage> {
  const { pid, startTicks, bootId } = ownIdentity()
  const workFolder = await mkdtemp(join(options.cacheDir, `.work-${pid}-${startTicks}-${bootId}-`))
  try {
    const { modelPath, cacheDir } = options
    const reply = await runCompiler({ modelPath, cacheDir, workFolder }, options)
    if (reply.outcome === 'failed') throw new OnecopyError(reply.code, reply.message)
    return reply
  } finally {
    await rm(workFolder, { recursive: true, force: true })
  }
}
