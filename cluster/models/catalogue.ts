/**
 * The model versions of the fleet: what is served, in which state, and how that changes while it is.
 *
 * A new generation of a version is compiled and written beside the old one, loaded by every worker
 * beside the old one, and only when all have it they are told to answer with it; the old one answers what it
 * began, is unloaded everywhere, and its segment is removed last. Whatever fails before that step leaves the
 * old one serving. Changes are made one at a time, in the order they were asked for.
 *
 * How long requests take that began with the old one is up to them and their clients: a change waits for them for a
 * while, then the old one is kept beside the new one, and said to be, until the last of them is answered.
 */
import { isDeepStrictEqual } from 'node:util'
import type { IndexEntry } from '../../src/api/schemas.js'
import type { PublishedModel } from '../../src/compile/publish.js'
import { type ErrorCode, messageOf, OnecopyError, type OutOfService } from '../../src/errors.js'
import { compareVersions, type ModelSource } from '../../src/repository/repository.js'
import type { StartMessage } from '../messages.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import { logBatching } from './batching-log.js'
import { describeEntry, type Entry, entryKey, type GenerationCount, newEntry } from './catalogue-entry.js'
import type { CatalogueOptions, ModelChange } from './catalogue-options.js'
import type { FailedModel } from './failures.js'
import { type Generation, requireSameInterface } from './generation.js'
import { LiveSegment } from './live-segment.js'
import { Retirement } from './retirement.js'
import { ServiceStates, type TakenOut, type VersionName } from './service-states.js'
import { switchGeneration } from './switch-generation.js'
import { WorkerBoots } from './worker-boots.js'

export class Catalogue {
  readonly #options: CatalogueOptions
  readonly #service: ServiceStates
  readonly #boots: WorkerBoots
  readonly #retirement: Retirement
  readonly #entries = new Map<string, Entry>()
  /** How many generations there have been, of anything: none is ever taken for another. */
  #generations = 0
  #turn: Promise<unknown> = Promise.resolve()
  #onBegun: () => void = () => {}
  readonly #begun = new Promise<void>((resolve) => {
    this.#onBegun = resolve
  })

  constructor(options: CatalogueOptions) {
    this.#options = options
    const { workers, log } = options
    this.#service = new ServiceStates({ workers, log })
    this.#boots = new WorkerBoots({
      service: this.#service,
      loadable: () => this.#loadable,
      workers,
      inTurn: (work) => this.#inTurn(work),
      onDoubt: (generation, state) => this.#doubt(generation, state),
      prepareTimeoutMs: options.prepareTimeoutMs,
    })
    const { allWorkers, retireTimeoutMs } = options
    this.#retirement = new Retirement({
      ...{ allWorkers, retireTimeoutMs, log },
      serving: () => this.#serving,
      onGoneLate: (old) => void this.#inTurn(() => this.#forgetCounts(old)),
    })
  }

  /** Takes in what was published before any worker serves, and what could not be. */
  async begin(published: readonly PublishedModel[], failed: readonly FailedModel[]): Promise<void> {
    for (const one of published) {
      const entry = this.#entryOf(one.source)
      entry.folders = 1
      entry.serving = await this.#generation(entry, one.source, await this.#open(one, entry))
      entry.state = 'READY'
    }
    for (const { source, failure } of failed) {
      const entry = this.#entryOf(source)
      entry.state = 'UNAVAILABLE'
      entry.reason = messageOf(failure)
      const { name, version, reason } = entry
      this.#options.log.error({ model: name, version, reason }, 'the model is not served')
    }
    this.#onBegun()
  }

  /**
   * Says what a worker that starts now is to serve, once there is anything; see WorkerBoots.
   * @throws OnecopyError SEGMENT_SPACE.
   */
  async lease(take: (start: Pick<StartMessage, 'segments' | 'outOfService'>) => void): Promise<() => void> {
    await this.#begun
    return await this.#boots.lease(take)
  }

  /** A worker serves from here on, perhaps not everything. */
  workerReady(worker: WorkerHandle): void {
    this.#boots.ready(worker)
  }

  #doubt(generation: Generation, state: OutOfService): void {
    const { facts, source } = generation
    if (!this.#service.takeOut(facts, state, { isLoaded: false })) return
    const entry = this.#entryOf(source)
    this.#options.onChange({ ...source, state: 'UNAVAILABLE', reason: state.reason }, 'failed')
    // What was changed in shared memory is made anew; what answers otherwise would do so again.
    if (state.code === 'SEGMENT_INVALID') void this.#mend(entry, generation)
  }

  /** Makes the segment of a version anew that is out of service, from the same model. */
  #mend(entry: Entry, generation: Generation): Promise<void> {
    return this.#inTurn(async () => {
      if (entry.serving !== generation) return
      const facts = { model: entry.name, version: entry.version }
      const { log } = this.#options
      await this.#replace(entry, generation.source, { onlySameContent: true }).then(
        () => log.info(facts, 'the segment was made anew'),
        (thrown) => log.error({ ...facts, reason: messageOf(thrown) }, 'the segment cannot be made anew'),
      )
    })
  }

  get published(): PublishedModel[] {
    return this.#serving.map(({ segment }) => segment.published)
  }

  /** Memory that the next load will take again. */
  get releasedBytes(): number {
    return this.#serving.reduce((sum, { segment }) => sum + segment.releasedBytes, 0)
  }

  /** The versions that answer. */
  get served(): VersionName[] {
    return this.#serving.map(({ source: { name, version } }) => ({ name, version }))
  }

  /** What answers a model's name, the newest first, and why it does not where it is out of service. */
  servingAs(name: string): { readonly generation: Generation; readonly out: OutOfService | null }[] {
    return this.#serving
      .filter(({ source }) => source.name === name)
      .sort((a, b) => compareVersions(a.source.version, b.source.version))
      .map((generation) => ({ generation, out: this.#service.stateOf(generation.source)?.state ?? null }))
  }

  /** Whether any version answers; where none is served, whether none needs to be. */
  isServing(isModelRequired: boolean): boolean {
    return this.#serving.length === 0 ? !isModelRequired : this.index.some(({ state }) => state === 'READY')
  }

  get #serving(): Generation[] {
    return [...this.#entries.values()].flatMap(({ serving }) => serving ?? [])
  }

  /** Forgets versions that are not served and are gone: what was tried or unloaded, and left the repository. */
  forget(isGone: (version: VersionName) => boolean): void {
    for (const [key, entry] of this.#entries)
      if (entry.state === 'UNAVAILABLE' && this.#countOf(entry) === 0 && isGone(entry))
        this.#entries.delete(key)
  }

  /** What workers load: versions that are out of service only where they are to come back in one step. */
  get #loadable(): Generation[] {
    return this.#serving.filter(({ source }) => this.#service.stateOf(source)?.isLoaded !== false)
  }

  /** Versions that are served, and refuse requests in some workers or in all. */
  get outOfService(): readonly (VersionName & { readonly state: OutOfService; readonly workers: number })[] {
    return this.#serving.flatMap(({ source: { name, version } }) => {
      const { state, workers } = this.#service.refusing({ name, version })
      return state === null ? [] : [{ name, version, state, workers }]
    })
  }

  /**
   * Takes a version that is served out of service, in every worker and in those that start later; `isLoaded` has them
   * load it all the same, so that it can be put back in one step. Returns false where it is not served, or is out of
   * service for another reason.
   */
  takeOut(model: VersionName, state: OutOfService, choices: Pick<TakenOut, 'isLoaded'>): boolean {
    const generation = this.#entries.get(entryKey(model))?.serving
    return generation ? this.#service.takeOut(generation.facts, state, choices) : false
  }

  /**
   * Puts a version back that is out of service because of `code`, once workers that started without it have loaded it.
   * @throws OnecopyError why a worker cannot load it: it stays out of service.
   */
  bringBack(model: VersionName, code: ErrorCode): Promise<void> {
    return this.#boots.bringBack(model, code, () => this.#entries.get(entryKey(model))?.serving ?? null)
  }

  /** Every version that was asked for and not forgotten, by name and version. */
  get index(): IndexEntry[] {
    return [...this.#entries.values()]
      .map((entry) => this.#describe(entry))
      .sort((a, b) => (entryKey(a) < entryKey(b) ? -1 : 1))
  }

  #describe(entry: Entry): IndexEntry {
    const out = entry.state === 'READY' ? this.#service.describe(entry) : null
    return describeEntry({ ...entry, ...out }, { keeps: this.#retirement.countOf(entry) })
  }

  /** How many generations of a version are in memory. */
  #countOf(entry: Entry): number {
    return (entry.serving === null ? 0 : 1) + this.#retirement.countOf(entry)
  }

  /** What is in memory of every version: one generation, and those that are kept for requests that began with them. */
  get generations(): GenerationCount[] {
    return [...this.#entries.values()].flatMap((entry) => {
      const { name, version } = entry
      const generations = this.#countOf(entry)
      return generations === 0 ? [] : [{ name, version, generations }]
    })
  }

  #entryOf({ name, version }: VersionName): Entry {
    const known = this.#entries.get(entryKey({ name, version }))
    if (known !== undefined) return known
    const entry = newEntry(name, version)
    this.#entries.set(entryKey(entry), entry)
    return entry
  }

  #nextFolderName(entry: Entry): string {
    entry.folders++
    return entry.folders === 1 ? entryKey(entry) : `${entryKey(entry)}+${entry.folders}`
  }

  async #open(published: PublishedModel, entry: Entry): Promise<LiveSegment> {
    const { publish, release, processes, log } = this.#options
    return await LiveSegment.open(published, {
      ...{ release, processes, log },
      publishAgain: () =>
        publish(published.source, { folderName: this.#nextFolderName(entry), heldKeys: [] }),
    })
  }

  async #generation(entry: Entry, source: ModelSource, segment: LiveSegment): Promise<Generation> {
    const { stats } = this.#options
    const { name, version, config } = source
    const number = await stats.addModel({ model: name, version })
    this.#generations++
    const key = `${entryKey(entry)}#${this.#generations}`
    return { source, segment, facts: { key, name, version, config, number, stats: stats.modelPage(number) } }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work)
    this.#turn = mine.catch(() => {})
    return mine
  }

  /**
   * Serves a model version, in place of what its name and version meant before.
   * @throws OnecopyError why it does not; what was served before still is.
   */
  load(source: ModelSource): Promise<void> {
    return this.#inTurn(async () => {
      const entry = this.#entryOf(source)
      if (entry.serving === null) entry.state = 'LOADING'
      entry.reason = entry.serving === null ? '' : 'a new generation is being loaded'
      try {
        await this.#replace(entry, source)
        entry.state = 'READY'
        entry.reason = ''
        this.#report(entry, 'loaded')
      } catch (thrown) {
        entry.state = entry.serving === null ? 'UNAVAILABLE' : 'READY'
        entry.reason = messageOf(thrown)
        this.#report(entry, 'failed')
        throw thrown
      }
    })
  }

  /**
   * Stops serving a model version; resolves when its memory is given back, or is kept for requests that take their time.
   * @throws OnecopyError MODEL_NOT_FOUND when it is not served.
   */
  unload(model: VersionName): Promise<void> {
    return this.#inTurn(async () => {
      const entry = this.#entries.get(entryKey(model))
      const old = entry?.serving
      if (entry === undefined || old === undefined || old === null) {
        throw new OnecopyError(
          'MODEL_NOT_FOUND',
          `model ${model.name} version ${model.version} is not served`,
        )
      }
      entry.state = 'UNLOADING'
      entry.serving = null
      await this.#switchGeneration(null, old)
      this.#service.forget(entry)
      await this.#retire(old)
      entry.state = 'UNAVAILABLE'
      entry.reason = 'unloaded'
      this.#report(entry, 'unloaded')
    })
  }

  #report(entry: Entry, outcome: ModelChange): void {
    const { name, version, reason } = entry
    const facts = { model: name, version }
    const { log, onChange } = this.#options
    if (outcome !== 'failed') log.info(facts, `model ${outcome}`)
    else
      log.error(
        { ...facts, reason },
        entry.serving === null
          ? 'the model is not served'
          : 'the model is not replaced: the old one serves on',
      )
    onChange(this.#describe(entry), outcome)
  }

  /** Under `onlySameContent` the model must still be the one that is served. */
  async #replace(
    entry: Entry,
    source: ModelSource,
    { onlySameContent = false }: { readonly onlySameContent?: boolean } = {},
  ): Promise<void> {
    const old = entry.serving
    const outState = this.#service.stateOf(entry)
    const oldKey = old?.segment.published.segment.header.key
    // The segment of a version that workers do not load is good for nothing.
    const heldKeys = oldKey === undefined || outState?.isLoaded === false ? [] : [oldKey]
    const published = await this.#options.publish(source, {
      folderName: this.#nextFolderName(entry),
      heldKeys,
    })
    // The same content: the segment that is there serves on, perhaps under another config.
    if (published === null && isDeepStrictEqual(old?.source.config, source.config)) return
    const written = published === null ? null : await this.#open(published, entry)
    const segment = written ?? (old as Generation).segment
    let next: Generation | null = null
    try {
      next = await this.#generation(entry, source, segment)
      if (onlySameContent && published?.segment.header.key !== oldKey)
        throw new OnecopyError(
          'SEGMENT_INVALID',
          'the model in the repository is not the one that is served any more',
        )
      if (old !== null) requireSameInterface(old, next)
      const release = await segment.lease()
      try {
        await this.#boots.prepareAll(next)
        entry.serving = next
        logBatching(this.#options.log, source, segment.published.segment.header)
        await this.#switchGeneration(next, old)
        if (outState !== null && !outState.isLoaded) this.#service.putBack(entry, outState.state.code)
      } finally {
        release()
      }
    } catch (thrown) {
      if (next === null) await written?.remove()
      else {
        await this.#switchGeneration(null, next)
        await this.#retire(next)
      }
      throw thrown
    }
    if (old !== null) await this.#retire(old)
  }

  async #switchGeneration(next: Generation | null, old: Generation | null): Promise<void> {
    await switchGeneration({ next, old }, { ...this.#options, boots: this.#boots, service: this.#service })
  }

  /** To be called in turn, once no worker is asked to answer with it any more. */
  async #retire(old: Generation): Promise<void> {
    if (await this.#retirement.retire(old)) await this.#forgetCounts(old)
  }

  /** What was counted of a version stays for as long as any generation of it is there to count. */
  async #forgetCounts({ source, facts }: Generation): Promise<void> {
    const entry = this.#entries.get(entryKey(source))
    if (entry === undefined || this.#countOf(entry) === 0) await this.#options.stats.removeModel(facts.number)
  }

  /** Leaves the segments as they are. */
  async close(): Promise<void> {
    this.#boots.close()
    await this.#turn
    await Promise.all([...this.#serving.map(({ segment }) => segment.close()), this.#retirement.close()])
  }
}
