/**
 * A worker: one serving process, controlled by messages from the primary. It ends in one of three ways: the
 * primary drains it, it drains itself after the primary has died, or it exits after a bug. A worker with a
 * stalled inference thread reports the stall; the primary drains it as soon as other workers serve.
 */
import cluster, { type Worker } from 'node:cluster'
import { join } from 'node:path'
import { ClientCounts } from '../src/access/client-page.js'
import type { Engine } from '../src/engine/engine.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import { isIdle } from '../src/http/connections.js'
import type { VersionOutOfService } from '../src/inference/service.js'
import { withDeadline } from '../src/lifecycle.js'
import { createLog, type Log, logFormatOf } from '../src/log.js'
import { StatsPage, type StatsPageReference } from '../src/metrics/page.js'
import { ModelRecorder, ProcessRecorder } from '../src/metrics/recorder.js'
import { collectStartupGarbage } from '../src/process/collect-garbage.js'
import { Regions } from '../src/regions/regions.js'
import { removeFolder } from '../src/segment/folder.js'
import { ServingProcess } from '../src/server/server.js'
import type { SegmentToServe } from '../src/server/serving-options.js'
import { ControlLink } from './control-link.js'
import { EXIT } from './exit-codes.js'
import {
  type OutOfServiceMessage,
  type SecretsMessage,
  type SegmentMessage,
  type StartMessage,
  type ToPrimary,
  type ToWorker,
  ToWorkerSchema,
} from './messages.js'

/**
 * After a bug the state of the process is uncertain: requests in flight get this long, not --drain-timeout.
 */
const BUG_DRAIN_MS = 5000
const LOAD_REPORT_INTERVAL_MS = 100

function send(message: ToPrimary): Promise<void> {
  return new Promise((resolve) => {
    // A dead primary is detected by the disconnect event, not here.
    if (!process.connected) resolve()
    else process.send?.(message, undefined, undefined, () => resolve())
  })
}

class WorkerProcess {
  readonly #worker: Worker
  readonly #engine: Engine
  #log: Log = createLog({ level: 'info', role: 'worker', format: logFormatOf('auto') })
  #start: StartMessage | undefined
  #serving: ServingProcess | undefined
  #booting: Promise<void> | undefined
  #serviceTurn: Promise<void> = Promise.resolve()
  /** Secrets that arrived while the worker boots. */
  #renewed: SecretsMessage | undefined
  #control: ControlLink | undefined
  /** Whether the garbage of the start was collected, which waits until the worker is idle. */
  #isCollected = false
  #wasIdle = true
  #isEnding = false

  constructor(worker: Worker, engine: Engine) {
    this.#worker = worker
    this.#engine = engine
  }

  listen(): void {
    // The terminal signals the whole process group; the primary decides how to react.
    for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => {})
    process.on('SIGTERM', () => void this.#end({ exitCode: 0, timeoutMs: this.#drainTimeoutMs }))
    process.on('message', (message) => void this.#receive(message))
    this.#worker.on('disconnect', () => void this.#survivePrimary())
    void send({ type: 'hello' })
  }

  get #drainTimeoutMs(): number {
    return this.#start?.config.drainTimeoutMs ?? 0
  }

  async #receive(raw: unknown): Promise<void> {
    const message = ToWorkerSchema.parse(raw)
    if (message.type === 'start') {
      this.#booting = this.#boot(message)
      await this.#booting
    } else if (message.type === 'drain') await this.#end({ exitCode: 0, timeoutMs: this.#drainTimeoutMs })
    else if (message.type === 'shed') this.#serving?.connections.shed()
    else if (message.type === 'secrets') this.#renew(message.secrets)
    else if (message.type === 'controlled') this.#control?.take(message.id, message)
    else if (message.type === 'logLevel') this.#log.level = message.level
    else if (message.type === 'takeOut' || message.type === 'putBack') await this.#serveOrNot(message)
    else await this.#answer(message)
  }

  /** Loads or switches generations and reports the outcome. */
  async #answer(message: Extract<ToWorker, { type: 'prepare' | 'change' }>): Promise<void> {
    let problem: Extract<ToPrimary, { type: 'done' }>['problem'] = null
    try {
      if (message.type === 'change') this.#serving?.change(message)
      else await this.#serving?.prepare(await this.#withCounts(message.segment))
    } catch (thrown) {
      // A bug ends the worker instead of being reported as a failure.
      if (!(thrown instanceof OnecopyError)) {
        this.#onBug(thrown)
        return
      }
      problem = { code: thrown.code, message: thrown.message }
    }
    await send({ type: 'done', id: message.id, problem })
  }

  async #cellsOf(page: StatsPageReference): Promise<Float64Array> {
    return (await StatsPage.open(page)).slot(this.#start?.statsSlot ?? 0)
  }

  async #withCounts(segment: SegmentMessage): Promise<SegmentToServe> {
    const statsPage = await StatsPage.open(segment.stats)
    return { ...segment, statsPage, counts: new ModelRecorder(statsPage.slot(this.#start?.statsSlot ?? 0)) }
  }

  /** Applies messages in the order of arrival, so the last one wins. */
  async #serveOrNot(message: Extract<ToWorker, { type: 'takeOut' | 'putBack' }>): Promise<void> {
    this.#serviceTurn = this.#serviceTurn.then(async () => {
      await this.#booting
      if (message.type === 'putBack') this.#serving?.putBack(message)
      else this.#serving?.takeOut(await this.#withRecorder(message.version))
    })
    await this.#serviceTurn
  }

  async #withRecorder(version: OutOfServiceMessage): Promise<VersionOutOfService> {
    return { ...version, counts: new ModelRecorder(await this.#cellsOf(version.stats)) }
  }

  #renew(secrets: SecretsMessage): void {
    this.#renewed = secrets
    this.#serving?.renew(secrets)
  }

  async #clientCounts({ clients, statsSlot }: StartMessage): Promise<ClientCounts | null> {
    if (clients === null) return null
    const page = await StatsPage.open(clients.page)
    return new ClientCounts({ own: page.slot(statsSlot), all: page.allSlots(), secret: clients.secret })
  }

  async #boot(start: StartMessage): Promise<void> {
    this.#start = start
    this.#log = createLog({ level: start.config.logLevel, role: 'worker', format: start.config.logFormat })
    const { repositoryApi, modelControl } = start.config
    if (repositoryApi === 'public')
      this.#control = new ControlLink({ isExplicit: modelControl === 'explicit', send })
    try {
      await this.#engine.reportTo(start.processStats, start.statsSlot)
      this.#serving = await ServingProcess.start({
        config: start.config,
        segments: await Promise.all(start.segments.map((segment) => this.#withCounts(segment))),
        outOfService: await Promise.all(start.outOfService.map((version) => this.#withRecorder(version))),
        bundle: start.bundle,
        serverFolder: start.serverFolder,
        self: new ProcessRecorder(await this.#cellsOf(start.processStats)),
        unknownModel: new ModelRecorder(await this.#cellsOf(start.unknownStats)),
        secrets: start.secrets,
        clientCounts: await this.#clientCounts(start),
        identity: start.identity,
        engine: this.#engine,
        regions: start.config.systemSharedMemory ? new Regions(join(start.serverFolder, 'regions')) : null,
        control: this.#control ?? null,
        log: this.#log,
        onBug: (error) => this.#onBug(error),
        onStalled: (silentMs) => void send({ type: 'stalled', silentMs }),
        onUnloaded: (key) => void send({ type: 'unloaded', key }),
      })
      if (this.#renewed !== undefined) this.#serving.renew(this.#renewed)
      await send({ type: 'ready', port: this.#serving.port, failed: this.#serving.failed })
      setInterval(() => this.#reportLoad(), LOAD_REPORT_INTERVAL_MS).unref()
    } catch (thrown) {
      const code = thrown instanceof OnecopyError ? thrown.code : 'WORKER_BOOT_FAILED'
      await send({ type: 'failed', code, message: messageOf(thrown) })
      process.exit(EXIT.failed)
    }
  }

  /** An idle worker sends one final report and then none. */
  #reportLoad(): void {
    if (this.#serving === undefined || this.#isEnding) return
    const load = this.#serving.connections.takeLoad()
    if (!this.#wasIdle || !isIdle(load)) void send({ type: 'load', load })
    this.#wasIdle = isIdle(load)
    if (this.#wasIdle && !this.#isCollected) {
      this.#isCollected = true
      void collectStartupGarbage()
    }
  }

  #onBug(error: unknown): void {
    this.#log.fatal({ err: error }, 'bug: this worker exits')
    void this.#end({ exitCode: EXIT.bug, timeoutMs: BUG_DRAIN_MS })
  }

  /** The primary has died: nothing restarts or cleans up. Drain, remove the server's folder and exit. */
  async #survivePrimary(): Promise<void> {
    // Node would otherwise exit immediately, with requests in flight.
    this.#worker.exitedAfterDisconnect = true
    this.#control?.abandon()
    if (this.#start !== undefined) await removeFolder(this.#start.serverFolder)
    if (this.#isEnding) return
    this.#log.error('lost the primary: draining')
    await this.#end({ exitCode: 0, timeoutMs: this.#drainTimeoutMs })
  }

  async #end({ exitCode, timeoutMs }: { exitCode: number; timeoutMs: number }): Promise<void> {
    if (this.#isEnding) return
    this.#isEnding = true
    let code = exitCode
    if (this.#serving !== undefined) {
      try {
        await withDeadline(this.#serving.drain(), timeoutMs, 'accepted requests to be answered')
      } catch (thrown) {
        this.#log.error({ err: thrown }, messageOf(thrown))
        code = exitCode === 0 ? 1 : exitCode
      }
    }
    // A regular exit while the runtime computes would abort the process.
    if (this.#serving?.isThreadBusy === true) process.kill(process.pid, 'SIGKILL')
    process.exit(code)
  }
}

/** The caller creates `engine` before it loads this module: its thread takes time to start. */
export function runWorker(engine: Engine): void {
  const { worker } = cluster
  if (worker === undefined) throw new Error('expected to run as a cluster worker')
  new WorkerProcess(worker, engine).listen()
}
