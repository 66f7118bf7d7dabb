/**
 * The primary's handle on one worker process, from fork to exit. Each replacement worker gets a new handle.
 */
import type { Worker } from 'node:cluster'
import { messageOf, OnecopyError, type OutOfService } from '../../src/errors.js'
import type { Load } from '../../src/http/connections.js'
import { withDeadline } from '../../src/lifecycle.js'
import { formatMs } from '../../src/units.js'
import {
  type OutOfServiceMessage,
  type SecretsMessage,
  type SegmentMessage,
  type StartMessage,
  type ToPrimary,
  ToPrimarySchema,
  type ToWorker,
} from '../messages.js'
import { type ForkWorker, forkWorker } from './fork-worker.js'
import { returnUnacceptedConnections } from './handover.js'
import type { RunningModel } from './stats.js'
import { endOf, type ProcessExit, type WorkerEnd } from './worker-end.js'

export interface WorkerExit {
  /** Such as 'code 1' or 'SIGSEGV'. */
  readonly how: string
  readonly end: WorkerEnd
  /** The model that its runtime was loading or computing. */
  readonly running: RunningModel | null
  /** The failure that it reported or was killed for. */
  readonly failure: OnecopyError | null
  readonly wasReady: boolean
  readonly livedMs: number
}

export interface WorkerHandleOptions {
  /** Its slot in the stats pages. */
  readonly statsSlot: number
  /**
   * Calls `take` with the start message once its segments can be loaded. They stay loadable until the caller
   * calls the function that this resolves with.
   */
  readonly lease: (take: (start: StartMessage) => void) => Promise<() => void>
  /** Requests counted in its slot by its predecessors. */
  readonly inheritedRequests: number
  readonly bootTimeoutMs: number
  readonly fork?: ForkWorker
  readonly onLoad: (load: Load) => void
  /** The model that its runtime is loading or computing, or was at its end. */
  readonly running: () => RunningModel | null
  /** Whether there is an OOM kill that no other end accounts for. */
  readonly takeOomKill: () => boolean
  /** Its inference thread has been silent for this long. */
  readonly onStalled: (silentMs: number) => void
  /** Whether other workers accept connections. */
  readonly hasOthers: () => boolean
}

/** A request to the worker without a reply yet. */
interface PendingReply {
  resolve(): void
  reject(failure: OnecopyError): void
}

function asBootFailure(thrown: unknown): OnecopyError {
  return thrown instanceof OnecopyError
    ? thrown
    : new OnecopyError('WORKER_BOOT_FAILED', messageOf(thrown), { cause: thrown })
}

export class WorkerHandle {
  readonly statsSlot: number
  readonly inheritedRequests: number
  /** Resolves when the worker is ready; rejects if it ends before. */
  readonly ready: Promise<void>
  readonly exited: Promise<WorkerExit>
  /** The port it serves on; null until it is ready. */
  port: number | null = null
  /** Why it is retiring, or null. Its exit then needs no replacement. */
  retiredFor: string | null = null
  readonly #worker: Worker
  readonly #options: WorkerHandleOptions
  /** Keys of the generations that answer requests. */
  readonly serves = new Set<string>()
  /** Keys of the generations that are loaded or may be; a superset of `serves`. */
  readonly holds = new Set<string>()
  /** Keys of the generations that failed to load at boot. */
  readonly failed = new Map<string, OutOfService>()
  #isAbandoned = false
  readonly #pending = new Map<number, PendingReply>()
  /** Callbacks waiting for a generation to be unloaded, by key. */
  readonly #onUnloaded = new Map<string, (() => void)[]>()
  #nextId = 0
  #onHello: () => void = () => {}
  #becomeReady: () => void = () => {}
  #bootTimer: NodeJS.Timeout | undefined
  #drained: Promise<{ readonly wasKilled: boolean }> | undefined
  /** The start message, once it is known. */
  #start: StartMessage | null = null
  #isStarted = false
  #failure: OnecopyError | null = null
  #isKilled = false
  #readySinceMs: number | null = null

  constructor(options: WorkerHandleOptions) {
    this.#options = options
    this.statsSlot = options.statsSlot
    this.inheritedRequests = options.inheritedRequests
    const worker = (options.fork ?? forkWorker)()
    this.#worker = worker
    returnUnacceptedConnections(worker, options.hasOthers)
    const isReady = new Promise<void>((resolve) => {
      this.#becomeReady = resolve
    })
    const greeted = new Promise<void>((resolve) => {
      this.#onHello = resolve
    })
    this.#setBootDeadline('did not start')
    worker.on('message', (raw: unknown) => this.#receive(raw))
    this.exited = new Promise((resolve) => {
      const end = (exit: ProcessExit, how = exit.signal ?? `code ${exit.exitCode}`) => {
        this.#onEnd()
        const running = options.running()
        const failure = this.#failure
        const ended = { ...exit, failure, wasKilledHere: this.#isKilled }
        resolve({
          ...{ how, running, failure },
          end: endOf({ ...ended, wasRunning: running !== null, takeOomKill: options.takeOomKill }),
          ...{ wasReady: this.#readySinceMs !== null, livedMs: this.ageMs },
        })
      }
      worker.on('exit', (exitCode, signal) => end({ exitCode, signal }))
      worker.on('error', (thrown) => {
        this.#failure ??= new OnecopyError('WORKER_BOOT_FAILED', `worker ${worker.id}: ${thrown.message}`)
        // A process that failed to spawn emits no exit event.
        if (worker.process.pid === undefined) end({ exitCode: null, signal: null }, 'no process')
      })
    })
    const failed = this.exited.then(({ how, failure }) => {
      throw (
        failure ??
        new OnecopyError('WORKER_BOOT_FAILED', `worker ${worker.id} ended with ${how} before it was ready`)
      )
    })
    this.ready = Promise.race([isReady, failed])
    // Prevents an unhandled rejection; the exit is handled in any case.
    this.ready.catch(() => {})
    this.#lease(greeted, isReady)
  }

  /** Prepares the segments while the process starts. */
  #lease(greeted: Promise<void>, isReady: Promise<void>): void {
    const leased = this.#options.lease((start) => {
      for (const { key } of start.segments) {
        this.serves.add(key)
        this.holds.add(key)
      }
      this.#start = start
      void greeted.then(() => {
        if (this.#worker.isDead()) return
        this.#setBootDeadline('was not ready')
        this.#sendStart()
      })
    })
    leased.then(
      (release) => void Promise.race([isReady, this.exited]).then(release),
      (thrown) => this.kill(asBootFailure(thrown)),
    )
  }

  /** Process start and model loading have separate deadlines; in between, segments may still be written. */
  #setBootDeadline(what: string): void {
    const { bootTimeoutMs } = this.#options
    clearTimeout(this.#bootTimer)
    this.#bootTimer = setTimeout(() => {
      const words = `worker ${this.id} ${what} within ${formatMs(bootTimeoutMs)} (--boot-timeout)`
      this.kill(new OnecopyError('TIMEOUT', words))
    }, bootTimeoutMs)
  }

  #receive(raw: unknown): void {
    const parsed = ToPrimarySchema.safeParse(raw)
    if (parsed.success) this.#take(parsed.data)
    else {
      const [issue] = parsed.error.issues
      const what = `${issue?.path.join('.') || 'the message'}: ${issue?.message}`
      this.kill(new OnecopyError('INTERNAL', `worker ${this.id} sent an invalid message: ${what}`))
    }
  }

  #take(message: ToPrimary): void {
    const { onLoad, onStalled } = this.#options
    if (message.type === 'hello') {
      clearTimeout(this.#bootTimer)
      this.#onHello()
    } else if (message.type === 'load') onLoad(message.load)
    else if (message.type === 'failed') this.#failure = new OnecopyError(message.code, message.message)
    else if (message.type === 'done') this.#settle(message)
    else if (message.type === 'unloaded') this.#onUnload(message.key)
    else if (message.type === 'stalled') onStalled(message.silentMs)
    else if (message.type === 'ready') {
      clearTimeout(this.#bootTimer)
      for (const { key, state } of message.failed) {
        this.serves.delete(key)
        this.holds.delete(key)
        this.failed.set(key, state)
      }
      this.#readySinceMs ??= performance.now()
      this.port = message.port
      this.#becomeReady()
    }
  }

  #settle({ id, problem }: Extract<ToPrimary, { type: 'done' }>): void {
    const pending = this.#pending.get(id)
    if (problem === null) pending?.resolve()
    else pending?.reject(new OnecopyError(problem.code, problem.message))
  }

  #onUnload(key: string): void {
    this.holds.delete(key)
    for (const notify of this.#onUnloaded.get(key) ?? []) notify()
    this.#onUnloaded.delete(key)
  }

  #onEnd(): void {
    clearTimeout(this.#bootTimer)
    this.#rejectPending()
    for (const key of [...this.holds]) this.#onUnload(key)
  }

  #rejectPending(): void {
    const gone = new OnecopyError('WORKER_GONE', `worker ${this.id} has ended`)
    for (const { reject } of this.#pending.values()) reject(gone)
  }

  get id(): number {
    return this.#worker.id
  }

  get pid(): number {
    return this.#worker.process.pid ?? 0
  }

  get isReady(): boolean {
    return this.#readySinceMs !== null
  }

  /** Time since it became ready; 0 before. */
  get ageMs(): number {
    return this.#readySinceMs === null ? 0 : performance.now() - this.#readySinceMs
  }

  #sendStart(): void {
    if (this.#start !== null) this.send(this.#start)
    this.#isStarted = true
  }

  /** Keys or a certificate were renewed. A worker that has not started yet starts with them. */
  renew(secrets: SecretsMessage): void {
    if (this.#isStarted) this.send({ type: 'secrets', secrets })
    else if (this.#start !== null) this.#start = { ...this.#start, secrets }
  }

  /** Takes a model version out of service, in a running worker or in one that has not started yet. */
  takeOut(version: OutOfServiceMessage): void {
    this.#changeService(version, (others) => [...others, version], { type: 'takeOut', version })
  }

  putBack(model: { readonly name: string; readonly version: string }): void {
    this.#changeService(model, (others) => [...others], { type: 'putBack', ...model })
  }

  #changeService(
    { name, version }: { readonly name: string; readonly version: string },
    change: (others: readonly OutOfServiceMessage[]) => OutOfServiceMessage[],
    message: ToWorker,
  ): void {
    if (this.#isStarted) this.send(message)
    else if (this.#start !== null) {
      const others = this.#start.outOfService.filter((one) => one.name !== name || one.version !== version)
      this.#start = { ...this.#start, outOfService: change(others) }
    }
  }

  send(message: ToWorker): void {
    // Ignores send errors: the exit of the worker is reported anyway.
    this.#worker.send(message, () => {})
  }

  /**
   * Loads a generation next to the one that serves.
   * @throws OnecopyError the failure that the worker reports, MODEL_CRASHED if the model ends it, WORKER_GONE
   * if anything else ends it, TIMEOUT.
   */
  async prepare(segment: SegmentMessage, timeoutMs: number): Promise<void> {
    // After a timeout the worker may still load it.
    this.holds.add(segment.key)
    try {
      await this.#request((id) => ({ type: 'prepare', id, segment }), timeoutMs)
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError) || thrown.code !== 'TIMEOUT') this.holds.delete(segment.key)
      throw await this.#causeOf(thrown, segment)
    }
  }

  /** The reason for a failed load: MODEL_CRASHED if the model ended the worker. */
  async #causeOf(thrown: unknown, { name, version }: SegmentMessage): Promise<unknown> {
    // An abandoned worker can run for as long as its thread computes, so its exit is not awaited.
    if (!(thrown instanceof OnecopyError) || thrown.code !== 'WORKER_GONE' || this.#isAbandoned) return thrown
    const { end, running, how } = await this.exited
    const isItsFault = running?.isLoading && running.model === name && running.version === version
    if (end !== 'runtime fault' || !isItsFault) return thrown
    return new OnecopyError(
      'MODEL_CRASHED',
      `model ${name} version ${version} ended worker ${this.id} with ${how} during its load`,
    )
  }

  /**
   * Switches generations. A retired generation is unloaded after its last request; see `unloaded`.
   * @throws OnecopyError WORKER_GONE, TIMEOUT.
   */
  async change(
    { activate, retire }: { readonly activate: readonly string[]; readonly retire: readonly string[] },
    timeoutMs: number,
  ): Promise<void> {
    for (const key of retire) this.serves.delete(key)
    for (const key of activate) this.serves.add(key)
    await this.#request(
      (id) => ({ type: 'change', id, activate: [...activate], retire: [...retire] }),
      timeoutMs,
    )
  }

  /** Resolves when the worker no longer holds a generation, because it unloaded it or ended. */
  unloaded(key: string): Promise<void> {
    if (!this.holds.has(key)) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onUnloaded.set(key, [...(this.#onUnloaded.get(key) ?? []), resolve])
    })
  }

  async #request(message: (id: number) => ToWorker, timeoutMs: number): Promise<void> {
    const id = this.#nextId++
    // No handler is attached to a promise that lives as long as the worker: it would retain every request.
    const answered = new Promise<void>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      if (this.#worker.isDead()) this.#rejectPending()
    })
    this.send(message(id))
    try {
      await withDeadline(answered, timeoutMs, `worker ${this.id}`)
    } finally {
      this.#pending.delete(id)
    }
  }

  /** The worker is ending and needs no replacement. Rejects its pending requests. */
  abandon(reason: string): void {
    this.retiredFor ??= reason
    this.#isAbandoned = true
    this.#rejectPending()
  }

  /**
   * Drains the worker: it answers what it accepted, then exits. It is killed after `timeoutMs`. Resolves with
   * whether it was killed. Idempotent.
   */
  drain(timeoutMs: number): Promise<{ readonly wasKilled: boolean }> {
    this.#drained ??= this.#drain(timeoutMs)
    return this.#drained
  }

  async #drain(timeoutMs: number): Promise<{ readonly wasKilled: boolean }> {
    if (!this.isReady) {
      // It has accepted no requests.
      this.kill()
      await this.exited
      return { wasKilled: false }
    }
    let wasKilled = false
    const timer = setTimeout(() => {
      wasKilled = true
      this.kill()
    }, timeoutMs)
    this.send({ type: 'drain' })
    await this.exited
    clearTimeout(timer)
    return { wasKilled }
  }

  /** Kills the worker; `failure` becomes the reason of its end. */
  kill(failure?: OnecopyError): void {
    if (failure !== undefined) this.#failure ??= failure
    this.#isKilled = true
    this.#worker.process.kill('SIGKILL')
  }
}
