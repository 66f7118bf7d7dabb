/**
 * The door to the engine: a bounded queue per serving process. Requests run one at a time, in order of
 * arrival; one that is cancelled while it waits never costs compute.
 */
import { OnecopyError } from '../errors.js'
import type { Tensor } from '../tensor.js'

export interface Job {
  readonly modelKey: string
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
}

export interface JobResult {
  readonly outputs: readonly Tensor[]
  readonly queueNs: number
  readonly computeNs: number
}

/** The engine's `run`, handed in: this room does not know the engine. */
export type Run = (job: Job) => Promise<{ outputs: readonly Tensor[]; computeNs: number }>

interface Waiting {
  readonly job: Job
  readonly enteredNs: bigint
  readonly signal: AbortSignal
  resolve(result: JobResult): void
  reject(error: unknown): void
}

export interface AdmissionOptions {
  readonly run: Run
  readonly maxQueuedRequests: number
}

export class Admission {
  readonly #options: AdmissionOptions
  readonly #queue: Waiting[] = []
  #isRunning = false
  #isShut = false

  constructor(options: AdmissionOptions) {
    this.#options = options
  }

  /** Requests that wait; the one that runs is not among them. */
  get depth(): number {
    return this.#queue.length
  }

  /**
   * Queues a job and settles with its result.
   * @throws OnecopyError QUEUE_FULL, SHUTTING_DOWN, REQUEST_CANCELLED (the signal), and what `run` throws.
   */
  submit(job: Job, signal: AbortSignal): Promise<JobResult> {
    if (this.#isShut) {
      return Promise.reject(
        new OnecopyError('SHUTTING_DOWN', 'the server is shutting down', { retryAfterSeconds: 1 }),
      )
    }
    const { maxQueuedRequests } = this.#options
    if (this.#queue.length >= maxQueuedRequests) {
      const message = `the queue is full: ${maxQueuedRequests} requests wait already`
      return Promise.reject(new OnecopyError('QUEUE_FULL', message, { retryAfterSeconds: 1 }))
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, enteredNs: process.hrtime.bigint(), signal, resolve, reject })
      void this.#drain()
    })
  }

  async #drain(): Promise<void> {
    if (this.#isRunning) return
    this.#isRunning = true
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      const { job, enteredNs, signal, resolve, reject } = next
      if (signal.aborted) {
        reject(new OnecopyError('REQUEST_CANCELLED', 'the client left before its request ran'))
        continue
      }
      const queueNs = Number(process.hrtime.bigint() - enteredNs)
      try {
        resolve({ ...(await this.#options.run(job)), queueNs })
      } catch (thrown) {
        reject(thrown)
      }
    }
    this.#isRunning = false
  }

  /** Refuses what comes from now on; what waits still runs. */
  shut(): void {
    this.#isShut = true
  }
}
