/**
 * The fleet's metrics, answered by the primary: what living workers count, the totals of the dead, and
 * what only the primary knows. A dead worker's counts stay counted, so no counter ever goes down; a
 * silent worker is answered for by its last snapshot.
 */
import { Gauge, Registry } from 'prom-client'
import type { PublishedModel } from '../src/model/publish.js'
import { readProcessMemory } from '../src/process/memory.js'
import { lastingPart, type MetricsSnapshot, mergeSnapshots, snapshotOf } from './snapshot.js'
import type { Supervisor } from './supervisor.js'

const WORKER_ANSWER_TIMEOUT_MS = 300
const MAX_DEPARTED_SNAPSHOTS = 16

export interface FleetMetricsOptions {
  readonly supervisor: () => Supervisor | undefined
  readonly published: () => readonly PublishedModel[]
  readonly buildInfo: { readonly version: string; readonly runtimeVersion: string }
}

export class FleetMetrics {
  readonly #options: FleetMetricsOptions
  readonly #own = new Registry()
  /** The newest snapshot of each living worker. */
  readonly #latest = new Map<number, MetricsSnapshot>()
  readonly #departed: MetricsSnapshot[] = []

  constructor(options: FleetMetricsOptions) {
    this.#options = options
    const registers = [this.#own]
    new Gauge({
      name: 'onecopy_build_info',
      help: 'Always 1; the labels say what runs.',
      labelNames: ['version', 'runtime_version', 'node_version'],
      registers,
    }).set(
      {
        version: options.buildInfo.version,
        runtime_version: options.buildInfo.runtimeVersion,
        node_version: process.version,
      },
      1,
    )
    new Gauge({
      name: 'onecopy_workers_ready',
      help: 'Workers that answer requests.',
      registers,
      collect() {
        this.set(options.supervisor()?.ready.length ?? 0)
      },
    })
    new Gauge({
      name: 'onecopy_segment_bytes',
      help: 'Size of the shared-memory segment of a model version: paid once, whatever the number of workers.',
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
      name: 'onecopy_worker_private_bytes',
      help: 'Memory that a worker shares with no other process.',
      labelNames: ['worker'],
      registers,
      async collect() {
        this.reset()
        for (const { id, pid } of options.supervisor()?.ready ?? []) {
          const memory = await readProcessMemory(pid)
          if (memory !== null) this.set({ worker: String(id) }, memory.privateBytes)
        }
      },
    })
  }

  /** A worker's last words about what it counted. */
  farewell(workerId: number, snapshot: MetricsSnapshot): void {
    this.#latest.set(workerId, snapshot)
  }

  /** Moves a dead worker's counts to the totals of the departed, without a moment in which neither has them. */
  departed(workerId: number): void {
    const last = this.#latest.get(workerId)
    this.#latest.delete(workerId)
    if (last !== undefined) this.#departed.push(lastingPart(last))
    if (this.#departed.length > MAX_DEPARTED_SNAPSHOTS) void this.#compactDeparted()
  }

  /** Many deaths must not grow the list: merges what is there now into one. */
  async #compactDeparted(): Promise<void> {
    const parts = [...this.#departed]
    const merged = await snapshotOf(mergeSnapshots(parts))
    if (parts.every((part, index) => this.#departed[index] === part))
      this.#departed.splice(0, parts.length, merged)
  }

  /** The text that Prometheus scrapes. */
  async scrape(): Promise<string> {
    const answers = await this.#options.supervisor()?.collectMetrics(WORKER_ANSWER_TIMEOUT_MS)
    for (const [workerId, snapshot] of answers ?? []) this.#latest.set(workerId, snapshot)
    const merged = mergeSnapshots([...this.#departed, ...this.#latest.values()])
    const text = [await merged.metrics(), await this.#own.metrics()]
    return text.filter((part) => part.trim() !== '').join('\n')
  }

  get contentType(): string {
    return this.#own.contentType
  }
}
