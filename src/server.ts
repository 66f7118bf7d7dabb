/**
 * One serving process, assembled from the rooms: attach the segments, load them into the inference
 * thread, serve HTTP, drain. It does not know whether other processes serve beside it.
 */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Batcher, type BatchingPolicy } from './batch/batcher.js'
import type { ServingConfig } from './config/schema.js'
import { Engine } from './engine/engine.js'
import { createApp } from './http/app.js'
import { Connections } from './http/connections.js'
import type { ModelDirectory, ServedModel } from './http/context.js'
import { listen } from './http/listen.js'
import type { ServerIdentity } from './http/routes/health.js'
import { Lifecycle } from './lifecycle.js'
import type { Log } from './log.js'
import { createServingMetrics, type ServingMetrics } from './metrics/serving.js'
import type { ModelConfig } from './model/config.js'
import { compareVersions } from './model/repository.js'
import { attachSegment, type SegmentReference } from './segment/attach.js'
import type { SegmentHeader } from './segment/layout.js'

export interface SegmentToServe {
  readonly name: string
  readonly version: string
  readonly segment: SegmentReference
  readonly config: ModelConfig
}

export interface ServingOptions {
  readonly config: ServingConfig
  readonly segments: readonly SegmentToServe[]
  readonly identity: ServerIdentity
  readonly log: Log
  /** Called once with a bug; the process is expected to end soon after. */
  readonly onBug: (error: unknown) => void
}

/**
 * How long responses say `Connection: close` before the listening socket is closed: time for clients
 * that keep connections alive to go elsewhere without losing a request.
 */
const DRAIN_NOTICE_MS = 400

interface LoadedModel extends ServedModel {
  readonly key: string
}

class LoadedModels implements ModelDirectory {
  readonly #byName = new Map<string, LoadedModel[]>()

  add(model: LoadedModel): void {
    const versions = [...(this.#byName.get(model.name) ?? []), model]
    this.#byName.set(
      model.name,
      versions.sort((a, b) => compareVersions(a.version, b.version)),
    )
  }

  names(): string[] {
    return [...this.#byName.keys()].sort()
  }

  versions(name: string): string[] {
    return (this.#byName.get(name) ?? []).map((model) => model.version)
  }

  find(name: string, version?: string): LoadedModel | null {
    const models = this.#byName.get(name) ?? []
    return (version === undefined ? models[0] : models.find((model) => model.version === version)) ?? null
  }
}

/** The model's own config where it says something, what was found out at compile time elsewhere. */
function batchingPolicy(header: SegmentHeader, config: ModelConfig, serving: ServingConfig): BatchingPolicy {
  return {
    isBatchable: config.batching === 'auto' ? header.batching.batchable : config.batching,
    maxBatchSize: config.maxBatchSize,
    preferredBatchSizes: config.preferredBatchSizes,
    maxQueueDelayMs: config.maxQueueDelayMs,
    queue: {
      maxRequests: config.maxQueueRequests ?? serving.maxQueuedRequests,
      maxBytes: config.maxQueueBytes,
    },
  }
}

export class ServingProcess {
  readonly metrics: ServingMetrics
  readonly connections = new Connections()
  readonly #lifecycle = new Lifecycle()
  readonly #models = new LoadedModels()
  readonly #engine = new Engine()
  readonly #batcher: Batcher
  readonly #http: Server
  readonly #labelsByKey = new Map<string, { readonly model: string; readonly version: string }>()
  #drained: Promise<void> | undefined

  private constructor(options: ServingOptions) {
    this.#batcher = new Batcher({
      run: ({ modelKey, inputs, outputNames }) => this.#engine.run(modelKey, inputs, outputNames),
      onExecution: ({ modelKey, rows, computeNs }) => {
        const labels = this.#labels(modelKey)
        this.metrics.computeDuration.observe(labels, computeNs / 1e9)
        this.metrics.batchSize.observe(labels, rows)
      },
      onUnbatchable: (modelKey) => {
        options.log.warn(
          this.#labels(modelKey),
          'the model claims to batch and does not: its requests run one by one',
        )
      },
    })
    this.metrics = createServingMetrics(() => this.#batcher.depth)
    this.#engine.ended.catch(options.onBug)
    const app = createApp(
      {
        models: this.#models,
        checkRoom: (model) => this.#batcher.checkRoom((model as LoadedModel).key),
        submit: async ({ model, ...job }) => {
          const modelKey = (model as LoadedModel).key
          const result = await this.#batcher.submit({ ...job, modelKey })
          this.metrics.queueDuration.observe(this.#labels(modelKey), result.queueNs / 1e9)
          return result
        },
        metrics: this.metrics,
        connections: this.connections,
        log: options.log,
        maxBodyBytes: options.config.maxBodyBytes,
        isReady: () => this.#lifecycle.state === 'ready',
        isDraining: () => this.#lifecycle.state === 'draining',
        onBug: options.onBug,
      },
      options.identity,
    )
    this.#http = createServer(app.callback())
  }

  /**
   * Attaches, loads and listens.
   * @throws OnecopyError SEGMENT_INVALID, MODEL_UNSUPPORTED, ADDRESS_UNAVAILABLE; nothing stays open then.
   */
  static async start(options: ServingOptions): Promise<ServingProcess> {
    const serving = new ServingProcess(options)
    try {
      for (const { name, version, segment, config } of options.segments) {
        const attached = await attachSegment(segment)
        const key = `${name}@${version}`
        await serving.#engine.load(key, attached, options.config.threads)
        const { inputs, outputs } = attached.header
        serving.#labelsByKey.set(key, { model: name, version })
        serving.#batcher.add(key, batchingPolicy(attached.header, config, options.config))
        serving.#models.add({ name, version, key, inputs, outputs, isReady: true })
      }
      await listen(serving.#http, options.config, 'inference')
      serving.#lifecycle.move('ready')
      return serving
    } catch (thrown) {
      await serving.#engine.close()
      throw thrown
    }
  }

  #labels(modelKey: string): { model: string; version: string } {
    return this.#labelsByKey.get(modelKey) ?? { model: modelKey, version: '' }
  }

  /** The port that is really served on, also where 0 was asked for. */
  get port(): number {
    return (this.#http.address() as AddressInfo).port
  }

  /**
   * Not ready, connections told to close, socket shut, accepted requests answered, engine closed.
   * Resolves when all of that is done; whoever waits sets the deadline. Idempotent.
   */
  drain(): Promise<void> {
    this.#drained ??= this.#drain()
    return this.#drained
  }

  async #drain(): Promise<void> {
    this.#lifecycle.move('draining')
    await new Promise((resolve) => setTimeout(resolve, DRAIN_NOTICE_MS))
    const closed = new Promise((resolve) => this.#http.close(resolve))
    this.#http.closeIdleConnections()
    await closed
    this.#batcher.shut()
    await this.#engine.close()
    this.#lifecycle.move('closed')
  }
}
