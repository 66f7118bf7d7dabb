/** What a model costs in another worker, measured: probe processes that hold one segment, and one that holds the library alone. */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { messageOf, OnecopyError } from '../src/errors.js'
import { withDeadline } from '../src/lifecycle.js'
import { readProcessMemory } from '../src/process/memory.js'
import type { SegmentReference } from '../src/segment/attach.js'
import { type FromProbe, FromProbeSchema, type ToProbe } from './probe-messages.js'
import { WORKER_ENVIRONMENT, WORKER_FLAGS } from './worker-handle.js'

const PROBE_MAIN = fileURLToPath(new URL('probe-main.js', import.meta.url))
const LOAD_TIMEOUT_MS = 2 * 60_000
const RUN_TIMEOUT_MS = 60_000
const STDERR_TAIL_CHARACTERS = 2000
/** One alone would count the segment as its own: tmpfs pages that nobody else maps are private. */
const HOLDERS = 2

export interface Measurement {
  /** Private memory of the processes that hold the segment, after loading and after one run. */
  readonly loadedBytes: readonly number[]
  readonly ranBytes: readonly number[] | null
  /** Private memory of a process that holds the library alone. */
  readonly libraryBytes: number
  /** The same, when it has also run a model of one operator: what the first session takes, whatever the model. */
  readonly firstSessionBytes: number
  /** Mean of those that hold the segment, after the run where there was one, minus that of the library alone: noise can make it negative. */
  readonly perWorkerBytes: number
  /** What was run, or why nothing was. */
  readonly run:
    | { readonly shapes: Readonly<Record<string, readonly number[]>> }
    | { readonly problem: string }
}

class Probe {
  readonly #child: ChildProcess
  readonly #exited: Promise<never>
  #lastWords = ''

  constructor(signal: AbortSignal) {
    this.#child = fork(PROBE_MAIN, [], {
      execArgv: [...WORKER_FLAGS, '--expose-gc'],
      env: { ...process.env, ...WORKER_ENVIRONMENT },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
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
      this.#child.on('error', (thrown) => fail(`cannot be reached: ${thrown.message}`))
      this.#child.on('close', (code, endedBy) => fail(`ended with ${endedBy ?? `code ${code}`}`))
    })
    // Whoever asks it something hears of it.
    this.#exited.catch(() => {})
    if (signal.aborted) onAbort()
  }

  async ask(message: ToProbe, timeoutMs: number): Promise<FromProbe> {
    const reply = new Promise<FromProbe>((resolve, reject) => {
      this.#child.once('message', (raw) => {
        const parsed = FromProbeSchema.safeParse(raw)
        if (parsed.success) resolve(parsed.data)
        else reject(parsed.error)
      })
      this.#child.send(message, () => {})
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
async function measureOnce(
  segment: SegmentReference,
  { run, signal }: { readonly run: boolean; readonly signal: AbortSignal },
): Promise<Measurement | string> {
  const library = new Probe(signal)
  const holders = Array.from({ length: HOLDERS }, () => new Probe(signal))
  try {
    return await compare({ segment, library, holders, run })
  } finally {
    await Promise.all([library, ...holders].map((probe) => probe.close()))
  }
}

async function compare(options: {
  readonly segment: SegmentReference
  readonly library: Probe
  readonly holders: readonly Probe[]
  readonly run: boolean
}): Promise<Measurement | string> {
  const { segment, library, holders, run } = options
  await Promise.all([
    library.ask({ type: 'load', segment: null }, LOAD_TIMEOUT_MS),
    ...holders.map((holder) => holder.ask({ type: 'load', segment }, LOAD_TIMEOUT_MS)),
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

/**
 * Measures what another worker costs. A model that ends its process, or does not come back, when it is run
 * with zeros is measured without a run: its own requests may never do that.
 * @throws OnecopyError of loading; WORKER_BOOT_FAILED, TIMEOUT where a probe ends or hangs while it loads.
 */
export async function measureWorker(segment: SegmentReference, signal: AbortSignal): Promise<Measurement> {
  const measured = await measureOnce(segment, { run: true, signal })
  if (typeof measured !== 'string') return measured
  signal.throwIfAborted()
  const again = await measureOnce(segment, { run: false, signal })
  return { ...(again as Measurement), run: { problem: measured } }
}
