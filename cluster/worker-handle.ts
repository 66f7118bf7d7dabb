/**
 * The primary's handle on one worker process, from fork to exit. It is used for one life only: a
 * successor is another handle.
 */
import cluster, { type Worker } from 'node:cluster'
import { type ErrorCode, messageOf, OnecopyError, type OutOfService } from '../src/errors.js'
import type { Load } from '../src/http/connections.js'
import { withDeadline } from '../src/lifecycle.js'
import { WORKER_ENVIRONMENT } from '../src/runtime/environment.js'
import { formatMs } from '../src/units.js'
import { returnUnacceptedConnections } from './handover.js'
import {
  type OutOfServiceMessage,
  type SecretsMessage,
  type SegmentMessage,
  type StartMessage,
  ToPrimarySchema,
  type ToWorker,
} from './messages.js'
import type { RunningModelSign } from './stats.js'
import { endOf, type WorkerEnd } from './worker-end.js'

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
  readonly onLoad: (load: Load) => void
  /** What its runtime is loading or computing, or was when it ended. */
  readonly running: () => RunningModelSign | null
  /** Whether the kernel has killed a process for memory that explains no other end. */
  readonly takeOomKill: () => boolean
  /** Whether other workers take connections. */
  readonly hasOthers: () => boolean
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
  /** Generations that it answers with, by key. */
  readonly serves = new Set<string>()
  /** Generations that it has loaded, by key: these and perhaps more. */
  readonly holds = new Set<string>()
  /** Generations that it could not load when it booted, by key. */
  readonly failed = new Map<string, OutOfService>()
  readonly #asked = new Map<number, (problem: { code: ErrorCode; message: string } | null) => void>()
  #nextId = 0
  /** What it will be told first, once that is known. */
  #start: StartMessage | null = null
  #isTold = false
  #failure: OnecopyError | null = null
  #isKilled = false
  #readySinceMs: number | null = null

  constructor(options: WorkerHandleOptions) {
    const { statsSlot, lease, inheritedRequests, bootTimeoutMs, onLoad, hasOthers, takeOomKill } = options
    this.statsSlot = statsSlot
    this.inheritedRequests = inheritedRequests
    const worker = cluster.fork(WORKER_ENVIRONMENT)
    this.#worker = worker
    returnUnacceptedConnections(worker, hasOthers)
    // Its start and its loading have a deadline each: between them it may have to wait for segments to be written.
    let bootTimer: NodeJS.Timeout | undefined
    const expectWithin = (what: string) => {
      bootTimer = setTimeout(() => {
        const words = `worker ${worker.id} ${what} within ${formatMs(bootTimeoutMs)} (--boot-timeout)`
        this.kill(new OnecopyError('TIMEOUT', words))
      }, bootTimeoutMs)
    }
    expectWithin('did not start')
    let becomeReady = () => {}
    const isReady = new Promise<void>((resolve) => {
      becomeReady = resolve
    })
    let greet = () => {}
    const hasGreeted = new Promise<void>((resolve) => {
      greet = resolve
    })
    worker.on('message', (raw: unknown) => {
      const message = ToPrimarySchema.parse(raw)
      if (message.type === 'hello') {
        clearTimeout(bootTimer)
        greet()
      } else if (message.type === 'load') onLoad(message.load)
      else if (message.type === 'failed') this.#failure = new OnecopyError(message.code, message.message)
      else if (message.type === 'done') this.#asked.get(message.id)?.(message.problem)
      else {
        clearTimeout(bootTimer)
        for (const { key, state } of message.failed) {
          this.serves.delete(key)
          this.holds.delete(key)
          this.failed.set(key, state)
        }
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
        const running = options.running()
        const failure = this.#failure
        const ended = { exitCode, signal, failure, wasKilledHere: this.#isKilled }
        resolve({
          how: signal === null ? `code ${exitCode}` : signal,
          end: endOf({ ...ended, wasRunning: running !== null, takeOomKill }),
          running,
          failure,
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
    // What it needs is made ready while the process starts.
    const leased = lease((start) => {
      for (const { key } of start.segments) {
        this.serves.add(key)
        this.holds.add(key)
      }
      this.#start = start
      void hasGreeted.then(() => {
        if (worker.isDead()) return
        expectWithin('was not ready')
        this.#tellStart()
      })
    })
    leased.then(
      (release) => void Promise.race([isReady, this.exited]).then(release),
      (thrown) => this.kill(asBootFailure(thrown)),
    )
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
    try {
      await this.#ask((id) => ({ type: 'prepare', id, segment }), timeoutMs)
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError) || thrown.code !== 'WORKER_GONE') throw thrown
      const { end, running, how } = await this.exited
      const { name, version } = segment
      const isItsFault = running?.isLoading && running.model === name && running.version === version
      if (end !== 'runtime fault' || !isItsFault) throw thrown
      throw new OnecopyError(
        'MODEL_CRASHED',
        `model ${name} version ${version} ended worker ${this.id} with ${how} while it was loaded`,
      )
    }
    this.holds.add(segment.key)
  }

  /**
   * Changes what it answers with; resolves when what was retired is unloaded.
   * @throws OnecopyError WORKER_GONE when it ends meanwhile, TIMEOUT.
   */
  async change(
    { activate, retire }: { readonly activate: readonly string[]; readonly retire: readonly string[] },
    timeoutMs: number,
  ): Promise<void> {
    const asked = this.#ask(
      (id) => ({ type: 'change', id, activate: [...activate], retire: [...retire] }),
      timeoutMs,
    )
    for (const key of retire) this.serves.delete(key)
    for (const key of activate) this.serves.add(key)
    await asked
    for (const key of retire) this.holds.delete(key)
  }

  async #ask(message: (id: number) => ToWorker, timeoutMs: number): Promise<void> {
    const id = this.#nextId++
    const what = `worker ${this.id}`
    const answered = new Promise<void>((resolve, reject) => {
      this.#asked.set(id, (problem) => {
        if (problem === null) resolve()
        else reject(new OnecopyError(problem.code, problem.message))
      })
      void this.exited.then(() => reject(new OnecopyError('WORKER_GONE', `${what} ended meanwhile`)))
    })
    this.tell(message(id))
    try {
      await withDeadline(answered, timeoutMs, what)
    } finally {
      this.#asked.delete(id)
    }
  }

  /**
   * Lets it answer what it accepted, then end; past `timeoutMs` it is killed. Resolves with whether
   * it had to be.
   */
  async drain(timeoutMs: number): Promise<{ readonly wasKilled: boolean }> {
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
