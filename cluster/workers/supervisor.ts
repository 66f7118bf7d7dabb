/**
 * Keeps the workers running. One function, `#spawn`, starts every worker: at startup, after a crash, and to
 * replace a serving one. A worker that dies is replaced after a back-off, which grows while its replacements
 * die early. After too many consecutive failed boots the server stops trying and is not ready; the reason is
 * reported. A worker that a model crashed is replaced immediately, without back-off, because the circuit
 * breaker (breaker.ts) disables the model.
 *
 * Replacing a serving worker: the replacement boots next to it, and the old worker drains once the
 * replacement is ready. Replacements run one at a time, so there is at most one extra worker.
 *
 * A worker with a stalled inference thread reports it and is replaced immediately. It answers 503 until
 * another worker is ready, then drains and exits.
 */
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { Load } from '../../src/http/connections.js'
import { limitDataGrowth } from '../../src/process/data-limit.js'
import { workerGrowthBytes } from '../../src/process/memory.js'
import { OomKills } from '../../src/process/oom-kills.js'
import { formatMs } from '../../src/units.js'
import { Balancer } from './balance.js'
import { startInOrder } from './boot-order.js'
import { reportEnd } from './end-report.js'
import { forkWorker } from './fork-worker.js'
import { newReplica, type Replica } from './replica.js'
import type { SupervisorOptions } from './supervisor-options.js'
import { type WorkerExit, WorkerHandle } from './worker-handle.js'

const FIRST_BACKOFF_MS = 50
const LONGEST_BACKOFF_MS = 10_000
/** A worker that lived this long was healthy: its crash resets the back-off. */
const HEALTHY_AFTER_MS = 2000
const MAX_BOOT_FAILURES = 5
/** Reason in metrics and logs for a worker with a stalled inference thread. */
const STALLED = 'WORKER_STALLED'

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
  /** Settles when the last requested replacement is done. */
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

  /** Every live worker process. */
  get pids(): readonly number[] {
    return [...this.#alive].map(({ pid }) => pid)
  }

  /** Live workers that are not retiring, ready or booting. */
  get active(): readonly WorkerHandle[] {
    return [...this.#alive].filter(({ retiredFor }) => retiredFor === null)
  }

  /** Every live worker, including those that are retiring. */
  get alive(): readonly WorkerHandle[] {
    return [...this.#alive]
  }

  /** The port that all workers share; null until the first worker is ready. */
  get port(): number | null {
    return this.#port
  }

  /**
   * Boots every worker, at most `concurrentBoots` at a time. Rejects with the first failure; the
   * caller then stops the rest. Idempotent.
   */
  start(): Promise<void> {
    this.#started ??= this.#startReplicas()
    // Prevents an unhandled rejection; the caller awaits the same promise.
    this.#started.catch(() => {})
    return this.#started
  }

  async #startReplicas(): Promise<void> {
    const { concurrentBoots } = this.#options
    await startInOrder(this.#replicas, concurrentBoots, (replica) => this.#startReplica(replica))
  }

  /**
   * Two failures do not fail the start: a model that ends workers while they load it, because the breaker
   * disables it, and a free port that another process has taken, because another is chosen.
   */
  async #startReplica(replica: Replica): Promise<void> {
    for (;;) {
      replica.wasModelFault = false
      try {
        await this.#spawn(replica)
        return
      } catch (thrown) {
        if (!replica.wasModelFault && !(await this.#hasOtherPorts(replica, thrown))) throw thrown
      }
    }
  }

  async #hasOtherPorts({ ports }: Replica, failure: unknown): Promise<boolean> {
    const { log, replacePorts } = this.#options
    const isTaken = failure instanceof OnecopyError && failure.code === 'ADDRESS_UNAVAILABLE'
    if (!isTaken || ports === null || this.#port !== null) return false
    return await replacePorts(ports, () => {
      log.info({ ...ports }, 'another process has taken a port that was free: choosing another')
      // No worker may listen on the old ports.
      for (const other of this.#alive) other.kill(failure)
    })
  }

  /**
   * Resolves when a new worker serves in the replica; rejects if it fails to boot. `#onExit` handles its
   * later end.
   */
  async #spawn(replica: Replica): Promise<void> {
    if (this.#isStopping) throw new OnecopyError('SHUTTING_DOWN', 'the server is stopping')
    const handle = this.#fork(replica)
    replica.replacement = handle
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
    // It may have ended during `onReady`; `#onExit` has handled that.
    if (!this.#alive.has(handle)) throw new OnecopyError('WORKER_GONE', `worker ${handle.id} has ended`)
    replica.replacement = null
    replica.worker = handle
    replica.failedBoots = 0
    replica.isStarting = false
    this.#reportReplaced(replica)
    this.#port = handle.port
    this.#options.log.debug({ worker: handle.id, workerPid: handle.pid }, 'worker ready')
    this.#drainStalled()
  }

  #fork(replica: Replica): WorkerHandle {
    const { fork = forkWorker, lease, stats, bootTimeoutMs, log } = this.#options
    const statsSlot = stats.acquireSlot()
    try {
      const handle: WorkerHandle = new WorkerHandle({
        ...{ statsSlot, fork },
        lease: (take) =>
          lease((start) => {
            replica.ports = { port: start.config.port, grpcPort: start.config.grpcPort }
            take({ ...start, statsSlot })
          }),
        inheritedRequests: stats.requestsIn(statsSlot),
        bootTimeoutMs,
        onLoad: (load) => this.#balance(handle.id, load),
        onStalled: (silentMs) => this.#onStalled(replica, handle, silentMs),
        running: () => stats.stateOf(statsSlot).running,
        takeOomKill: () => this.#oomKills.take(),
        hasOthers: () => this.ready.some((other) => other !== handle),
      })
      return handle
    } catch (thrown) {
      stats.releaseSlot(statsSlot)
      // Without a process there is no exit event to handle.
      log.error({ err: thrown }, `could not start a worker: ${messageOf(thrown)}`)
      replica.failedBoots++
      replica.crashes++
      if (this.#port !== null) this.#refill(replica, messageOf(thrown))
      throw thrown
    }
  }

  /** The stalled worker answers 503 from now on; another worker takes over its replica. */
  #onStalled(replica: Replica, handle: WorkerHandle, silentMs: number): void {
    const { stats, log, onModelFault } = this.#options
    const { running } = stats.stateOf(handle.statsSlot)
    log.error(
      {
        ...{ code: STALLED, worker: handle.id, workerPid: handle.pid, silentMs: Math.round(silentMs) },
        ...(running === null ? {} : { model: running.model, version: running.version }),
      },
      'the inference thread of a worker is stalled: the worker answers 503 and is replaced',
    )
    if (running !== null)
      replica.wasModelFault = onModelFault({
        ...{ model: running.model, version: running.version, cause: 'stall' },
        how: formatMs(Math.round(silentMs)),
      })
    // A retiring worker is already replaced.
    if (this.#isStopping || handle.retiredFor !== null) return
    handle.abandon(STALLED)
    if (replica.worker === handle) replica.worker = null
    // At most one stalled worker per replica: each takes memory and one core.
    replica.stalled?.kill()
    replica.stalled = handle
    this.#drainStalled()
    replica.crashes = handle.ageMs >= HEALTHY_AFTER_MS ? 0 : replica.crashes + 1
    if (replica.replacement === null) this.#respawnLater(replica)
  }

  /** Drains stalled workers once another worker can serve; their requests in flight get 503. */
  #drainStalled(): void {
    if (this.ready.length === 0) return
    for (const { stalled } of this.#replicas) void stalled?.drain(this.#options.drainTimeoutMs)
  }

  #reportReplaced(replica: Replica): void {
    for (const model of replica.faultyModels.splice(0)) this.#options.onFaultyWorkerReplaced(model)
  }

  #balance(workerId: number, load: Load): void {
    if (this.#isStopping) return
    const ready = this.ready.map(({ id }) => id)
    const relieved = this.#balancer.take({ workerId, load, ready, nowMs: performance.now() })
    for (const worker of this.ready.filter(({ id }) => relieved.includes(id))) {
      this.#options.log.debug({ worker: worker.id }, 'asking the worker to close a connection')
      worker.send({ type: 'shed' })
    }
  }

  #onExit(replica: Replica, handle: WorkerHandle, exit: WorkerExit): void {
    const { stats, onModelFault } = this.#options
    const { end, running, how } = exit
    stats.releaseSlot(handle.statsSlot)
    this.#alive.delete(handle)
    if (replica.worker === handle) replica.worker = null
    if (replica.replacement === handle) replica.replacement = null
    if (replica.stalled === handle) replica.stalled = null
    if (this.#isStopping) return
    reportEnd(handle, exit, this.#options)
    replica.wasModelFault = false
    if (end === 'runtime fault' && running !== null) {
      const model = { model: running.model, version: running.version }
      replica.faultyModels.push(model)
      replica.wasModelFault = onModelFault({ ...model, cause: 'crash', how })
      // The replica already has a serving worker.
      if (replica.worker !== null) this.#reportReplaced(replica)
    }
    if (handle.retiredFor !== null) return
    // During startup, `#startReplica` decides what happens next.
    if (replica.isStarting) return
    if (!replica.wasModelFault) {
      replica.failedBoots = exit.wasReady ? 0 : replica.failedBoots + 1
      replica.crashes = exit.livedMs >= HEALTHY_AFTER_MS || exit.how === 'code 0' ? 0 : replica.crashes + 1
    }
    this.#refill(replica, exit.failure?.message ?? `it ended with ${exit.how}`)
  }

  #refill(replica: Replica, why: string): void {
    // A worker serves here or is booting.
    if (replica.worker !== null || replica.replacement !== null) return
    if (replica.failedBoots >= MAX_BOOT_FAILURES) this.#reportBootLimit(replica, why)
    else this.#respawnLater(replica)
  }

  #reportBootLimit({ failedBoots }: Replica, why: string): void {
    this.#options.onBootLimitReached(
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
      if (replica.worker !== null || replica.replacement !== null) return
      // `#fork` and `#onExit` handle failures; this only prevents an unhandled rejection.
      this.#spawn(replica)
        .then(() => this.#options.onRecovered())
        .catch(() => {})
    }, delayMs)
  }

  /**
   * Replaces one worker without losing a request, after replacements already queued. `reason` is for logs and
   * metrics.
   * @throws OnecopyError if the replacement does not boot: the old worker continues to serve.
   */
  replace(handle: WorkerHandle, reason: string): Promise<void> {
    const replica = this.#replicas.find(({ worker }) => worker === handle)
    if (replica === undefined || handle.retiredFor !== null) return Promise.resolve()
    return this.#queueReplacement(replica, reason, (old) => old === handle)
  }

  /**
   * Replaces every worker, one at a time, and restarts replicas that reached the boot limit. A call during a
   * restart queues one more restart: all workers must be newer than the call.
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
      await this.#queueReplacement(replica, reason, (old) => old === null || before.has(old))
    }
    this.#options.onRecovered()
  }

  /**
   * `mustReplace` gets the worker at that time: a worker that crashed and was replaced need not be replaced
   * again.
   */
  #queueReplacement(
    replica: Replica,
    reason: string,
    mustReplace: (old: WorkerHandle | null) => boolean,
  ): Promise<void> {
    const replacement = this.#lastReplacement.then(() => this.#replaceNow(replica, reason, mustReplace))
    this.#lastReplacement = replacement.catch(() => {})
    return replacement
  }

  async #replaceNow(
    replica: Replica,
    reason: string,
    mustReplace: (old: WorkerHandle | null) => boolean,
  ): Promise<void> {
    if (this.#isStopping || !mustReplace(replica.worker)) return
    const booting = replica.replacement
    if (booting !== null) {
      // The replacement of a crashed worker is booting, and is new enough.
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

  /** Kills an unusable worker; its exit triggers the replacement. */
  discard(handle: WorkerHandle, failure: OnecopyError): void {
    handle.kill(failure)
  }

  /** Drains every worker. Kills those still alive after `timeoutMs`. Idempotent. */
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

  /** Kills every worker. */
  kill(): void {
    this.#isStopping = true
    for (const { respawnTimer } of this.#replicas) clearTimeout(respawnTimer)
    for (const handle of this.#alive) handle.kill()
  }
}
