/**
 * Metrics of all workers, served by the primary alone. Workers count in the stats pages, so a scrape does not
 * depend on them, and the counts of dead workers are kept.
 */
import { Counter, Gauge, Registry } from 'prom-client'
import type { PublishedModel } from '../../src/compile/publish.js'
import { type Aliases, exposeModels } from '../../src/metrics/exposition.js'
import { cgroupMemoryLimit, readProcessMemory } from '../../src/process/memory.js'
import { allocatedBytes } from '../../src/segment/holes.js'
import type { Catalogue } from '../models/catalogue.js'
import type { GenerationCount } from '../models/catalogue-entry.js'
import type { ModelChange } from '../models/catalogue-options.js'
import type { FailureKind, ModelVersion } from '../workers/breaker.js'
import type { FleetStats, ProcessState } from '../workers/stats.js'

/** A worker that answers requests. */
export interface ReadyWorker {
  readonly id: number
  readonly pid: number
  readonly statsSlot: number
}

export interface FleetMetricsOptions {
  readonly ready: () => readonly ReadyWorker[]
  readonly published: () => readonly PublishedModel[]
  readonly outOfService: () => Catalogue['outOfService']
  readonly generations: () => readonly GenerationCount[]
  readonly stats: () => FleetStats | undefined
  /** Number of versions and entries in the repository that cannot be served. */
  readonly invalidEntries: () => number
  /** Whether the circuit breaker of a model version is open. */
  readonly isDisabled: (model: ModelVersion) => boolean
  /** Null without a certificate. */
  readonly certificateExpirySeconds: () => number | null
  /** The configured number. */
  readonly workers: number
  readonly aliases: Aliases
  readonly buildInfo: { readonly version: string; readonly runtimeVersion: string }
}

export class FleetMetrics {
  readonly #options: FleetMetricsOptions
  readonly #own = new Registry()
  readonly #workerExits: Counter<'reason'>
  readonly #modelChanges: Counter<'outcome'>
  readonly #modelCrashes: Counter<'model' | 'version' | 'kind'>

  constructor(options: FleetMetricsOptions) {
    this.#options = options
    const registers = [this.#own]
    const { version, runtimeVersion } = options.buildInfo
    new Gauge({
      name: 'onecopy_build_info',
      help: 'Always 1; the labels identify the versions.',
      labelNames: ['version', 'runtime_version', 'node_version'],
      registers,
    }).set({ version, runtime_version: runtimeVersion, node_version: process.version }, 1)
    this.#workerExits = new Counter({
      name: 'onecopy_worker_exits_total',
      help: 'Workers that ended while the server ran, by signal, exit code or reason for replacement.',
      labelNames: ['reason'],
      registers,
    })
    this.#modelChanges = new Counter({
      name: 'onecopy_model_changes_total',
      help: 'Model versions loaded, unloaded or failed to load while the server ran.',
      labelNames: ['outcome'],
      registers,
    })
    // From zero, so that the first change is an increase.
    for (const outcome of ['loaded', 'unloaded', 'failed']) this.#modelChanges.inc({ outcome }, 0)
    this.#modelCrashes = new Counter({
      name: 'onecopy_model_crashes_total',
      help: 'Workers that a model version crashed in the runtime (crash) or blocked for too long (stall).',
      labelNames: ['model', 'version', 'kind'],
      registers,
    })
    new Gauge({
      name: 'onecopy_model_disabled',
      help: '1 while a model version is disabled because it crashes or stalls workers, else 0.',
      labelNames: ['model', 'version'],
      registers,
      collect() {
        this.reset()
        for (const { source } of options.published()) {
          const model = { model: source.name, version: source.version }
          this.set(model, options.isDisabled(model) ? 1 : 0)
        }
      },
    })
    new Gauge({
      name: 'process_start_time_seconds',
      help: 'Start time of the primary, in seconds since the Unix epoch.',
      registers,
    }).set(Math.round(performance.timeOrigin) / 1000)
    new Gauge({ name: 'onecopy_workers', help: 'Configured number of workers.', registers }).set(
      options.workers,
    )
    const memoryLimitBytes = cgroupMemoryLimit()
    if (memoryLimitBytes !== null)
      new Gauge({
        name: 'onecopy_memory_limit_bytes',
        help: 'Memory limit of the control group for all processes and segments together; absent without a limit.',
        registers,
      }).set(memoryLimitBytes)
    new Gauge({
      name: 'onecopy_workers_ready',
      help: 'Workers that answer requests.',
      registers,
      collect() {
        this.set(options.ready().length)
      },
    })
    new Gauge({
      name: 'onecopy_repository_invalid_entries',
      help: 'Entries of the model repository, or versions of them, that are invalid or failed to load.',
      registers,
      collect() {
        this.set(options.invalidEntries())
      },
    })
    new Gauge({
      name: 'onecopy_segment_bytes',
      help: 'Size of the shared-memory segment of a model version, shared by all workers.',
      labelNames: ['model', 'version'],
      registers,
      collect() {
        this.reset()
        for (const { source, segment } of options.published()) {
          this.set({ model: source.name, version: source.version }, segment.bytes)
        }
      },
    })
    new Gauge({
      name: 'onecopy_model_generations',
      help: 'Generations of a model version in memory: more than one while an earlier one has requests in flight.',
      labelNames: ['model', 'version'],
      registers,
      collect() {
        this.reset()
        for (const { name, version, generations } of options.generations())
          this.set({ model: name, version }, generations)
      },
    })
    new Gauge({
      name: 'onecopy_segment_memory_bytes',
      help: 'Memory in use by the segment: less than its size while no process loads the model.',
      labelNames: ['model', 'version'],
      registers,
      async collect() {
        this.reset()
        for (const { source, segment } of options.published()) {
          // A segment that is being replaced may already be removed.
          const bytes = await allocatedBytes(segment.path).catch(() => null)
          if (bytes !== null) this.set({ model: source.name, version: source.version }, bytes)
        }
      },
    })
    new Gauge({
      name: 'onecopy_model_out_of_service',
      help: 'Workers that refuse requests of a model version, by reason code; 0 with an empty code if none does.',
      labelNames: ['model', 'version', 'code'],
      registers,
      collect() {
        this.reset()
        const out = options.outOfService()
        for (const { name, version, state, workers } of out)
          this.set({ model: name, version, code: state.code }, workers)
        for (const { source } of options.published()) {
          const { name: model, version } = source
          if (!out.some((one) => one.name === model && one.version === version))
            this.set({ model, version, code: '' }, 0)
        }
      },
    })
    new Gauge({
      name: 'onecopy_worker_private_bytes',
      help: 'Memory that a worker shares with no other process.',
      labelNames: ['worker'],
      registers,
      async collect() {
        this.reset()
        for (const { id, pid } of options.ready()) {
          const memory = await readProcessMemory(pid)
          if (memory !== null) this.set({ worker: String(id) }, memory.privateBytes)
        }
      },
    })
    new Gauge({
      name: 'onecopy_tls_certificate_expiry_timestamp_seconds',
      help: 'Expiry time of the current certificate, as a Unix timestamp.',
      registers,
      collect() {
        const expiry = options.certificateExpirySeconds()
        this.reset()
        if (expiry === null) this.remove()
        else this.set(expiry)
      },
    })
    const states = () =>
      options.ready().flatMap(({ statsSlot }): ProcessState[] => {
        const stats = options.stats()
        return stats === undefined ? [] : [stats.stateOf(statsSlot)]
      })
    new Gauge({
      name: 'onecopy_queue_depth',
      help: 'Requests waiting in the queues of all workers.',
      registers,
      collect() {
        this.set(states().reduce((sum, { queueDepth }) => sum + queueDepth, 0))
      },
    })
    new Gauge({
      name: 'onecopy_event_loop_lag_seconds',
      help: 'Delay of the HTTP event loop in the last seconds, 99th percentile, of the worst worker.',
      registers,
      collect() {
        this.set(states().reduce((worst, { loopLagSeconds }) => Math.max(worst, loopLagSeconds), 0))
      },
    })
  }

  /** A worker ended, expected or not. */
  workerEnded(reason: string): void {
    this.#workerExits.inc({ reason })
  }

  /** Also removes the series of an unloaded model version. */
  modelChanged({ model, version }: ModelVersion, outcome: ModelChange): void {
    this.#modelChanges.inc({ outcome })
    if (outcome !== 'unloaded') return
    for (const kind of ['crash', 'stall'] as const) this.#modelCrashes.remove({ model, version, kind })
  }

  modelFailed({ model, version }: ModelVersion, kind: FailureKind): void {
    this.#modelCrashes.inc({ model, version, kind })
  }

  /** The text that Prometheus scrapes. */
  async scrape(): Promise<string> {
    const models = await exposeModels(this.#options.stats()?.counted ?? [], this.#options.aliases)
    const text = [models, await this.#own.metrics()]
    return text.filter((part) => part.trim() !== '').join('\n')
  }

  get contentType(): string {
    return this.#own.contentType
  }
}
