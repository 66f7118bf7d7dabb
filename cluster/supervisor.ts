/**
 * Keeps the workers alive. One function, `#spawn`, starts a worker the first time and every time. A
 * worker that dies is replaced after a back-off that grows while replacements die young; too many boots
 * that fail in a row leave the server not ready, with the reason, instead of looping for ever.
 */
import cluster, { type Worker } from 'node:cluster'
import { OnecopyError } from '../src/errors.js'
import type { Load } from '../src/http/connections.js'
import type { Log } from '../src/log.js'
import { formatMs } from '../src/units.js'
import { Balancer } from './balance.js'
import { type StartMessage, ToPrimarySchema, type ToWorker } from './messages.js'
import type { MetricsSnapshot } from './snapshot.js'

const FIRST_BACKOFF_MS = 50
const LONGEST_BACKOFF_MS = 10_000
/** A worker that lived this long was healthy: the next failure starts counting anew. */
const HEALTHY_AFTER_MS = 10_000
const MAX_BOOT_FAILURES = 5

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

export interface SupervisorOptions {
  readonly workers: number
  readonly start: StartMessage
  readonly bootTimeoutMs: number
  readonly log: Log
  /** Last counts of a worker that ended, for the totals. */
  readonly onFarewell: (workerId: number, snapshot: MetricsSnapshot) => void
  readonly onExit: (workerId: number) => void
  /** The boot-failure limit was reached: the server cannot be brought back by itself. */
  readonly onGivenUp: (reason: OnecopyError) => void
  readonly onRecovered: () => void
}

interface Slot {
  readonly index: number
  worker: Worker | null
  isReady: boolean
  readySinceMs: number
  /** Boots that failed, or ends soon after one, in a row. */
  failures: number
  respawnTimer: NodeJS.Timeout | undefined
}

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #slots: Slot[]
  readonly #balancer = new Balancer()
  readonly #metricsWaiting = new Map<number, (workerId: number, snapshot: MetricsSnapshot) => void>()
  #nextMetricsId = 0
  #isStopping = false
  #draining: Promise<{ readonly killed: number }> | undefined
  #port: number | null = null

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#slots = Array.from({ length: options.workers }, (_, index) => ({
      index,
      worker: null,
      isReady: false,
      readySinceMs: 0,
      failures: 0,
      respawnTimer: undefined,
    }))
  }

  /** Workers that answer requests, by id. */
  get ready(): { readonly id: number; readonly pid: number }[] {
    return this.#slots
      .filter((slot) => slot.isReady)
      .map(({ worker }) => ({ id: worker?.id ?? 0, pid: worker?.process.pid ?? 0 }))
  }

  /** The port that all workers share; null before the first is ready. */
  get port(): number | null {
    return this.#port
  }

  /** Boots every worker; rejects with the first failure, and the rest is stopped by the caller. */
  async start(): Promise<void> {
    await Promise.all(this.#slots.map((slot) => this.#spawn(slot)))
  }

  /** Resolves when the worker is ready; rejects with why it is not. Either way its later end is handled here. */
  #spawn(slot: Slot): Promise<void> {
    const { start, bootTimeoutMs, log } = this.#options
    const worker = cluster.fork(WORKER_ENVIRONMENT)
    slot.worker = worker
    return new Promise((resolve, reject) => {
      let failure: OnecopyError | null = null
      const timer = setTimeout(() => {
        failure = new OnecopyError(
          'TIMEOUT',
          `worker ${worker.id} was not ready after ${formatMs(bootTimeoutMs)} (--boot-timeout)`,
        )
        worker.process.kill('SIGKILL')
      }, bootTimeoutMs)

      worker.on('message', (raw: unknown) => {
        const message = ToPrimarySchema.parse(raw)
        if (message.type === 'hello') this.#tell(worker, start)
        else if (message.type === 'ready') {
          clearTimeout(timer)
          slot.isReady = true
          slot.readySinceMs = performance.now()
          this.#port = message.port
          log.debug({ worker: worker.id, workerPid: worker.process.pid }, 'worker ready')
          resolve()
        } else if (message.type === 'failed') {
          failure = new OnecopyError(message.code, message.message)
        } else if (message.type === 'metrics') {
          this.#metricsWaiting.get(message.id)?.(worker.id, message.snapshot)
        } else if (message.type === 'load') this.#balance(worker.id, message.load)
        else this.#options.onFarewell(worker.id, message.snapshot)
      })
      worker.on('error', (thrown) => {
        failure ??= new OnecopyError('WORKER_BOOT_FAILED', `worker ${worker.id}: ${thrown.message}`)
      })
      worker.on('exit', (exitCode, signal) => {
        clearTimeout(timer)
        const how = signal === null ? `code ${exitCode}` : signal
        reject(
          failure ??
            new OnecopyError(
              'WORKER_BOOT_FAILED',
              `worker ${worker.id} ended with ${how} before it was ready`,
            ),
        )
        this.#onExit(slot, worker, how, failure)
      })
    })
  }

  #balance(workerId: number, load: Load): void {
    if (this.#isStopping) return
    const serving = this.#slots.flatMap(({ worker, isReady }) => (isReady && worker !== null ? [worker] : []))
    const ready = serving.map(({ id }) => id)
    const asked = this.#balancer.take({ workerId, load, ready, nowMs: performance.now() })
    for (const worker of serving.filter(({ id }) => asked.includes(id))) {
      this.#options.log.debug({ worker: worker.id }, 'asking the worker to give up a connection')
      this.#tell(worker, { type: 'shed' })
    }
  }

  #tell(worker: Worker, message: ToWorker): void {
    // A worker that cannot be reached is about to be reported by its exit.
    worker.send(message, () => {})
  }

  #onExit(slot: Slot, worker: Worker, how: string, failure: OnecopyError | null): void {
    const { log, onExit, onGivenUp } = this.#options
    const wasReady = slot.isReady
    slot.worker = null
    slot.isReady = false
    onExit(worker.id)
    if (this.#isStopping) return
    const livedMs = wasReady ? performance.now() - slot.readySinceMs : 0
    slot.failures = livedMs >= HEALTHY_AFTER_MS ? 0 : slot.failures + 1
    log.error(
      { worker: worker.id, workerPid: worker.process.pid, how, livedMs: Math.round(livedMs) },
      'worker ended',
    )
    // Before the first full start there is nothing to mend: the start fails as a whole.
    if (!wasReady && this.#port === null) return
    if (slot.failures >= MAX_BOOT_FAILURES) {
      onGivenUp(
        new OnecopyError(
          'WORKER_BOOT_FAILED',
          `a worker failed ${slot.failures} times in a row, the last time: ${failure?.message ?? `it ended with ${how}`}`,
        ),
      )
      return
    }
    this.#respawnLater(slot)
  }

  #respawnLater(slot: Slot): void {
    const base = slot.failures <= 1 ? 0 : FIRST_BACKOFF_MS * 2 ** (slot.failures - 2)
    const delayMs = Math.min(base, LONGEST_BACKOFF_MS) * (0.5 + Math.random() / 2)
    slot.respawnTimer = setTimeout(() => {
      // Its failure is handled by its exit; here it would only be an unhandled rejection.
      this.#spawn(slot)
        .then(() => this.#options.onRecovered())
        .catch(() => {})
    }, delayMs)
  }

  /** Asks every ready worker for its counts; answers that come within `timeoutMs` count. */
  async collectMetrics(timeoutMs: number): Promise<Map<number, MetricsSnapshot>> {
    const id = this.#nextMetricsId++
    const asked = this.#slots.filter((slot) => slot.isReady).flatMap((slot) => slot.worker ?? [])
    const answers = new Map<number, MetricsSnapshot>()
    if (asked.length === 0) return answers
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs)
      this.#metricsWaiting.set(id, (workerId, snapshot) => {
        answers.set(workerId, snapshot)
        if (answers.size < asked.length) return
        clearTimeout(timer)
        resolve()
      })
      for (const worker of asked) this.#tell(worker, { type: 'metrics', id })
    })
    this.#metricsWaiting.delete(id)
    return answers
  }

  /** Lets every worker answer what it accepted, then end; kills what is left after `timeoutMs`. Idempotent. */
  drain(timeoutMs: number): Promise<{ readonly killed: number }> {
    this.#draining ??= this.#drain(timeoutMs)
    return this.#draining
  }

  async #drain(timeoutMs: number): Promise<{ readonly killed: number }> {
    this.#isStopping = true
    const ending: Promise<void>[] = []
    const alive: Worker[] = []
    for (const slot of this.#slots) {
      clearTimeout(slot.respawnTimer)
      const { worker } = slot
      if (worker === null) continue
      alive.push(worker)
      ending.push(new Promise((resolve) => worker.once('exit', () => resolve())))
      this.#tell(worker, { type: 'drain' })
    }
    let killed = 0
    const timer = setTimeout(() => {
      for (const worker of alive) {
        if (worker.isDead()) continue
        killed++
        worker.process.kill('SIGKILL')
      }
    }, timeoutMs)
    await Promise.all(ending)
    clearTimeout(timer)
    return { killed }
  }

  /** Ends every worker at once. */
  kill(): void {
    this.#isStopping = true
    for (const { worker, respawnTimer } of this.#slots) {
      clearTimeout(respawnTimer)
      worker?.process.kill('SIGKILL')
    }
  }
}
