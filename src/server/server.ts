/**
 * One serving process, assembled from the modules: attach the segments, load them into the
 * inference thread, serve HTTP, drain. It does not know whether there are other serving processes.
 */
import { Keyring } from '../access/api-keys.js'
import { Batcher } from '../batch/batcher.js'
import type { JobResult } from '../batch/job.js'
import { withoutDefaults } from '../compile/without-defaults.js'
import type { ServingConfig } from '../config/config.js'
import { standardOtlpEndpoint } from '../config/defence-options.js'
import type { Engine } from '../engine/engine.js'
import { LivenessReporter } from '../engine/liveness.js'
import { LONGEST_LOAD_MS } from '../engine/placement.js'
import { OnecopyError, outOfServiceBecauseOf, outOfServiceError } from '../errors.js'
import { BundleMount } from '../ersilia/mount.js'
import { createApp } from '../http/app.js'
import { Connections } from '../http/connections.js'
import type { HttpContext } from '../http/context.js'
import { LargeExchanges } from '../http/large-exchanges.js'
import { endTracing, startTracing } from '../http/observe/start-tracing.js'
import type { Tracing } from '../http/observe/tracing.js'
import { publicRouteHint } from '../http/route-hint.js'
import { securityHeaders } from '../http/security-headers.js'
import { checkDivisions } from '../inference/division-check.js'
import type { SubmitOptions, VersionOutOfService } from '../inference/service.js'
import { Lifecycle } from '../lifecycle.js'
import type { Log } from '../log.js'
import type { ProcessRecorder } from '../metrics/recorder.js'
import { attachSegment } from '../segment/attach.js'
import { mayRunOnLoop } from '../segment/second-session.js'
import type { Tensor } from '../tensor.js'
import { Fronts } from './fronts.js'
import { LoadedModel, ServedModels } from './served-models.js'
import type { FailedGeneration, Secrets, SegmentToServe, ServingOptions } from './serving-options.js'
import { batchingPolicy, configurationOf } from './serving-policy.js'
import { openText } from './text-serving.js'
import { proveModel } from './warm-up.js'

export class ServingProcess {
  readonly connections = new Connections()
  /** Generations that could not be loaded at startup. */
  readonly failed: FailedGeneration[] = []
  readonly #lifecycle = new Lifecycle()
  readonly #models = new ServedModels()
  readonly #engine: Engine
  readonly #batcher: Batcher
  readonly #context: HttpContext
  readonly #mount: BundleMount | null
  readonly #fronts: Fronts
  readonly #config: ServingConfig
  readonly #self: ProcessRecorder
  readonly #log: Log
  readonly #keyring: Keyring
  readonly #tracing: Tracing | null
  readonly #onUnloaded: ServingOptions['onUnloaded']
  /** Generations that are being loaded, by key. */
  readonly #preparing = new Map<string, Promise<void>>()
  readonly #liveness: LivenessReporter
  #drained: Promise<void> | undefined

  private constructor(options: ServingOptions, tracing: Tracing | null) {
    const { config, log, secrets } = options
    this.#config = config
    this.#onUnloaded = options.onUnloaded
    this.#self = options.self
    this.#log = log
    this.#tracing = tracing
    const { adminTokenSha256 } = config
    this.#keyring = new Keyring({ keys: secrets.apiKeys, adminTokenSha256 })
    const headers = securityHeaders({ isTls: secrets.tls !== null })
    this.#batcher = new Batcher({
      run: (execution) =>
        this.#engine.run(execution.modelKey, execution.inputs, execution.outputNames, execution),
      isAlone: () => this.connections.isAlone,
      onExecution: ({ modelKey, rows, times }) => {
        this.#models.byKey(modelKey)?.counts.countExecution(rows, times)
      },
      onUnbatchable: (modelKey) => {
        const { name: model, version } = this.#models.byKey(modelKey) ?? {}
        options.log.warn(
          { model, version },
          'the outputs show that the model cannot be batched: its requests run one at a time',
        )
      },
    })
    this.#engine = options.engine
    this.#engine.place({ budgetNs: config.inlineBudgetMs * 1e6 })
    this.#engine.ended.catch(options.onBug)
    this.#liveness = new LivenessReporter({
      ...{ engine: options.engine, self: options.self, stallTimeoutMs: config.stallTimeoutMs },
      queueDepth: () => this.#batcher.depth,
      onStall: (failure, silentMs) => {
        this.#lifecycle.move('stalled')
        this.#batcher.abandon(failure)
        options.onStalled(silentMs)
      },
    })
    this.#context = {
      models: this.#models,
      checkCapacity: (model, inputBytes) =>
        this.#batcher.checkCapacity((model as LoadedModel).key, inputBytes),
      submit: (options) => this.#submit(options),
      unknownModel: options.unknownModel,
      connections: this.connections,
      defences: {
        headers,
        corsOrigins: config.corsOrigins,
        keyring: this.#keyring,
        limits: config,
        clientCounts: options.clientCounts,
      },
      observation: { ...config, tracing },
      log,
      localFolders: [options.serverFolder, ...(options.bundle === null ? [] : [options.bundle.path])],
      maxBodyBytes: config.maxBodyBytes,
      maxResponseBytes: config.maxResponseBytes,
      largeExchanges: new LargeExchanges(),
      regions: options.regions,
      control: options.control,
      hostPolicy: { host: config.host, allowedHosts: config.adminAllowedHosts },
      routeHint: (path) => publicRouteHint(path, config),
      errorBodyOf: (path, error) => this.#mount?.errorBodyOf(path, error),
      deadlineStatus: config.deadlineStatus,
      hasDocs: config.hasDocs,
      hasBundle: options.bundle !== null,
      isReady: () => this.#lifecycle.state === 'ready' && this.#models.isServing(config.isModelRequired),
      isDraining: () => this.#lifecycle.state === 'draining' || this.isStalled,
      onBug: options.onBug,
    }
    this.#mount = options.bundle === null ? null : new BundleMount(options.bundle)
    const app = createApp(this.#context, options.identity, (router) =>
      this.#mount?.addRoutes(router, this.#context),
    )
    this.#fronts = new Fronts({
      ...{ config, context: this.#context, identity: options.identity },
      ...{ handler: app.callback(), tls: secrets.tls },
    })
  }

  async #submit(options: SubmitOptions): Promise<JobResult> {
    const model = options.model as LoadedModel
    // The upload of the body may have taken long.
    const out = this.#models.outOfService(model.name, model.version)
    if (out !== null) throw outOfServiceError(out, out.state)
    checkDivisions(model.divisions, options.inputs)
    const { inputs, outputNames, outputLimit, pooling, measuresCpu } = options
    const { priority, timeoutMs, isCancelled } = options
    const result = await this.#batcher.submit({
      modelKey: model.key,
      inputs,
      outputNames,
      outputLimit,
      pooling,
      measuresCpu: measuresCpu === true,
      priority,
      timeoutMs,
      isCancelled,
    })
    model.counts.observe('queueDuration', result.queueNs / 1e9)
    model.counts.countComputed(result.times)
    return result
  }

  /**
   * Attaches, loads and listens. A model version that cannot be loaded is out of service; the
   * others are served.
   * @throws OnecopyError ADDRESS_UNAVAILABLE, and the errors of a bundle; then nothing stays open.
   */
  static async start(options: ServingOptions): Promise<ServingProcess> {
    const { config, identity, log } = options
    const tracing = await startTracing({
      endpoint: config.otlpEndpoint,
      standardEndpoint: standardOtlpEndpoint(),
      serviceVersion: identity.version,
      log,
    })
    const serving = new ServingProcess(options, tracing)
    try {
      for (const version of options.outOfService) serving.takeOut(version)
      for (const segment of options.segments) await serving.#prepareOrTakeOut(segment)
      serving.change({ activate: options.segments.map(({ key }) => key), retire: [] })
      await serving.#openBundle(options)
      await serving.#fronts.listen()
      serving.#lifecycle.move('ready')
      serving.#liveness.start()
      return serving
    } catch (thrown) {
      await serving.#mount?.close()
      await serving.#engine.close()
      throw thrown
    }
  }

  async #openBundle({ config, serverFolder, log }: ServingOptions): Promise<void> {
    await this.#mount?.open({
      http: this.#context,
      runUncounted: (model) => async (inputs, outputNames) =>
        (await this.#engine.run((model as LoadedModel).key, inputs, outputNames)).outputs,
      serverFolder,
      redisUrl: config.redisUrl,
      maxQueuedRequests: config.maxQueuedRequests,
      log,
    })
  }

  /**
   * Any error other than an OnecopyError is not a fault of the model: the inference thread has
   * ended, or it is a bug.
   */
  async #prepareOrTakeOut(segment: SegmentToServe): Promise<void> {
    try {
      await this.prepare(segment)
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError)) throw thrown
      const { key, name, version, counts } = segment
      const state = outOfServiceBecauseOf(thrown)
      this.failed.push({ key, state })
      this.takeOut({ name, version, counts, state })
    }
  }

  /**
   * Rejects requests to this model version until it is put back; also queued ones, unless the state
   * keeps them.
   */
  takeOut(version: VersionOutOfService): void {
    this.#models.takeOut(version)
    if (version.state.isQueueKept === true) return
    const error = outOfServiceError(version, version.state)
    for (const { key } of this.#models.generations(version)) this.#batcher.refuseWaiting(key, error)
  }

  /** Puts this model version back into service, if it is loaded. */
  putBack(version: { readonly name: string; readonly version: string }): void {
    this.#models.putBack(version)
  }

  /**
   * Loads a generation without activating it.
   * @throws OnecopyError SEGMENT_INVALID, MODEL_UNSUPPORTED, SELF_CHECK_FAILED; then nothing stays
   *   loaded.
   */
  async prepare(segment: SegmentToServe): Promise<void> {
    const prepared = this.#prepare(segment)
    this.#preparing.set(segment.key, prepared)
    try {
      await prepared
    } finally {
      this.#preparing.delete(segment.key)
    }
  }

  async #prepare(segment: SegmentToServe): Promise<void> {
    const { key, number, config } = segment
    const attached = await attachSegment(segment.segment)
    let text: LoadedModel['text']
    try {
      const loadable = { ...attached, ...(await withoutDefaults(attached.graph, attached.header.inputs)) }
      const threads = config.threads ?? this.#config.threads
      const choices = { threads, number, keepsActivations: config.text !== null }
      await this.#engine.load(key, loadable, choices)
      const run = async (tensors: readonly Tensor[], names: readonly string[]) =>
        (await this.#engine.run(key, tensors, names, { isProving: true })).outputs
      await proveModel({ model: segment, header: attached.header, run })
      if (mayRunOnLoop(attached.header)) {
        const { starting, serving } = LONGEST_LOAD_MS
        const longestMs = this.#lifecycle.state === 'starting' ? starting : serving
        this.#engine.loadOnLoop(key, loadable, { ...choices, longestMs })
      }
      const loaded = { key, config, header: attached.header, serving: this.#config, engine: this.#engine }
      text = await openText({ ...loaded, ...this.#context, models: this.#models })
    } catch (thrown) {
      // A thread that is gone is reported by its end.
      await this.#engine.unload(key).catch(() => {})
      throw thrown
    }
    this.#batcher.add(key, batchingPolicy(attached.header, config, this.#config))
    const { inputs, outputs, divisions } = attached.header
    const { fileBytes: segmentBytes } = segment.segment
    const configuration = configurationOf(segment, attached.header, this.#config)
    const { labels } = config
    const spec = { inputs, outputs, divisions, text }
    this.#models.add(new LoadedModel({ ...segment, ...spec, segmentBytes, configuration, labels }))
  }

  /**
   * Switches the active generations in one step. Each retired generation is unloaded after its last
   * response, however long that takes.
   */
  change({ activate, retire }: { activate: readonly string[]; retire: readonly string[] }): void {
    for (const key of retire) {
      const model = this.#models.byKey(key)
      if (model !== undefined) this.#models.deactivate(model)
    }
    for (const key of activate) {
      const model = this.#models.byKey(key)
      if (model !== undefined) this.#models.activate(model)
    }
    for (const key of retire) void this.#retire(key)
  }

  async #retire(key: string): Promise<void> {
    // A generation that is still loading cannot be unloaded yet.
    await this.#preparing.get(key)?.catch(() => {})
    const model = this.#models.byKey(key)
    if (model !== undefined) {
      await model.unused()
      this.#batcher.remove(key)
      // A thread that is gone is reported by its end.
      await this.#engine.unload(key).catch(() => {})
      this.#models.remove(model)
    }
    this.#onUnloaded(key)
  }

  /** Whether the inference thread has stalled. */
  get isStalled(): boolean {
    return this.#lifecycle.state === 'stalled'
  }

  /** Whether the runtime may be running: `process.exit` would then abort. */
  get isThreadBusy(): boolean {
    return this.#engine.isBusy
  }

  /** Applies renewed keys and a renewed certificate; connections stay open. */
  renew({ apiKeys, tls }: Secrets): void {
    this.#keyring.replace(apiKeys)
    if (tls !== null) this.#fronts.renew(tls)
  }

  /** The actual port, also if 0 was requested; 0 if there is none. */
  get port(): number {
    return this.#fronts.port
  }

  /**
   * Turns not ready, closes connections gracefully, closes the socket, answers accepted requests
   * and closes the engine, unless its thread has stalled. Resolves when all of that is done; the
   * caller sets the deadline. Idempotent.
   */
  drain(): Promise<void> {
    this.#drained ??= this.#drain()
    return this.#drained
  }

  async #drain(): Promise<void> {
    const { isStalled } = this
    if (!isStalled) this.#lifecycle.move('draining')
    // A stalled process is drained once others serve, and new requests are for them.
    await this.#fronts.close({ isUrgent: isStalled })
    await this.#mount?.close()
    this.#batcher.shut()
    await Promise.race([this.#engine.close(), this.#liveness.stalled])
    this.#liveness.endThreadWatch()
    const { drainTimeoutMs } = this.#config
    await endTracing(this.#tracing, { log: this.#log, drainTimeoutMs })
    this.#liveness.close()
    this.#lifecycle.move('closed')
  }
}
