/** What a model costs in another worker, measured: probe processes that hold one image or segment, and one that holds the library alone. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { messageOf, OnecopyError } from '../errors.js'
import { withDeadline } from '../lifecycle.js'
import { readProcessMemory } from '../process/memory.js'
import { CHILD_DIR, WORKER_ENVIRONMENT, WORKER_FLAGS } from '../runtime/environment.js'
import { type FromProbe, FromProbeSchema, type ToProbe } from './probe-messages.js'

const PROBE_MAIN = fileURLToPath(new URL('probe-main.js', import.meta.url))
const LOAD_TIMEOUT_MS = 2 * 60_000
const RUN_TIMEOUT_MS = 60_000
const STDERR_TAIL_CHARACTERS = 2000
/** Processes that load the model. One alone would count the file as its own: pages that nobody else maps are private. */
export const HOLDERS = 2

export interface Measurement {
  /** Private memory of the processes that hold it, after loading and after one run. */
  readonly loadedBytes: readonly number[]
  readonly ranBytes: readonly number[] | null
  /** Private memory of a process that holds the library alone. */
  readonly libraryBytes: number
  /** The same, when it has also run a model of one operator: what the first session takes, whatever the model. */
  readonly firstSessionBytes: number
  /** Mean of those that hold it, after the run where there was one, minus that of the library alone: noise can make it negative. */
  readonly perWorkerBytes: number
  /** What was run, or why nothing was. */
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
    this.#child = spawn(process.execPath, [...WORKER_FLAGS, PROBE_MAIN], {
      cwd: CHILD_DIR,
      env: { ...process.env, ...WORKER_ENVIRONMENT },
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#takeLine(line))
    // One that died before it read what it was asked is reported by its exit.
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
    // Whoever asks it something hears of it.
    this.#exited.catch(() => {})
    if (signal.aborted) onAbort()
  }

  async ask(message: ToProbe, timeoutMs: number): Promise<FromProbe> {
    const reply = new Promise<FromProbe>((resolve, reject) => {
      this.#takeLine = (line) => {
        try {
          resolve(FromProbeSchema.parse(JSON.parse(line)))
        } catch {
          reject(new OnecopyError('WORKER_BOOT_FAILED', `a probe process answered ${JSON.stringify(line)}`))
        }
      }
      this.#child.stdin.write(`${JSON.stringify(message)}\n`)
    })
    const words = `a probe process to ${message.type === 'run' ? 'run' : 'load'} the model`
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

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, one) => sum + one, 0) / values.length
}

/** A text is why the probes did not survive the run. */
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
  /** False loads the model and does not run it. */
  readonly run: boolean
  readonly signal: AbortSignal
}

/**
 * Measures what another worker costs; `path` is an image or a segment, named as its graph names it. A model that
 * ends its process, or does not come back, when it is run with zeros is measured without a run: its own requests
 * may never do that.
 * @throws OnecopyError of loading; WORKER_BOOT_FAILED, TIMEOUT where a probe ends or hangs while it loads.
 */
export async function measureWorker(path: string, { run, signal }: MeasureOptions): Promise<Measurement> {
  const measured = await measureOnce(path, { run, signal })
  if (typeof measured !== 'string') return measured
  signal.throwIfAborted()
  const again = await measureOnce(path, { run: false, signal })
  return { ...(again as Measurement), run: { problem: measured } }
}
