/**
 * The primary's handle on one worker process, from fork to exit. It is used for one life only: a
 * successor is another handle.
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
import type { RunningModelSign } from './stats.js'
import { endOf, type ProcessExit, type WorkerEnd } from './worker-end.js'

export interface WorkerExit {
  /** 'code 1', 'SIGSEGV'. */
  readonly how: string
  readonly end: WorkerEnd
  /** What its runtime was loading or computing. */
  readonly running: RunningModelSign | null
  /** What it said about itself before it ended, or what was done to it. */
  readonly failure: OnecopyError | null
  readonly wasReady: boolean
  readonly livedMs: number
}

export interface WorkerHandleOptions {
  /** Its slot in the stats pages. */
  readonly statsSlot: number
  /**
   * Calls `take` with what it is to serve, when that is there to be loaded, and keeps it there until the function that it
   * resolves with is called.
   */
  readonly lease: (take: (start: StartMessage) => void) => Promise<() => void>
  /** What was counted in its slot by those before it. */
  readonly inheritedRequests: number
  readonly bootTimeoutMs: number
  readonly fork?: ForkWorker
  readonly onLoad: (load: Load) => void
  /** What its runtime is loading or computing, or was when it ended. */
  readonly running: () => RunningModelSign | null
  /** Whether the kernel has killed a process for memory that explains no other end. */
  readonly takeOomKill: () => boolean
  /** Its inference thread has been silent for so long. */
  readonly onStalled: (silentMs: number) => void
  /** Whether other workers take connections. */
  readonly hasOthers: () => boolean
}

/** A question to the worker that is not answered yet. */
interface Asked {
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
  /** Settles when it is ready; rejects with why it never was. */
  readonly ready: Promise<void>
  readonly exited: Promise<WorkerExit>
  /** The port it serves on, once it is ready. */
  port: number | null = null
  /** Whether its end was asked for, and why: it is not mended then. */
  retiredFor: string | null = null
  readonly #worker: Worker
  readonly #options: WorkerHandleOptions
  /** Generations that it answers with, by key. */
  readonly serves = new Set<string>()
  /** Generations that it has loaded or may have, by key: these and perhaps more. */
  readonly holds = new Set<string>()
  /** Generations that it could not load when it booted, by key. */
  readonly failed = new Map<string, OutOfService>()
  readonly #asked = new Map<number, Asked>()
  /** Who waits for generations to be unloaded, by key. */
  readonly #onUnloaded = new Map<string, (() => void)[]>()
  #nextId = 0
  #greet: () => void = () => {}
  #becomeReady: () => void = () => {}
  #bootTimer: NodeJS.Timeout | undefined
  #drained: Promise<{ readonly wasKilled: boolean }> | undefined
  /** What it will be told first, once that is known. */
  #start: StartMessage | null = null
  #isTold = false
  #failure: OnecopyError | null = null
  #isKilled = false
  #readySinceMs: number | null = null

  constructor(options: WorkerHandleOptions) {
    const { statsSlot, inheritedRequests, hasOthers } = options
    this.#options = options
    this.statsSlot = statsSlot
    this.inheritedRequests = inheritedRequests
    const worker = (options.fork ?? forkWorker)()
    this.#worker = worker
    returnUnacceptedConnections(worker, hasOthers)
    const isReady = new Promise<void>((resolve) => {
      this.#becomeReady = resolve
    })
    const hasGreeted = new Promise<void>((resolve) => {
      this.#greet = resolve
    })
    this.#expectWithin('did not start')
    worker.on('message', (raw: unknown) => this.#receive(raw))
    this.exited = new Promise((resolve) => {
      const end = (exit: ProcessExit, how = exit.signal ?? `code ${exit.exitCode}`) => {
        this.#forget()
        const running = options.running()
        const failure = this.#failure
        const ended = { ...exit, failure, wasKilledHere: this.#isKilled }
        resolve({
          how,
          end: endOf({ ...ended, wasRunning: running !== null, takeOomKill: options.takeOomKill }),
          running,
          failure,
          wasReady: this.#readySinceMs !== null,
          livedMs: this.ageMs,
        })
      }
      worker.on('exit', (exitCode, signal) => end({ exitCode, signal }))
      worker.on('error', (thrown) => {
        this.#failure ??= new OnecopyError('WORKER_BOOT_FAILED', `worker ${worker.id}: ${thrown.message}`)
        // A process that was never there does not exit.
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
    // Whoever waits for it hears of it; its exit is handled either way.
    this.ready.catch(() => {})
    this.#lease(hasGreeted, isReady)
  }

  /** What it needs is made ready while the process starts. */
  #lease(hasGreeted: Promise<void>, isReady: Promise<void>): void {
    const leased = this.#options.lease((start) => {
      for (const { key } of start.segments) {
        this.serves.add(key)
        this.holds.add(key)
      }
      this.#start = start
      void hasGreeted.then(() => {
        if (this.#worker.isDead()) return
        this.#expectWithin('was not ready')
        this.#tellStart()
      })
    })
    leased.then(
      (release) => void Promise.race([isReady, this.exited]).then(release),
      (thrown) => this.kill(asBootFailure(thrown)),
    )
  }

  /** Its start and its loading have a deadline each: between them it may have to wait for segments to be written. */
  #expectWithin(what: string): void {
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
      this.kill(
        new OnecopyError('INTERNAL', `worker ${this.id} sent a message that is not as expected: ${what}`),
      )
    }
  }

  #take(message: ToPrimary): void {
    const { onLoad, onStalled } = this.#options
    if (message.type === 'hello') {
      clearTimeout(this.#bootTimer)
      this.#greet()
    } else if (message.type === 'load') onLoad(message.load)
    else if (message.type === 'failed') this.#failure = new OnecopyError(message.code, message.message)
    else if (message.type === 'done') this.#settle(message)
    else if (message.type === 'unloaded') this.#noteUnloaded(message.key)
    else if (message.type === 'stalled') onStalled(message.silentMs)
    else {
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
    const asked = this.#asked.get(id)
    if (problem === null) asked?.resolve()
    else asked?.reject(new OnecopyError(problem.code, problem.message))
  }

  #noteUnloaded(key: string): void {
    this.holds.delete(key)
    for (const tell of this.#onUnloaded.get(key) ?? []) tell()
    this.#onUnloaded.delete(key)
  }

  /** It has ended: nothing is loaded, nothing is answered. */
  #forget(): void {
    clearTimeout(this.#bootTimer)
    this.#abandonAsked()
    for (const key of [...this.holds]) this.#noteUnloaded(key)
  }

  #abandonAsked(): void {
    const gone = new OnecopyError('WORKER_GONE', `worker ${this.id} ended meanwhile`)
    for (const { reject } of this.#asked.values()) reject(gone)
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

  #tellStart(): void {
    if (this.#start !== null) this.tell(this.#start)
    this.#isTold = true
  }

  /** Keys or a certificate were renewed; a worker that does not listen yet will start with them. */
  renew(secrets: SecretsMessage): void {
    if (this.#isTold) this.tell({ type: 'secrets', secrets })
    else if (this.#start !== null) this.#start = { ...this.#start, secrets }
  }

  /** A model version is out of service from here on, or was when it starts. */
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
    if (this.#isTold) this.tell(message)
    else if (this.#start !== null) {
      const others = this.#start.outOfService.filter((one) => one.name !== name || one.version !== version)
      this.#start = { ...this.#start, outOfService: change(others) }
    }
  }

  tell(message: ToWorker): void {
    // A worker that cannot be reached is about to be reported by its exit.
    this.#worker.send(message, () => {})
  }

  /**
   * Has it load a generation beside what answers.
   * @throws OnecopyError what it says, or MODEL_CRASHED when the model ends it, WORKER_GONE when something else does, TIMEOUT.
   */
  async prepare(segment: SegmentMessage, timeoutMs: number): Promise<void> {
    // It may have it from now on, even where it does not answer in time.
    this.holds.add(segment.key)
    try {
      await this.#ask((id) => ({ type: 'prepare', id, segment }), timeoutMs)
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError) || thrown.code !== 'TIMEOUT') this.holds.delete(segment.key)
      throw await this.#causeOf(thrown, segment)
    }
  }

  /** What ended it while it loaded a model, where that was the model. */
  async #causeOf(thrown: unknown, { name, version }: SegmentMessage): Promise<unknown> {
    if (!(thrown instanceof OnecopyError) || thrown.code !== 'WORKER_GONE') return thrown
    const { end, running, how } = await this.exited
    const isItsFault = running?.isLoading && running.model === name && running.version === version
    if (end !== 'runtime fault' || !isItsFault) return thrown
    return new OnecopyError(
      'MODEL_CRASHED',
      `model ${name} version ${version} ended worker ${this.id} with ${how} while it was loaded`,
    )
  }

  /**
   * Changes what it answers with. What is retired is unloaded when its last request is answered: see `unloaded`.
   * @throws OnecopyError WORKER_GONE when it ends meanwhile, TIMEOUT.
   */
  async change(
    { activate, retire }: { readonly activate: readonly string[]; readonly retire: readonly string[] },
    timeoutMs: number,
  ): Promise<void> {
    for (const key of retire) this.serves.delete(key)
    for (const key of activate) this.serves.add(key)
    await this.#ask((id) => ({ type: 'change', id, activate: [...activate], retire: [...retire] }), timeoutMs)
  }

  /** Resolves when it does not hold a generation: it has unloaded it, or has ended. */
  unloaded(key: string): Promise<void> {
    if (!this.holds.has(key)) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onUnloaded.set(key, [...(this.#onUnloaded.get(key) ?? []), resolve])
    })
  }

  async #ask(message: (id: number) => ToWorker, timeoutMs: number): Promise<void> {
    const id = this.#nextId++
    // Nothing is hung on a promise that lives as long as the worker: it would keep every question that was ever asked.
    const answered = new Promise<void>((resolve, reject) => {
      this.#asked.set(id, { resolve, reject })
      if (this.#worker.isDead()) this.#abandonAsked()
    })
    this.tell(message(id))
    try {
      await withDeadline(answered, timeoutMs, `worker ${this.id}`)
    } finally {
      this.#asked.delete(id)
    }
  }

  /** Its end is certain from now on, and not to be mended; what it was asked for is not waited for. */
  forsake(reason: string): void {
    this.retiredFor ??= reason
    this.#abandonAsked()
  }

  /**
   * Lets it answer what it accepted, then end; past `timeoutMs` it is killed. Resolves with whether
   * it had to be. Idempotent.
   */
  drain(timeoutMs: number): Promise<{ readonly wasKilled: boolean }> {
    this.#drained ??= this.#drain(timeoutMs)
    return this.#drained
  }

  async #drain(timeoutMs: number): Promise<{ readonly wasKilled: boolean }> {
    if (!this.isReady) {
      // It has accepted nothing.
      this.kill()
      await this.exited
      return { wasKilled: false }
    }
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
    this.#isKilled = true
    this.#worker.process.kill('SIGKILL')
  }
}
