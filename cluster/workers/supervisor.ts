/**
 * Keeps the workers alive. One function, `#spawn`, starts a worker: the first time, after a crash and to
 * replace one that still serves. A worker that dies is replaced after a back-off that grows while
 * replacements die young; too many boots that fail in a row leave the server not ready, with the reason,
 * instead of looping for ever. A worker that a model crashed is replaced at once and counts for neither: the model
 * is disabled before long (breaker.ts), and the others wait for nothing.
 *
 * Replacing one that serves: its successor boots beside it, and only when that is ready the old one is
 * drained. One at a time, whatever asks for it, so there is never more than one worker too many.
 *
 * A worker whose inference thread does not come back (it says so itself) is replaced at once: until another is ready it
 * answers everything with 503, then it is drained and ends.
 */
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { Load } from '../../src/http/connections.js'
import type { Log } from '../../src/log.js'
import { limitDataGrowth } from '../../src/process/data-limit.js'
import { workerGrowthBytes } from '../../src/process/memory.js'
import { OomKills } from '../../src/process/oom-kills.js'
import { formatMs } from '../../src/units.js'
import type { StartMessage } from '../messages.js'
import { Balancer } from './balance.js'
import type { ModelFault, ModelVersion } from './breaker.js'
import { reportEnd } from './end-report.js'
import { type ForkWorker, forkWorker } from './fork-worker.js'
import { newReplica, type Replica } from './replica.js'
import type { FleetStats } from './stats.js'
import { type WorkerExit, WorkerHandle } from './worker-handle.js'

const FIRST_BACKOFF_MS = 50
const LONGEST_BACKOFF_MS = 10_000
/** A worker that lived this long was healthy: the next crash starts counting anew. */
const HEALTHY_AFTER_MS = 2000
const MAX_BOOT_FAILURES = 5
/** Why a worker ended whose inference thread did not come back, in metrics and logs. */
const STALLED = 'WORKER_STALLED'

export interface SupervisorOptions {
  readonly workers: number
  readonly fork?: ForkWorker
  /** Says what a worker that is started now is told, all but its slot; see WorkerHandleOptions. */
  readonly lease: (take: (start: Omit<StartMessage, 'statsSlot'>) => void) => Promise<() => void>
  readonly stats: FleetStats
  readonly bootTimeoutMs: number
  readonly drainTimeoutMs: number
  readonly log: Log
  /** A worker listens, perhaps without some of the models, and counts as ready once this resolves. */
  readonly onReady: (worker: WorkerHandle) => Promise<void>
  /** A model ended a worker; returns whether a model that goes on like this is disabled. */
  readonly onModelFault: (fault: ModelFault) => boolean
  /** The worker that it ended is replaced. */
  readonly onModelFaultMended: (model: ModelVersion) => void
  /** A worker ended while the server goes on. */
  readonly onEnded: (reason: string) => void
  /** The boot-failure limit was reached: the server cannot be brought back by itself. */
  readonly onGivenUp: (reason: OnecopyError) => void
  readonly onRecovered: () => void
}

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #replicas: Replica[]
  readonly #alive = new Set<WorkerHandle>()
  readonly #balancer = new Balancer()
  readonly #oomKills = new OomKills()
  #isStopping = false
  #started: Promise<void> | undefined
  #draining: Promise<{ readonly killed: number }> | undefined
  #port: number | null = null
  /** Settles when the replacement asked for last is done. */
  #lastReplacement: Promise<void> = Promise.resolve()
  #restarting: Promise<void> | undefined
  #nextRestart: Promise<void> | undefined

  constructor(options: SupervisorOptions) {
    this.#options = options
    this.#replicas = Array.from({ length: options.workers }, newReplica)
  }

  /** Workers that answer requests. */
  get ready(): readonly WorkerHandle[] {
    return this.#replicas.flatMap(({ worker }) => (worker === null ? [] : [worker]))
  }

  /** Every worker process that has not ended yet. */
  get pids(): readonly number[] {
    return [...this.#alive].map(({ pid }) => pid)
  }

  /** Workers that are alive and not asked to end, ready or booting. */
  get staying(): readonly WorkerHandle[] {
    return [...this.#alive].filter(({ retiredFor }) => retiredFor === null)
  }

  /** Every worker that has not ended, whatever it is asked for. */
  get alive(): readonly WorkerHandle[] {
    return [...this.#alive]
  }

  /** The port that all workers share; null before the first is ready. */
  get port(): number | null {
    return this.#port
  }

  /** Boots every worker; rejects with the first failure, and the rest is stopped by the caller. Idempotent. */
  start(): Promise<void> {
    this.#started ??= Promise.all(this.#replicas.map((replica) => this.#startReplica(replica))).then(() => {})
    // Whoever waits for it hears of it.
    this.#started.catch(() => {})
    return this.#started
  }

  /** A model that ends workers while they load it prevents no start: it is disabled before long. */
  async #startReplica(replica: Replica): Promise<void> {
    for (;;) {
      replica.wasModelFault = false
      try {
        await this.#spawn(replica)
        return
      } catch (thrown) {
        if (!replica.wasModelFault) throw thrown
      }
    }
  }

  /** Resolves when a new worker serves in the place; rejects with why it does not. Its later end is handled here. */
  async #spawn(replica: Replica): Promise<void> {
    if (this.#isStopping) throw new OnecopyError('SHUTTING_DOWN', 'the server is stopping')
    const handle = this.#fork(replica)
    replica.successor = handle
    this.#alive.add(handle)
    void handle.exited.then((exit) => this.#onExit(replica, handle, exit))
    await handle.ready
    void limitDataGrowth(handle.pid, workerGrowthBytes())
    try {
      await this.#options.onReady(handle)
    } catch (thrown) {
      handle.kill(new OnecopyError('WORKER_BOOT_FAILED', messageOf(thrown), { cause: thrown }))
      throw thrown
    }
    // It can have ended meanwhile: its exit was handled then.
    if (!this.#alive.has(handle)) throw new OnecopyError('WORKER_GONE', `worker ${handle.id} ended meanwhile`)
    replica.successor = null
    replica.worker = handle
    replica.failedBoots = 0
    replica.isStarting = false
    this.#mend(replica)
    this.#port = handle.port
    this.#options.log.debug({ worker: handle.id, workerPid: handle.pid }, 'worker ready')
    this.#drainStalled()
  }

  #fork(replica: Replica): WorkerHandle {
    const { fork = forkWorker, lease, stats, bootTimeoutMs, log } = this.#options
    const statsSlot = stats.lend()
    try {
      const handle: WorkerHandle = new WorkerHandle({
        ...{ statsSlot, fork },
        lease: (take) => lease((start) => take({ ...start, statsSlot })),
        inheritedRequests: stats.requestsIn(statsSlot),
        bootTimeoutMs,
        onLoad: (load) => this.#balance(handle.id, load),
        onStalled: (silentMs) => this.#onStalled(replica, handle, silentMs),
        running: () => stats.signs(statsSlot).running,
        takeOomKill: () => this.#oomKills.take(),
        hasOthers: () => this.ready.some((other) => other !== handle),
      })
      return handle
    } catch (thrown) {
      stats.giveBack(statsSlot)
      // One that could not even be started has no exit that would be handled.
      log.error({ err: thrown }, `a worker could not be started: ${messageOf(thrown)}`)
      replica.failedBoots++
      replica.crashes++
      if (this.#port !== null) this.#fillAgain(replica, messageOf(thrown))
      throw thrown
    }
  }

  /** Its requests are answered with 503 by itself from now on; the place is filled by another. */
  #onStalled(replica: Replica, handle: WorkerHandle, silentMs: number): void {
    const { stats, log, onModelFault } = this.#options
    const { running } = stats.signs(handle.statsSlot)
    log.error(
      {
        ...{ code: STALLED, worker: handle.id, workerPid: handle.pid, silentMs: Math.round(silentMs) },
        ...(running === null ? {} : { model: running.model, version: running.version }),
      },
      'the inference thread of a worker does not come back: its requests are answered with 503, it is replaced',
    )
    if (running !== null)
      replica.wasModelFault = onModelFault({
        ...{ model: running.model, version: running.version, cause: 'stall' },
        how: formatMs(Math.round(silentMs)),
      })
    // One that is on its way out has nobody to wait for.
    if (this.#isStopping || handle.retiredFor !== null) return
    handle.forsake(STALLED)
    if (replica.worker === handle) replica.worker = null
    // One for each replica: they take memory, and a core.
    replica.stalled?.kill()
    replica.stalled = handle
    this.#drainStalled()
    replica.crashes = handle.ageMs >= HEALTHY_AFTER_MS ? 0 : replica.crashes + 1
    if (replica.successor === null) this.#respawnLater(replica)
  }

  /** Has them end where others can answer: what comes is for these, what is inside gets its 503. */
  #drainStalled(): void {
    if (this.ready.length === 0) return
    for (const { stalled } of this.#replicas) void stalled?.drain(this.#options.drainTimeoutMs)
  }

  #mend(replica: Replica): void {
    for (const model of replica.faultyModels.splice(0)) this.#options.onModelFaultMended(model)
  }

  #balance(workerId: number, load: Load): void {
    if (this.#isStopping) return
    const ready = this.ready.map(({ id }) => id)
    const asked = this.#balancer.take({ workerId, load, ready, nowMs: performance.now() })
    for (const worker of this.ready.filter(({ id }) => asked.includes(id))) {
      this.#options.log.debug({ worker: worker.id }, 'asking the worker to give up a connection')
      worker.tell({ type: 'shed' })
    }
  }

  #onExit(replica: Replica, handle: WorkerHandle, exit: WorkerExit): void {
    const { stats, onModelFault } = this.#options
    const { end, running, how } = exit
    stats.giveBack(handle.statsSlot)
    this.#alive.delete(handle)
    if (replica.worker === handle) replica.worker = null
    if (replica.successor === handle) replica.successor = null
    if (replica.stalled === handle) replica.stalled = null
    if (this.#isStopping) return
    reportEnd(handle, exit, this.#options)
    replica.wasModelFault = false
    if (end === 'runtime fault' && running !== null) {
      const model = { model: running.model, version: running.version }
      replica.faultyModels.push(model)
      replica.wasModelFault = onModelFault({ ...model, cause: 'crash', how })
      // It was one too many: the place is filled.
      if (replica.worker !== null) this.#mend(replica)
    }
    if (handle.retiredFor !== null) return
    // There is nothing to mend yet: whoever starts it decides.
    if (replica.isStarting) return
    if (!replica.wasModelFault) {
      replica.failedBoots = exit.wasReady ? 0 : replica.failedBoots + 1
      replica.crashes = exit.livedMs >= HEALTHY_AFTER_MS || exit.how === 'code 0' ? 0 : replica.crashes + 1
    }
    this.#fillAgain(replica, exit.failure?.message ?? `it ended with ${exit.how}`)
  }

  #fillAgain(replica: Replica, why: string): void {
    // Somebody serves here, or is about to.
    if (replica.worker !== null || replica.successor !== null) return
    if (replica.failedBoots >= MAX_BOOT_FAILURES) this.#giveUp(replica, why)
    else this.#respawnLater(replica)
  }

  #giveUp({ failedBoots }: Replica, why: string): void {
    this.#options.onGivenUp(
      new OnecopyError(
        'WORKER_BOOT_FAILED',
        `a worker failed to start ${failedBoots} times in a row, the last time: ${why}`,
      ),
    )
  }

  #respawnLater(replica: Replica): void {
    const base =
      replica.crashes <= 1 || replica.wasModelFault ? 0 : FIRST_BACKOFF_MS * 2 ** (replica.crashes - 2)
    const delayMs = Math.min(base, LONGEST_BACKOFF_MS) * (0.5 + Math.random() / 2)
    clearTimeout(replica.respawnTimer)
    replica.respawnTimer = setTimeout(() => {
      if (replica.worker !== null || replica.successor !== null) return
      // Its failure is handled where it is found; here it would only be an unhandled rejection.
      this.#spawn(replica)
        .then(() => this.#options.onRecovered())
        .catch(() => {})
    }, delayMs)
  }

  /**
   * Replaces one worker without losing a request; `reason` is for logs and metrics. Waits its turn.
   * @throws OnecopyError when the successor does not boot: the old worker serves on.
   */
  replace(handle: WorkerHandle, reason: string): Promise<void> {
    const replica = this.#replicas.find(({ worker }) => worker === handle)
    if (replica === undefined || handle.retiredFor !== null) return Promise.resolve()
    return this.#replaceInTurn(replica, reason, (old) => old === handle)
  }

  /**
   * Replaces every worker, one at a time, and fills replicas that were given up. Asked for while it is being done,
   * it is done once more: workers that were replaced already are to be fresh as of now.
   */
  restart(reason: string): Promise<void> {
    if (this.#nextRestart !== undefined) return this.#nextRestart
    if (this.#restarting === undefined) {
      this.#restarting = this.#restart(reason).finally(() => {
        this.#restarting = undefined
      })
      return this.#restarting
    }
    const next = this.#restarting
      .catch(() => {})
      .then(() => {
        this.#nextRestart = undefined
        return this.restart(reason)
      })
    this.#nextRestart = next
    return next
  }

  async #restart(reason: string): Promise<void> {
    const before = new Set(this.#alive)
    for (const replica of this.#replicas) {
      if (this.#isStopping) return
      await this.#replaceInTurn(replica, reason, (old) => old === null || before.has(old))
    }
    this.#options.onRecovered()
  }

  /** `isMeant` tells about the one in the place by then: a fresh one that took a dead one's place need not be replaced. */
  #replaceInTurn(
    replica: Replica,
    reason: string,
    isMeant: (old: WorkerHandle | null) => boolean,
  ): Promise<void> {
    const mine = this.#lastReplacement.then(() => this.#replaceNow(replica, reason, isMeant))
    this.#lastReplacement = mine.catch(() => {})
    return mine
  }

  async #replaceNow(
    replica: Replica,
    reason: string,
    isMeant: (old: WorkerHandle | null) => boolean,
  ): Promise<void> {
    if (this.#isStopping || !isMeant(replica.worker)) return
    const booting = replica.successor
    if (booting !== null) {
      // A crashed worker's successor is on its way already, and is as new as can be.
      await booting.ready
      return
    }
    const old = replica.worker
    clearTimeout(replica.respawnTimer)
    if (old === null) {
      replica.failedBoots = 0
      replica.crashes = 0
    }
    await this.#spawn(replica)
    if (old === null) return
    old.retiredFor ??= reason
    await old.drain(this.#options.drainTimeoutMs)
  }

  /** Ends a worker that is no use any more, at once; its exit has it replaced. */
  condemn(handle: WorkerHandle, failure: OnecopyError): void {
    handle.kill(failure)
  }

  /** Lets every worker answer what it accepted, then end; kills what is left after `timeoutMs`. Idempotent. */
  drain(timeoutMs: number): Promise<{ readonly killed: number }> {
    this.#draining ??= this.#drain(timeoutMs)
    return this.#draining
  }

  async #drain(timeoutMs: number): Promise<{ readonly killed: number }> {
    this.#isStopping = true
    for (const { respawnTimer } of this.#replicas) clearTimeout(respawnTimer)
    const ended = await Promise.all([...this.#alive].map((handle) => handle.drain(timeoutMs)))
    return { killed: ended.filter(({ wasKilled }) => wasKilled).length }
  }

  /** Ends every worker at once. */
  kill(): void {
    this.#isStopping = true
    for (const { respawnTimer } of this.#replicas) clearTimeout(respawnTimer)
    for (const handle of this.#alive) handle.kill()
  }
}
