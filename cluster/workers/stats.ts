/**
 * The stats pages, created and read by the primary: one for each model version, one for requests to
 * unknown models, and one for the state of processes. Every worker has a slot with the same index
 * in all pages. The next worker in a slot continues its counters.
 */
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { CLIENT_CELL_COUNT, forgetInside } from '../../src/access/client-page.js'
import type { CountedModel } from '../../src/metrics/metric.js'
import { StatsPage, type StatsPageReference } from '../../src/metrics/page.js'
import {
  MODEL_CELLS,
  OUTCOMES,
  PROCESS_CELL_COUNT,
  PROCESS_CELLS,
  REQUESTS,
} from '../../src/metrics/series.js'
import { monotonicMs } from '../../src/process/clock.js'
import type { ClientsMessage } from '../messages.js'
import type { ModelVersion } from './breaker.js'

/** Label of requests for models that do not exist. */
const UNKNOWN = { model: '(unknown)', version: '' }

export interface RunningModel extends ModelVersion {
  /** True during load, self-check and warm-up, before any client request. */
  readonly isLoading: boolean
}

/** State of a process, read from its slot. */
export interface ProcessState {
  /** Time since the last turn of its event loop. */
  readonly loopSilentMs: number
  readonly queueDepth: number
  readonly loopLagSeconds: number
  /** The model that its runtime is loading or computing; null for none. */
  readonly running: RunningModel | null
}

function requestsOf(cells: Float64Array): number {
  return OUTCOMES.reduce((sum, _, i) => sum + (cells[REQUESTS.at + i] as number), 0)
}

export class FleetStats {
  readonly #folder: string
  readonly #slots: number
  readonly #free: number[]
  readonly #process: StatsPage
  readonly #unknown: StatsPage
  /** Null without client limits. */
  readonly #clients: { readonly page: StatsPage; readonly secret: string } | null
  /** By model number. Numbers are never reused: a process may still refer to a removed model. */
  readonly #models = new Map<number, CountedModel>()
  #lastNumber = 0
  /** By slot: requests counted for models that are removed. */
  readonly #goneRequests: number[]

  private constructor(options: {
    folder: string
    slots: number
    process: StatsPage
    unknown: StatsPage
    clients: StatsPage | null
  }) {
    this.#folder = options.folder
    this.#slots = options.slots
    this.#free = Array.from({ length: options.slots }, (_, slot) => slot)
    this.#goneRequests = new Array<number>(options.slots).fill(0)
    this.#process = options.process
    this.#unknown = options.unknown
    const secret = randomBytes(16).toString('hex')
    this.#clients = options.clients === null ? null : { page: options.clients, secret }
  }

  /**
   * Creates the pages of a server. `slots` is the maximum number of live workers. Clients are
   * counted only if they are limited.
   * @throws OnecopyError SEGMENT_SPACE.
   */
  static async create(options: {
    readonly folder: string
    readonly slots: number
    readonly areClientsLimited: boolean
  }): Promise<FleetStats> {
    const { folder, slots, areClientsLimited } = options
    const page = (name: string, cellsPerSlot: number) =>
      StatsPage.create({ path: join(folder, name), slots, cellsPerSlot })
    const process = await page('process.stats', PROCESS_CELL_COUNT)
    const unknown = await page('unknown.stats', MODEL_CELLS)
    const clients = areClientsLimited ? await page('clients.stats', CLIENT_CELL_COUNT) : null
    return new FleetStats({ folder, slots, process, unknown, clients })
  }

  /** Adds a model version and returns its number, which identifies it to workers. */
  async addModel(labels: CountedModel['labels']): Promise<number> {
    for (const [number, known] of this.#models)
      if (known.labels.model === labels.model && known.labels.version === labels.version) return number
    const number = ++this.#lastNumber
    const path = join(this.#folder, `${labels.model}@${labels.version}.stats`)
    const page = await StatsPage.create({ path, slots: this.#slots, cellsPerSlot: MODEL_CELLS })
    this.#models.set(number, { labels, page })
    return number
  }

  /**
   * Removes a model version that no worker serves. Its series end; if it returns they start at
   * zero, as after a restart. A process that still maps the page counts into a deleted file.
   */
  async removeModel(number: number): Promise<void> {
    const model = this.#models.get(number)
    if (model === undefined) return
    this.#models.delete(number)
    for (let slot = 0; slot < this.#slots; slot++)
      this.#goneRequests[slot] = (this.#goneRequests[slot] ?? 0) + requestsOf(model.page.slot(slot))
    await rm(model.page.reference.path, { force: true })
  }

  get processPage(): StatsPageReference {
    return this.#process.reference
  }

  get unknownPage(): StatsPageReference {
    return this.#unknown.reference
  }

  /** What a worker needs to count clients; null without client limits. */
  get clients(): ClientsMessage | null {
    return this.#clients && { page: this.#clients.page.reference, secret: this.#clients.secret }
  }

  modelPage(number: number): StatsPageReference {
    return this.#modelOf(number).page.reference
  }

  /** Undefined if the model was removed. */
  pageOf(number: number): StatsPage | undefined {
    return this.#models.get(number)?.page
  }

  #modelOf(number: number): CountedModel {
    const model = this.#models.get(number)
    if (model === undefined) throw new Error(`expected a model number, got ${number}`)
    return model
  }

  /** All counted model versions, and the requests to unknown models. */
  get counted(): readonly CountedModel[] {
    return [...this.#models.values(), { labels: UNKNOWN, page: this.#unknown }]
  }

  /** Acquires a slot for a new worker. Resets the process state in it, but not the counters. */
  acquireSlot(): number {
    const slot = this.#free.shift()
    if (slot === undefined) throw new Error(`expected at most ${this.#slots} live workers`)
    this.#process.slot(slot).fill(0)
    return slot
  }

  releaseSlot(slot: number): void {
    this.#process.slot(slot).fill(0)
    if (this.#clients !== null) forgetInside(this.#clients.page.slot(slot))
    this.#free.push(slot)
  }

  stateOf(slot: number): ProcessState {
    const cells = this.#process.slot(slot)
    const cell = (name: keyof typeof PROCESS_CELLS) => cells[PROCESS_CELLS[name]] as number
    const nowMs = monotonicMs()
    // Executions on the event loop are shorter. If both run, a crash more likely interrupted the
    // thread.
    const number = cell('runningInThread') || cell('runningOnLoop')
    const labels = this.#models.get(Math.abs(number))?.labels
    return {
      loopSilentMs: nowMs - cell('loopBeatMs'),
      queueDepth: cell('queueDepth'),
      loopLagSeconds: cell('loopLagSeconds'),
      running: labels === undefined ? null : { ...labels, isLoading: number < 0 },
    }
  }

  /** All requests ever counted in a slot, by its current worker and its predecessors. */
  requestsIn(slot: number): number {
    let requests = this.#goneRequests[slot] ?? 0
    for (const { page } of this.counted) requests += requestsOf(page.slot(slot))
    return requests
  }
}
