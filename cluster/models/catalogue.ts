/**
 * The model versions that the server offers: their states, and how they change while requests are
 * served.
 *
 * A new generation is compiled, written to shared memory and loaded by every worker next to the old
 * one. Only then do all workers switch to it. The old generation answers its requests in flight and
 * is unloaded everywhere; its segment is removed last. A failure before the switch leaves the old
 * generation serving. Changes run one at a time, in order.
 *
 * Requests in flight on the old generation can take arbitrarily long. A change waits for them for a
 * limited time. After that the old generation stays in memory, and the index says so, until its
 * last request is answered.
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
  /** Number of generations so far, over all models. Makes every key unique. */
  #generations = 0
  #lastChange: Promise<unknown> = Promise.resolve()
  #onInitialized: () => void = () => {}
  readonly #initialized = new Promise<void>((resolve) => {
    this.#onInitialized = resolve
  })

  constructor(options: CatalogueOptions) {
    this.#options = options
    const { workers, log } = options
    this.#service = new ServiceStates({ workers, log })
    this.#boots = new WorkerBoots({
      service: this.#service,
      loadable: () => this.#loadable,
      workers,
      runExclusive: (work) => this.#runExclusive(work),
      onContentMismatch: (generation, state) => this.#onContentMismatch(generation, state),
      prepareTimeoutMs: options.prepareTimeoutMs,
    })
    const { allWorkers, retireTimeoutMs } = options
    this.#retirement = new Retirement({
      ...{ allWorkers, retireTimeoutMs, log },
      serving: () => this.serving,
      onLateUnload: (old) => void this.#runExclusive(() => this.#forgetCounts(old)),
    })
  }

  /** Registers what was published before the first worker serves, and what failed. */
  async initialize(published: readonly PublishedModel[], failed: readonly FailedModel[]): Promise<void> {
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
    this.#onInitialized()
  }

  /**
   * Provides the segments for a new worker, once the catalogue is initialized; see WorkerBoots.
   * @throws OnecopyError SEGMENT_SPACE.
   */
  async lease(take: (start: Pick<StartMessage, 'segments' | 'outOfService'>) => void): Promise<() => void> {
    await this.#initialized
    return await this.#boots.lease(take)
  }

  /** A worker is ready, possibly without some models. */
  workerReady(worker: WorkerHandle): void {
    this.#boots.ready(worker)
  }

  #onContentMismatch(generation: Generation, state: OutOfService): void {
    const { facts, source } = generation
    if (!this.#service.takeOut(facts, state, { isLoaded: false })) return
    const entry = this.#entryOf(source)
    this.#options.onChange({ ...source, state: 'UNAVAILABLE', reason: state.reason }, 'failed')
    // A corrupt segment can be rebuilt. A model that fails its self-check would fail again.
    if (state.code === 'SEGMENT_INVALID') void this.#rebuild(entry, generation)
  }

  /** Rebuilds the segment of a version that is out of service, from the same model. */
  #rebuild(entry: Entry, generation: Generation): Promise<void> {
    return this.#runExclusive(async () => {
      if (entry.serving !== generation) return
      const facts = { model: entry.name, version: entry.version }
      const { log } = this.#options
      await this.#replace(entry, generation.source, { onlySameContent: true }).then(
        () => log.info(facts, 'the segment was rebuilt'),
        (thrown) => log.error({ ...facts, reason: messageOf(thrown) }, 'the segment cannot be rebuilt'),
      )
    })
  }

  get published(): PublishedModel[] {
    return this.serving.map(({ segment }) => segment.published)
  }

  /** Memory that the next load needs again. */
  get releasedBytes(): number {
    return this.serving.reduce((sum, { segment }) => sum + segment.releasedBytes, 0)
  }

  /** The versions that are served. */
  get served(): VersionName[] {
    return this.serving.map(({ source: { name, version } }) => ({ name, version }))
  }

  /**
   * The served versions of a model, the newest first, each with its state if it is out of service.
   */
  servingAs(name: string): { readonly generation: Generation; readonly out: OutOfService | null }[] {
    return this.serving
      .filter(({ source }) => source.name === name)
      .sort((a, b) => compareVersions(a.source.version, b.source.version))
      .map((generation) => ({ generation, out: this.#service.stateOf(generation.source)?.state ?? null }))
  }

  /** Whether any version answers. If none is served: whether none is required. */
  isServing(isModelRequired: boolean): boolean {
    return this.serving.length === 0 ? !isModelRequired : this.index.some(({ state }) => state === 'READY')
  }

  /** The generations that answer. */
  get serving(): Generation[] {
    return [...this.#entries.values()].flatMap(({ serving }) => serving ?? [])
  }

  /** Removes the entries of versions that are neither served nor in the repository. */
  forget(isGone: (version: VersionName) => boolean): void {
    for (const [key, entry] of this.#entries)
      if (entry.state === 'UNAVAILABLE' && this.#countOf(entry) === 0 && isGone(entry))
        this.#entries.delete(key)
  }

  /**
   * What workers load. A version out of service is included only if it can return without a reload.
   */
  get #loadable(): Generation[] {
    return this.serving.filter(({ source }) => this.#service.stateOf(source)?.isLoaded !== false)
  }

  /** Served versions that some or all workers refuse. */
  get outOfService(): readonly (VersionName & { readonly state: OutOfService; readonly workers: number })[] {
    return this.serving.flatMap(({ source: { name, version } }) => {
      const { state, workers } = this.#service.refusing({ name, version })
      return state === null ? [] : [{ name, version, state, workers }]
    })
  }

  /**
   * Takes a served version out of service in all current and future workers. With `isLoaded` they
   * still load it, so that it can return immediately. Returns false if it is not served or is out
   * of service for another reason.
   */
  takeOut(model: VersionName, state: OutOfService, choices: Pick<TakenOut, 'isLoaded'>): boolean {
    const generation = this.#entries.get(entryKey(model))?.serving
    return generation ? this.#service.takeOut(generation.facts, state, choices) : false
  }

  /**
   * Puts a version back that is out of service because of `code`, after workers without it have
   * loaded it.
   * @throws OnecopyError if a worker fails to load it: it stays out of service.
   */
  bringBack(model: VersionName, code: ErrorCode): Promise<void> {
    return this.#boots.bringBack(model, code, () => this.#entries.get(entryKey(model))?.serving ?? null)
  }

  /** Every known version, by name and version. */
  get index(): IndexEntry[] {
    return [...this.#entries.values()]
      .map((entry) => this.#describe(entry))
      .sort((a, b) => (entryKey(a) < entryKey(b) ? -1 : 1))
  }

  #describe(entry: Entry): IndexEntry {
    const out = entry.state === 'READY' ? this.#service.describe(entry) : null
    return describeEntry({ ...entry, ...out }, { keeps: this.#retirement.countOf(entry) })
  }

  /** Number of generations of a version in memory. */
  #countOf(entry: Entry): number {
    return (entry.serving === null ? 0 : 1) + this.#retirement.countOf(entry)
  }

  /**
   * Generations in memory of every version: the one that serves, and those with requests in flight.
   */
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

  #runExclusive<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#lastChange.then(work)
    this.#lastChange = result.catch(() => {})
    return result
  }

  /**
   * Serves a model version, in place of its current generation.
   * @throws OnecopyError if it cannot be served: the current generation stays.
   */
  load(source: ModelSource): Promise<void> {
    return this.#runExclusive(async () => {
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
   * Stops serving a model version. Resolves when its memory is free, or after `retireTimeoutMs`.
   * @throws OnecopyError MODEL_NOT_FOUND if it is not served.
   */
  unload(model: VersionName): Promise<void> {
    return this.#runExclusive(async () => {
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
          : 'the model was not replaced: the current generation stays',
      )
    onChange(this.#describe(entry), outcome)
  }

  /** With `onlySameContent`, fails if the model differs from the one that is served. */
  async #replace(
    entry: Entry,
    source: ModelSource,
    { onlySameContent = false }: { readonly onlySameContent?: boolean } = {},
  ): Promise<void> {
    const old = entry.serving
    const outState = this.#service.stateOf(entry)
    const oldKey = old?.segment.published.segment.header.key
    // Workers do not load this segment, so it must not be reused.
    const heldKeys = oldKey === undefined || outState?.isLoaded === false ? [] : [oldKey]
    const published = await this.#options.publish(source, {
      folderName: this.#nextFolderName(entry),
      heldKeys,
    })
    // Same content: the current segment stays, possibly under another config.
    if (published === null && isDeepStrictEqual(old?.source.config, source.config)) return
    const written = published === null ? null : await this.#open(published, entry)
    const segment = written ?? (old as Generation).segment
    let next: Generation | null = null
    try {
      next = await this.#generation(entry, source, segment)
      if (onlySameContent && published?.segment.header.key !== oldKey)
        throw new OnecopyError(
          'SEGMENT_INVALID',
          'the model in the repository has changed since it was loaded',
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

  /** Runs inside the queue of changes, when no worker sends new requests to the generation. */
  async #retire(old: Generation): Promise<void> {
    if (await this.#retirement.retire(old)) await this.#forgetCounts(old)
  }

  /** The counters of a version exist as long as any of its generations. */
  async #forgetCounts({ source, facts }: Generation): Promise<void> {
    const entry = this.#entries.get(entryKey(source))
    if (entry === undefined || this.#countOf(entry) === 0) await this.#options.stats.removeModel(facts.number)
  }

  /** Does not remove the segments. */
  async close(): Promise<void> {
    this.#boots.close()
    await this.#lastChange
    await Promise.all([...this.serving.map(({ segment }) => segment.close()), this.#retirement.close()])
  }
}
