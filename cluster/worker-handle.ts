/**
 * The primary's handle on one worker process, from fork to exit. It is used for one life only: a
 * successor is another handle.
 */
import cluster, { type Worker } from 'node:cluster'
import { OnecopyError } from '../src/errors.js'
import type { Load } from '../src/http/connections.js'
import { formatMs } from '../src/units.js'
import { type StartMessage, ToPrimarySchema, type ToWorker } from './messages.js'

/**
 * Large buffers that are freed go back to the system: loading a model packs kernels into buffers that are
 * dropped for the mapped ones, and glibc would keep them. The thresholds are above what most activations
 * take: at 128 KiB each would be mapped and unmapped in every run (a ConvNet 14%, a large MLP 12% slower,
 * 10 to 25 MB a worker smaller).
 */
const MIB = 1024 * 1024
const WORKER_ENVIRONMENT = {
  MALLOC_MMAP_THRESHOLD_: String(4 * MIB),
  MALLOC_TRIM_THRESHOLD_: String(16 * MIB),
}

export interface WorkerExit {
  /** 'code 1', 'SIGSEGV'. */
  readonly how: string
  /** What it said about itself before it ended, or what was done to it. */
  readonly failure: OnecopyError | null
  readonly wasReady: boolean
  readonly livedMs: number
}

export interface WorkerHandleOptions {
  readonly start: StartMessage
  /** What was counted in its slot by those before it. */
  readonly inheritedRequests: number
  readonly bootTimeoutMs: number
  readonly onLoad: (load: Load) => void
}

export class WorkerHandle {
  readonly statsSlot: number
  readonly inheritedRequests: number
  /** Settles when it is ready; rejects with why it never was. */
  readonly ready: Promise<void>
  readonly exited: Promise<WorkerExit>
  /** The port it serves on, once it is ready. */
  port: number | null = null
  /** Whether its end was asked for, and why: it is not mended then. */
  retiredFor: string | null = null
  readonly #worker: Worker
  #failure: OnecopyError | null = null
  #readySinceMs: number | null = null

  constructor({ start, inheritedRequests, bootTimeoutMs, onLoad }: WorkerHandleOptions) {
    this.statsSlot = start.statsSlot
    this.inheritedRequests = inheritedRequests
    const worker = cluster.fork(WORKER_ENVIRONMENT)
    this.#worker = worker
    const bootTimer = setTimeout(() => {
      this.kill(
        new OnecopyError(
          'TIMEOUT',
          `worker ${worker.id} was not ready after ${formatMs(bootTimeoutMs)} (--boot-timeout)`,
        ),
      )
    }, bootTimeoutMs)
    let becomeReady = () => {}
    const isReady = new Promise<void>((resolve) => {
      becomeReady = resolve
    })
    worker.on('message', (raw: unknown) => {
      const message = ToPrimarySchema.parse(raw)
      if (message.type === 'hello') this.tell(start)
      else if (message.type === 'load') onLoad(message.load)
      else if (message.type === 'failed') this.#failure = new OnecopyError(message.code, message.message)
      else {
        clearTimeout(bootTimer)
        this.#readySinceMs = performance.now()
        this.port = message.port
        becomeReady()
      }
    })
    worker.on('error', (thrown) => {
      this.#failure ??= new OnecopyError('WORKER_BOOT_FAILED', `worker ${worker.id}: ${thrown.message}`)
    })
    this.exited = new Promise((resolve) => {
      worker.on('exit', (exitCode, signal) => {
        clearTimeout(bootTimer)
        resolve({
          how: signal === null ? `code ${exitCode}` : signal,
          failure: this.#failure,
          wasReady: this.#readySinceMs !== null,
          livedMs: this.ageMs,
        })
      })
    })
    const failed = this.exited.then(({ how, failure }) => {
      throw (
        failure ??
        new OnecopyError('WORKER_BOOT_FAILED', `worker ${worker.id} ended with ${how} before it was ready`)
      )
    })
    this.ready = Promise.race([isReady, failed])
    // Whoever waits for it hears of it; its exit is handled either way.
    this.ready.catch(() => {})
  }

  get id(): number {
    return this.#worker.id
  }

  get pid(): number {
    return this.#worker.process.pid ?? 0
  }

  /** Time since it became ready; 0 before. */
  get ageMs(): number {
    return this.#readySinceMs === null ? 0 : performance.now() - this.#readySinceMs
  }

  tell(message: ToWorker): void {
    // A worker that cannot be reached is about to be reported by its exit.
    this.#worker.send(message, () => {})
  }

  /**
   * Lets it answer what it accepted, then end; past `timeoutMs` it is killed. Resolves with whether
   * it had to be.
   */
  async drain(timeoutMs: number): Promise<{ readonly wasKilled: boolean }> {
    let wasKilled = false
    const timer = setTimeout(() => {
      wasKilled = true
      this.kill()
    }, timeoutMs)
    this.tell({ type: 'drain' })
    await this.exited
    clearTimeout(timer)
    return { wasKilled }
  }

  /** Ends it at once; `failure` is then what it failed of. */
  kill(failure?: OnecopyError): void {
    if (failure !== undefined) this.#failure ??= failure
    this.#worker.process.kill('SIGKILL')
  }
}
