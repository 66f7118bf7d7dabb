/**
 * The primary process: it starts and stops the server and never runs a model. `#stop` releases what `#start`
 * acquired, in reverse order, and the segments last.
 */

import { rmSync } from 'node:fs'
import { adminTokenDigest } from '../src/access/api-keys.js'
import type { Config } from '../src/config/config.js'
import { messageOf, type OnecopyError } from '../src/errors.js'
import { writeResidentNote } from '../src/ersilia/resident.js'
import type { ServerIdentity } from '../src/http/routes/health.js'
import type { SocketFile } from '../src/http/unix-socket.js'
import type { OwnerServer } from '../src/library/owner-server.js'
import { Lifecycle } from '../src/lifecycle.js'
import { createLog, type Log } from '../src/log.js'
import { usableCpus } from '../src/process/cpus.js'
import { cgroupMemoryLimit } from '../src/process/memory.js'
import { runtimeVersion } from '../src/runtime/identity.js'
import { createServerFolder, removeFolder, type ServerFolder } from '../src/segment/folder.js'
import { MemoryBudget } from '../src/sharing/memory-budget.js'
import { AdminServer, localFolders } from './admin/admin.js'
import { FleetMetrics } from './admin/metrics.js'
import { Secrets } from './admin/secrets.js'
import { chooseSocket } from './choose-socket.js'
import { ControlServer } from './control-server.js'
import { EXIT } from './exit-codes.js'
import type { SecretsMessage } from './messages.js'
import { startOwner } from './models/attachable.js'
import { type InitialModels, residentNote, resolveInitialModels } from './models/bundles.js'
import { Catalogue } from './models/catalogue.js'
import { createBreakers } from './models/disabled-models.js'
import { publishInitialModels } from './models/initial-models.js'
import { modelDirectory } from './models/model-directory.js'
import { Publisher } from './models/publisher.js'
import { RepositoryControl } from './models/repository-control.js'
import { requireAllInService } from './models/service-states.js'
import { ServingPorts } from './port.js'
import { notReadyReason, reportFailure, reportReady, warnIfOnDisk } from './ready-report.js'
import type { Breakers } from './workers/breaker.js'
import { workerForker } from './workers/fork-worker.js'
import { FleetStats } from './workers/stats.js'
import { Supervisor } from './workers/supervisor.js'
import { Watch } from './workers/watch.js'

export class Primary {
  readonly #config: Config
  readonly #identity: ServerIdentity
  /** Whether an application started the server: it then prints nothing and ignores other workers. */
  readonly #isEmbedded: boolean
  readonly #log: Log
  readonly #lifecycle = new Lifecycle()
  readonly #stopRequested = new AbortController()
  readonly #metrics: FleetMetrics
  readonly #breakers: Breakers
  #serverFolder: ServerFolder | undefined
  readonly #budget: MemoryBudget
  #catalogue: Catalogue | undefined
  #repository: RepositoryControl | undefined
  #secrets: Secrets | undefined
  #admin: AdminServer | undefined
  #stats: FleetStats | undefined
  readonly #control: ControlServer
  #supervisor: Supervisor | undefined
  #watch: Watch | undefined
  #failure: string | null = null
  #hasFailedToStart = false
  #initial: InitialModels | undefined
  /** Null without a Unix socket. */
  #socket: SocketFile | null = null
  #ports: ServingPorts | null = null
  #owner: OwnerServer | null = null
  #stopped: Promise<number> | undefined

  constructor(config: Config, version: string, { isEmbedded = false } = {}) {
    this.#config = config
    this.#isEmbedded = isEmbedded
    this.#identity = { name: 'onecopy', version }
    this.#log = createLog({ level: config.logLevel, role: 'primary', format: config.logFormat })
    this.#budget = new MemoryBudget({ limitBytes: cgroupMemoryLimit(), workers: config.workers })
    this.#control = new ControlServer({
      ...{ config, log: this.#log, repository: () => this.#repository },
      ...{ serverState: () => this.#lifecycle.state, workers: () => this.#supervisor?.alive ?? [] },
    })
    this.#breakers = createBreakers({
      ...{ config: config.breaker, log: this.#log, catalogue: () => this.#catalogue },
      onFailure: (model, cause) => this.#metrics.modelFailed(model, cause),
    })
    this.#metrics = new FleetMetrics({
      ready: () => this.#supervisor?.ready ?? [],
      published: () => this.#catalogue?.published ?? [],
      generations: () => this.#catalogue?.generations ?? [],
      outOfService: () => this.#catalogue?.outOfService ?? [],
      stats: () => this.#stats,
      invalidEntries: () => this.#repository?.invalidEntries ?? 0,
      isDisabled: (model) => this.#breakers.disabled(model) !== null,
      certificateExpirySeconds: () => this.#secrets?.certificateExpirySeconds ?? null,
      workers: config.workers,
      aliases: config.metricsAliases,
      buildInfo: { version, runtimeVersion: runtimeVersion() },
    })
  }

  /** @throws OnecopyError if the configuration or a model is invalid; `stop` then closes what is open. */
  async start(): Promise<void> {
    const config = this.#config
    this.#secrets = await Secrets.read({
      ...{ config, log: this.#log },
      onRenewed: (renewed) => this.#onSecretsRenewed(renewed),
    })
    const initial = await resolveInitialModels(config, this.#log)
    this.#initial = initial
    this.#budget.reserveInWorkers(initial.workerBytes)
    const publisher = new Publisher({
      ...{ config, log: this.#log, budget: this.#budget },
      signal: this.#stopRequested.signal,
      reservedBytes: () => this.#catalogue?.releasedBytes ?? 0,
    })
    const leftovers = await publisher.findLeftovers(initial.sources)
    this.#serverFolder = await createServerFolder(config.segmentDir)
    await warnIfOnDisk(config.segmentDir, this.#log)
    this.#socket = await chooseSocket(config, this.#serverFolder.path)
    if (config.isHttp) this.#admin = await this.#startAdmin(this.#secrets)
    // At most one replica at a time has an old and a new worker; stalls and crashes need more slots.
    this.#stats = await FleetStats.create({
      folder: this.#serverFolder.path,
      slots: config.workers * 3 + 2,
      areClientsLimited: config.rateLimit !== null || config.maxClientRequests > 0,
    })
    this.#catalogue = this.#createCatalogue(publisher, this.#serverFolder, this.#stats)
    const supervisor = await this.#createSupervisor(
      this.#serverFolder,
      this.#stats,
      this.#catalogue,
      this.#secrets,
    )
    this.#supervisor = supervisor
    const repository = new RepositoryControl({
      modelPaths: config.only === null ? config.modelPaths : null,
      ...{ catalogue: this.#catalogue, log: this.#log },
    })
    await publishInitialModels(initial, {
      ...{ publisher, leftovers, repository },
      ...{ catalogue: this.#catalogue, server: this.#serverFolder },
      // During the compilation if memory suffices for both, else while segments are written.
      onRoomForWorkers: () => void supervisor.start(),
    })
    // Keeps segments complete between the boots of two workers.
    const release = await this.#catalogue.lease(() => {})
    await supervisor.start().finally(release)
    if (!initial.isTolerant) requireAllInService(this.#catalogue.outOfService)
    this.#watch = new Watch({ ...config, supervisor, stats: this.#stats, log: this.#log })
    if (this.#stopRequested.signal.aborted) return
    this.#repository = repository
    if (config.modelControl === 'watch') await repository.watch()
    const { path: serverFolder } = this.#serverFolder
    this.#owner = await startOwner({
      ...config,
      serverFolder,
      initial,
      log: this.#log,
      catalogue: this.#catalogue,
    })
    const note = residentNote(initial, this.#socket?.path ?? null)
    await writeResidentNote(this.#serverFolder.path, note)
    this.#lifecycle.move('ready')
    reportReady({
      isPrinted: !this.#isEmbedded,
      ...{ config: this.#config, log: this.#log, port: this.#supervisor?.port ?? 0 },
      ...{ adminPort: this.#admin?.port ?? 0, grpcPort: this.#ports?.current.grpcPort ?? null },
      hasTls: this.#secrets?.current.tls != null,
      socketPath: this.#socket?.path ?? null,
      published: this.#catalogue?.published ?? [],
    })
  }

  /** Starts the shutdown. Also ends a start that waits for its workers. */
  beginToStop(): void {
    if (this.#stopRequested.signal.aborted) return
    if (this.#lifecycle.state !== 'draining') this.#lifecycle.move('draining')
    this.#stopRequested.abort()
    void this.#supervisor?.drain(this.#config.drainTimeoutMs)
  }

  /** Closes everything; resolves with the exit code. Idempotent. */
  stop(): Promise<number> {
    if (this.#lifecycle.state !== 'draining' && this.#stopped === undefined) this.#lifecycle.move('draining')
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  /** Reports a failed start. On a terminal, this stays the last line. */
  reportFailedStart(thrown: unknown): void {
    this.#hasFailedToStart = true
    reportFailure(thrown, { log: this.#log, format: this.#config.logFormat })
  }

  get isStopping(): boolean {
    return this.#stopRequested.signal.aborted
  }

  get log(): Log {
    return this.#log
  }

  /** 0 if it serves on no port. */
  get port(): number {
    return this.#supervisor?.port ?? 0
  }

  /** 0 if it serves on no port. */
  get adminPort(): number {
    return this.#admin?.port ?? 0
  }

  /** Replaces every worker, one at a time. @throws OnecopyError on failure: old workers keep serving. */
  async restartWorkers(reason: string): Promise<void> {
    await this.#supervisor?.restart(reason)
  }

  reloadSecrets(): void {
    void this.#secrets?.reload()
  }

  #onSecretsRenewed(renewed: SecretsMessage): void {
    const { adminTls } = this.#secrets ?? {}
    if (adminTls) this.#admin?.renew(adminTls)
    for (const worker of this.#supervisor?.active ?? []) worker.renew(renewed)
  }

  async #startAdmin(secrets: Secrets): Promise<AdminServer> {
    const config = this.#config
    return await AdminServer.start({
      ...{ host: config.adminHost, port: config.adminPort, allowedHosts: config.adminAllowedHosts },
      ...{ log: this.#log, identity: this.#identity },
      notReadyReason: () => this.#notReadyReason(),
      keyring: secrets.keyring,
      tls: secrets.adminTls,
      docsVersion: config.hasDocs ? this.#identity.version : null,
      control: this.#control,
      models: modelDirectory({
        ...{ config, catalogue: () => this.#catalogue, stats: () => this.#stats },
        readyWorkers: () => this.#supervisor?.ready.length ?? 0,
      }),
      isDraining: () => this.#lifecycle.state === 'draining',
      ...{ repositoryApi: config.repositoryApi, isTracing: config.otlpEndpoint !== '' },
      publicPort: () => this.#supervisor?.port ?? null,
      localFolders: localFolders(config, this.#serverFolder),
      restart: () => this.beginRestart('restart requested'),
      metrics: async () => ({ contentType: this.#metrics.contentType, text: await this.#metrics.scrape() }),
    })
  }

  /** A start fails if another server has the path; later, the error is only logged. */
  async #publishSocket(): Promise<void> {
    try {
      await this.#socket?.publish()
    } catch (thrown) {
      if (this.#lifecycle.state === 'starting') throw thrown
      this.#log.error({ err: thrown }, messageOf(thrown))
    }
  }

  #createCatalogue(publisher: Publisher, server: ServerFolder, stats: FleetStats): Catalogue {
    const { bootTimeoutMs, drainTimeoutMs } = this.#config
    return new Catalogue({
      stats,
      log: this.#log,
      publish: (source, choices) => publisher.publishOne(source, server, choices),
      release: (folderName) => this.#budget.release(folderName),
      processes: () => this.#supervisor?.pids ?? [],
      workers: () => this.#supervisor?.active ?? [],
      allWorkers: () => this.#supervisor?.alive ?? [],
      discard: (worker, failure) => this.#supervisor?.discard(worker, failure),
      onChange: ({ name: model, version }, outcome) => {
        this.#metrics.modelChanged({ model, version }, outcome)
        if (outcome !== 'failed') this.#breakers.reset({ model, version })
        this.#owner?.changed()
      },
      prepareTimeoutMs: bootTimeoutMs,
      retireTimeoutMs: drainTimeoutMs,
    })
  }

  async #createSupervisor(
    server: ServerFolder,
    stats: FleetStats,
    catalogue: Catalogue,
    secrets: Secrets,
  ): Promise<Supervisor> {
    const { adminToken, apiKeys: _keys, ...shared } = this.#config
    this.#control.listen()
    const ports = await ServingPorts.choose(this.#config)
    this.#ports = ports
    const { isModelRequired, mounted } = this.#initial as InitialModels
    const addresses = {
      ...{ socketPath: this.#socket?.bindPath ?? '', adminPort: this.#admin?.port ?? 0 },
      adminTokenSha256: adminTokenDigest(adminToken),
    }
    return new Supervisor({
      ...{ workers: shared.workers, concurrentBoots: usableCpus() },
      fork: workerForker({ isEmbedded: this.#isEmbedded }),
      replacePorts: (taken, onReplace) => ports.replace(taken, onReplace),
      ...{ bootTimeoutMs: shared.bootTimeoutMs, drainTimeoutMs: shared.drainTimeoutMs },
      ...{ log: this.#log, stats },
      lease: (take) =>
        catalogue.lease((models) =>
          take({
            type: 'start',
            // The schema of the message drops the options that a worker does not need.
            config: { ...shared, ...addresses, ...ports.current, isModelRequired },
            bundle: mounted,
            identity: this.#identity,
            serverFolder: server.path,
            ...models,
            processStats: stats.processPage,
            unknownStats: stats.unknownPage,
            secrets: secrets.current,
            clients: stats.clients,
          }),
        ),
      onReady: async (worker) => {
        catalogue.workerReady(worker)
        this.#control.sendLevel(worker)
        await this.#publishSocket()
      },
      onModelFault: (fault) => this.#breakers.record(fault),
      onFaultyWorkerReplaced: (model) => this.#breakers.replaced(model),
      onEnded: (reason) => this.#metrics.workerEnded(reason),
      onBootLimitReached: (reason) => this.#reportBootLimit(reason),
      onRecovered: () => this.#recover(),
    })
  }

  /** Starts to replace every worker, one at a time. Returns the reason if it cannot, else null. */
  beginRestart(reason: string): string | null {
    const { state } = this.#lifecycle
    if (this.#supervisor === undefined || (state !== 'ready' && state !== 'failed'))
      return `the server is ${state}`
    this.#log.info({ reason }, 'replacing every worker')
    this.#supervisor.restart(reason).then(
      () => this.#log.info({ reason }, 'every worker was replaced'),
      (thrown) => this.#log.error({ reason, err: thrown }, `workers were not replaced: ${messageOf(thrown)}`),
    )
    return null
  }

  #reportBootLimit(reason: OnecopyError): void {
    if (this.#lifecycle.state === 'draining') return
    this.#log.fatal({ code: reason.code }, reason.message)
    this.#failure = reason.message
    this.#lifecycle.move('failed')
  }

  #recover(): void {
    if (this.#lifecycle.state !== 'failed') return
    this.#failure = null
    this.#lifecycle.move('ready')
  }

  #notReadyReason(): string | null {
    return notReadyReason({
      ...{ state: this.#lifecycle.state, failure: this.#failure },
      readyWorkers: () => this.#supervisor?.ready.length,
      isServing: () => this.#catalogue?.isServing(this.#initial?.isModelRequired ?? false),
    })
  }

  /** Releases what `#start` acquired, in reverse order. The segments come last. */
  async #stop(): Promise<number> {
    let exitCode = 0
    this.#watch?.close()
    this.#breakers.close()
    await this.#repository?.close()
    if (this.#supervisor !== undefined) {
      const { killed } = await this.#supervisor.drain(this.#config.drainTimeoutMs)
      if (killed > 0) {
        this.#log.error({ killed }, 'workers were killed: --drain-timeout passed')
        exitCode = EXIT.failed
      }
    }
    await this.#owner?.close()
    await this.#admin?.close()
    await this.#catalogue?.close()
    this.#secrets?.close()
    await this.#socket?.remove()
    if (this.#serverFolder !== undefined) await removeFolder(this.#serverFolder.path)
    this.#lifecycle.move('closed')
    // On a terminal, the reason for a failed start stays the last line.
    if (!this.#hasFailedToStart || this.#config.logFormat === 'json') this.#log.info('stopped')
    return exitCode
  }

  /** Ends without waiting, but still cleans up. */
  endImmediately(): void {
    this.#supervisor?.kill()
    this.#socket?.removeNow()
    if (this.#serverFolder !== undefined) rmSync(this.#serverFolder.path, { recursive: true, force: true })
  }
}
