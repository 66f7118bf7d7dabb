/**
 * Measures what a model costs in another worker, with probe processes that load an image or segment and one
 * that loads only the library.
 */

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { messageOf, OnecopyError } from '../errors.js'
import { programFile } from '../installation.js'
import { withDeadline } from '../lifecycle.js'
import { readProcessMemory } from '../process/memory.js'
import { CHILD_DIR, WORKER_ENVIRONMENT, WORKER_FLAGS } from '../runtime/environment.js'
import { type FromProbe, FromProbeSchema, type ToProbe } from './probe-messages.js'

const LOAD_TIMEOUT_MS = 2 * 60_000
const RUN_TIMEOUT_MS = 60_000
const STDERR_TAIL_CHARACTERS = 2000
/** Processes that load the model. With a single one the mapped file would count as private memory. */
export const HOLDERS = 2

export interface Measurement {
  /** Private memory of the processes with the model, after loading and after one run. */
  readonly loadedBytes: readonly number[]
  readonly ranBytes: readonly number[] | null
  /** Private memory of the process with only the library. */
  readonly libraryBytes: number
  /** The same after running a model with one operator: what any first session takes. */
  readonly firstSessionBytes: number
  /**
   * Mean of the processes with the model, after the run if there was one, minus that of the library alone.
   * Noise can make it negative.
   */
  readonly perWorkerBytes: number
  /** The input shapes of the run, or why there was none. */
  readonly run:
    | { readonly shapes: Readonly<Record<string, readonly number[]>> }
    | { readonly problem: string }
}

class Probe {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  readonly #exited: Promise<never>
  #lastWords = ''
  #takeLine: (line: string) => void = () => {}

  constructor(signal: AbortSignal) {
    this.#child = spawn(process.execPath, [...WORKER_FLAGS, programFile('src/sharing/probe-main.js')], {
      cwd: CHILD_DIR,
      env: { ...process.env, ...WORKER_ENVIRONMENT },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#takeLine(line))
    // If a probe dies before reading its request, its exit reports the error.
    this.#child.stdin.on('error', () => {})
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-STDERR_TAIL_CHARACTERS)
    })
    const onAbort = () => this.#child.kill('SIGKILL')
    signal.addEventListener('abort', onAbort, { once: true })
    this.#exited = new Promise((_, reject) => {
      const fail = (how: string) => {
        signal.removeEventListener('abort', onAbort)
        const words = this.#lastWords.trim()
        reject(new OnecopyError('WORKER_BOOT_FAILED', `a probe process ${how}${words && `: ${words}`}`))
      }
      this.#child.on('error', (thrown) => fail(`cannot start: ${thrown.message}`))
      this.#child.on('close', (code, endedBy) => fail(`ended with ${endedBy ?? `code ${code}`}`))
    })
    // Errors are reported to callers of `ask`.
    this.#exited.catch(() => {})
    if (signal.aborted) onAbort()
  }

  async ask(message: ToProbe, timeoutMs: number): Promise<FromProbe> {
    const reply = new Promise<FromProbe>((resolve, reject) => {
      this.#takeLine = (line) => {
        try {
          resolve(FromProbeSchema.parse(JSON.parse(line)))
        } catch {
          reject(
            new OnecopyError(
              'WORKER_BOOT_FAILED',
              `a probe process sent an invalid reply ${JSON.stringify(line)}`,
            ),
          )
        }
      }
      this.#child.stdin.write(`${JSON.stringify(message)}\n`)
    })
    const words = `a probe process to ${message.type === 'run' || message.type === 'pad' ? 'run' : 'load'} the model`
    const answered = await withDeadline(Promise.race([reply, this.#exited]), timeoutMs, words)
    if (answered.type === 'failed') throw new OnecopyError(answered.code, answered.message)
    return answered
  }

  async privateBytes(): Promise<number> {
    const memory = await readProcessMemory(this.#child.pid ?? 0)
    if (memory === null) throw new OnecopyError('WORKER_BOOT_FAILED', 'a probe process cannot be measured')
    return memory.privateBytes
  }

  async close(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited.catch(() => {})
  }
}

/**
 * Checks with an image or segment whether the result of a text depends on its padding; null: it does not.
 * @throws OnecopyError of loading and running; WORKER_BOOT_FAILED or TIMEOUT if the probe ends or hangs.
 */
export async function probePadding(
  path: string,
  check: Omit<Extract<ToProbe, { readonly type: 'pad' }>, 'type'>,
  signal: AbortSignal,
): Promise<string | null> {
  const probe = new Probe(signal)
  try {
    await probe.ask({ type: 'load', path }, LOAD_TIMEOUT_MS)
    const reply = await probe.ask({ type: 'pad', ...check }, RUN_TIMEOUT_MS)
    return reply.type === 'padded' ? reply.problem : 'the check gave no result'
  } finally {
    await probe.close()
  }
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, one) => sum + one, 0) / values.length
}

/** Returns a text if the probes did not survive the run. */
async function measureOnce(path: string, { run, signal }: MeasureOptions): Promise<Measurement | string> {
  const library = new Probe(signal)
  const holders = Array.from({ length: HOLDERS }, () => new Probe(signal))
  try {
    return await compare({ path, library, holders, run })
  } finally {
    await Promise.all([library, ...holders].map((probe) => probe.close()))
  }
}

async function compare(options: {
  readonly path: string
  readonly library: Probe
  readonly holders: readonly Probe[]
  readonly run: boolean
}): Promise<Measurement | string> {
  const { path, library, holders, run } = options
  await Promise.all([
    library.ask({ type: 'load', path: null }, LOAD_TIMEOUT_MS),
    ...holders.map((holder) => holder.ask({ type: 'load', path }, LOAD_TIMEOUT_MS)),
  ])
  const read = () => Promise.all(holders.map((holder) => holder.privateBytes()))
  const loadedBytes = await read()
  const libraryBytes = await library.privateBytes()
  await library.ask({ type: 'begin' }, LOAD_TIMEOUT_MS)
  const base = { loadedBytes, libraryBytes, firstSessionBytes: await library.privateBytes() }
  const notRun = (problem: string): Measurement => ({
    ...base,
    ranBytes: null,
    perWorkerBytes: Math.round(meanOf(loadedBytes) - libraryBytes),
    run: { problem },
  })
  if (!run) return notRun('')
  let replies: FromProbe[]
  try {
    replies = await Promise.all(holders.map((holder) => holder.ask({ type: 'run' }, RUN_TIMEOUT_MS)))
  } catch (thrown) {
    return messageOf(thrown)
  }
  const [first] = replies
  if (first?.type !== 'ran' || first.shapes === null)
    return notRun((first?.type === 'ran' ? first.problem : null) ?? 'it did not run')
  const ranBytes = await read()
  const perWorkerBytes = Math.round(meanOf(ranBytes) - libraryBytes)
  return { ...base, ranBytes, perWorkerBytes, run: { shapes: first.shapes } }
}

export interface MeasureOptions {
  /** False: the model is loaded but not run. */
  readonly run: boolean
  readonly signal: AbortSignal
}

/**
 * Measures the cost of another worker; `path` is an image or a segment with the file name that its graph
 * refers to. If a run with zeros crashes or hangs, the model is measured without a run, because real requests
 * may never trigger that.
 * @throws OnecopyError of loading; WORKER_BOOT_FAILED or TIMEOUT if a probe ends or hangs while loading.
 */
export async function measureWorker(path: string, { run, signal }: MeasureOptions): Promise<Measurement> {
  const measured = await measureOnce(path, { run, signal })
  if (typeof measured !== 'string') return measured
  signal.throwIfAborted()
  const again = await measureOnce(path, { run: false, signal })
  return { ...(again as Measurement), run: { problem: measured } }
}
