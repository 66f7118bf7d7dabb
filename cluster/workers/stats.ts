/**
 * The stats pages of the fleet, made and read by the primary: one for each model version, one for requests
 * that name no model, one for what processes say about themselves. A worker is lent a slot, the same in every
 * page, for as long as it lives; its successor in that slot counts on.
 */
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { CLIENT_CELL_COUNT, forgetInside } from '../../src/access/client-page.js'
import type { CountedModel } from '../../src/metrics/metric.js'
import { StatsPage, type StatsPageReference } from '../../src/metrics/page.js'
import {
  MODEL_CELLS,
  monotonicMs,
  OUTCOMES,
  PROCESS_CELL_COUNT,
  PROCESS_CELLS,
  REQUESTS,
} from '../../src/metrics/series.js'
import type { ClientsMessage } from '../messages.js'
import type { ModelVersion } from './breaker.js'

/** Label of requests for models that do not exist. */
const UNKNOWN = { model: '(unknown)', version: '' }

export interface RunningModelSign extends ModelVersion {
  /** Whether it was loaded, self-check and warm-up included, and not yet asked by clients. */
  readonly isLoading: boolean
}

/** What a process said about itself, read from its slot. */
export interface ProcessSigns {
  /** Time since its event loop turned. */
  readonly loopSilentMs: number
  readonly queueDepth: number
  readonly loopLagSeconds: number
  /** What its runtime was loading or computing; null for nothing. */
  readonly running: RunningModelSign | null
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
  /** Null where no client is limited. */
  readonly #clients: { readonly page: StatsPage; readonly secret: string } | null
  /** By model number. A number is never given again: a process may still name what is gone. */
  readonly #models = new Map<number, CountedModel>()
  #lastNumber = 0
  /** By slot: requests that were counted there for models that are gone. */
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
   * Makes the pages of a server; `slots` is the number of workers that can be alive at once. Clients are counted where
   * they are limited.
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

  /** Adds a model version; resolves with its number, by which workers name it. */
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
   * Forgets a model version that no worker serves any more: its series end, and begin at zero if it comes back, as after a
   * restart. Who still has its page mapped counts into nowhere.
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

  /** What a worker needs to count clients; null where none is limited. */
  get clients(): ClientsMessage | null {
    return this.#clients && { page: this.#clients.page.reference, secret: this.#clients.secret }
  }

  modelPage(number: number): StatsPageReference {
    return this.#modelOf(number).page.reference
  }

  /** Undefined where the model is gone. */
  pageOf(number: number): StatsPage | undefined {
    return this.#models.get(number)?.page
  }

  #modelOf(number: number): CountedModel {
    const model = this.#models.get(number)
    if (model === undefined) throw new Error(`expected the number of a model, got ${number}`)
    return model
  }

  /** Every counted model version, and what was asked of none. */
  get counted(): readonly CountedModel[] {
    return [...this.#models.values(), { labels: UNKNOWN, page: this.#unknown }]
  }

  /** Lends a slot to a new worker; what the last one said about itself is wiped, what it counted is not. */
  lend(): number {
    const slot = this.#free.shift()
    if (slot === undefined) throw new Error(`expected at most ${this.#slots} workers at once`)
    this.#process.slot(slot).fill(0)
    return slot
  }

  giveBack(slot: number): void {
    this.#process.slot(slot).fill(0)
    if (this.#clients !== null) forgetInside(this.#clients.page.slot(slot))
    this.#free.push(slot)
  }

  signs(slot: number): ProcessSigns {
    const cells = this.#process.slot(slot)
    const cell = (name: keyof typeof PROCESS_CELLS) => cells[PROCESS_CELLS[name]] as number
    const nowMs = monotonicMs()
    const number = cell('runningModel')
    const labels = this.#models.get(Math.abs(number))?.labels
    return {
      loopSilentMs: nowMs - cell('loopBeatMs'),
      queueDepth: cell('queueDepth'),
      loopLagSeconds: cell('loopLagSeconds'),
      running: labels === undefined ? null : { ...labels, isLoading: number < 0 },
    }
  }

  /** Requests that were ever counted in a slot, by its present worker and those before it. */
  requestsIn(slot: number): number {
    let requests = this.#goneRequests[slot] ?? 0
    for (const { page } of this.counted) requests += requestsOf(page.slot(slot))
    return requests
  }
}
