/**
 * The model versions of the fleet: what is served, in which state, and how that changes while it is.
 *
 * A new generation of a version is compiled and written beside the old one, loaded by every worker
 * beside the old one, and only when all have it they are told to answer with it; the old one answers what it
 * began, is unloaded everywhere, and its segment is removed last. Whatever fails before that step leaves the
 * old one serving. Changes are made one at a time, in the order they were asked for.
 */
import { isDeepStrictEqual } from 'node:util'
import type { IndexEntry, ModelState } from '../src/api/schemas.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import type { Log } from '../src/log.js'
import type { PublishedModel } from '../src/model/publish.js'
import type { ModelSource } from '../src/model/repository.js'
import { logBatching } from './batching-log.js'
import { LiveSegment, leaseAll } from './live-segment.js'
import type { SegmentMessage } from './messages.js'
import type { FleetStats } from './stats.js'
import type { WorkerHandle } from './worker-handle.js'

interface Generation {
  /** Where the model version came from, and under which config. */
  readonly source: ModelSource
  readonly segment: LiveSegment
  /** What workers are told of it, but for the segment, which can change in time. */
  readonly facts: Omit<SegmentMessage, 'segment'>
}

function messageOfGeneration({ facts, segment }: Generation): SegmentMessage {
  return { ...facts, segment: segment.reference }
}

interface Entry {
  readonly name: string
  readonly version: string
  state: ModelState
  reason: string
  serving: Generation | null
  /** How many there have been, of generations and of folders in shared memory. */
  generations: number
  folders: number
}

export interface CatalogueOptions {
  readonly stats: FleetStats
  readonly log: Log
  /** Compiles and writes one model version into a folder of that name; null where its content is held already. */
  readonly publish: (
    source: ModelSource,
    choices: { readonly folderName: string; readonly heldKeys: readonly string[] },
  ) => Promise<PublishedModel | null>
  /** The memory of a folder's segment is free again. */
  readonly release: (folderName: string) => void
  /** Every process that may have a segment mapped. */
  readonly processes: () => readonly number[]
  /** Workers that are alive and not on their way out, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** A worker that cannot follow: it is to be replaced. */
  readonly condemn: (worker: WorkerHandle, failure: OnecopyError) => void
  /** How a change ended. */
  readonly onChange: (model: IndexEntry, outcome: 'loaded' | 'unloaded' | 'failed') => void
  readonly prepareTimeoutMs: number
  readonly retireTimeoutMs: number
}

function entryKey({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name}@${version}`
}

function keyOf({ facts }: Generation): string {
  return facts.key
}

/** Clients of a version rely on its inputs and outputs. */
function requireSameInterface(old: Generation, next: Generation): void {
  const of = ({ segment: { published } }: Generation) => ({
    inputs: published.segment.header.inputs,
    outputs: published.segment.header.outputs,
  })
  if (isDeepStrictEqual(of(old), of(next))) return
  throw new OnecopyError(
    'INTERFACE_CHANGED',
    `expected the inputs and outputs that version ${old.facts.version} has, ${JSON.stringify(of(old))}, got ` +
      `${JSON.stringify(of(next))}: give it a new version, or unload the old one first`,
  )
}

export class Catalogue {
  readonly #options: CatalogueOptions
  readonly #entries = new Map<string, Entry>()
  #turn: Promise<unknown> = Promise.resolve()
  #onBegun: () => void = () => {}
  readonly #begun = new Promise<void>((resolve) => {
    this.#onBegun = resolve
  })

  constructor(options: CatalogueOptions) {
    this.#options = options
  }

  /** Takes in what was published before any worker serves. */
  async begin(published: readonly PublishedModel[]): Promise<void> {
    for (const one of published) {
      const entry = this.#entryOf(one.source)
      entry.folders = 1
      entry.serving = await this.#generation(entry, one.source, await this.#open(one, entry))
      entry.state = 'READY'
    }
    this.#onBegun()
  }

  /**
   * Says what a worker that starts now is to serve, once there is anything and all of it is whole; it stays so until the returned function
   * is called.
   * @throws OnecopyError why a segment cannot be made whole.
   */
  async lease(take: (segments: SegmentMessage[]) => void): Promise<() => void> {
    await this.#begun
    for (;;) {
      const generations = this.#serving
      const isCurrent = () => isDeepStrictEqual(generations.map(keyOf), this.#serving.map(keyOf))
      let release: () => void
      try {
        release = await leaseAll(generations.map(({ segment }) => segment))
      } catch (thrown) {
        // What is not served any more cannot be, and need not be, made whole.
        if (isCurrent()) throw thrown
        continue
      }
      if (isCurrent()) {
        take(generations.map(messageOfGeneration))
        return release
      }
      release()
    }
  }

  get published(): PublishedModel[] {
    return this.#serving.map(({ segment }) => segment.published)
  }

  /** Memory that the next load will take again. */
  get releasedBytes(): number {
    return this.#serving.reduce((sum, { segment }) => sum + segment.releasedBytes, 0)
  }

  /** The versions that answer. */
  get served(): { readonly name: string; readonly version: string }[] {
    return this.#serving.map(({ source: { name, version } }) => ({ name, version }))
  }

  get #serving(): Generation[] {
    return [...this.#entries.values()].flatMap(({ serving }) => serving ?? [])
  }

  /** Every version that was ever asked for, by name and version. */
  get index(): IndexEntry[] {
    return [...this.#entries.values()]
      .map(({ name, version, state, reason }) => ({ name, version, state, reason }))
      .sort((a, b) => (entryKey(a) < entryKey(b) ? -1 : 1))
  }

  #entryOf({ name, version }: { readonly name: string; readonly version: string }): Entry {
    const known = this.#entries.get(entryKey({ name, version }))
    if (known !== undefined) return known
    const entry: Entry = {
      name,
      version,
      state: 'LOADING',
      reason: '',
      serving: null,
      generations: 0,
      folders: 0,
    }
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
    entry.generations++
    const key = `${entryKey(entry)}#${entry.generations}`
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
   * Stops serving a model version; resolves when its memory is given back.
   * @throws OnecopyError MODEL_NOT_FOUND when it is not served.
   */
  unload(model: { readonly name: string; readonly version: string }): Promise<void> {
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
      await this.#changeAll(null, old)
      await old.segment.remove()
      entry.state = 'UNAVAILABLE'
      entry.reason = 'unloaded'
      this.#report(entry, 'unloaded')
    })
  }

  #report(entry: Entry, outcome: 'loaded' | 'unloaded' | 'failed'): void {
    const { name, version, state, reason } = entry
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
    onChange({ name, version, state, reason }, outcome)
  }

  async #replace(entry: Entry, source: ModelSource): Promise<void> {
    const old = entry.serving
    const heldKeys = old === null ? [] : [old.segment.published.segment.header.key]
    const published = await this.#options.publish(source, {
      folderName: this.#nextFolderName(entry),
      heldKeys,
    })
    // The same content: the segment that is there serves on, perhaps under another config.
    if (published === null && isDeepStrictEqual(old?.source.config, source.config)) return
    const written = published === null ? null : await this.#open(published, entry)
    const segment = written ?? (old as Generation).segment
    const next = await this.#generation(entry, source, segment)
    try {
      if (old !== null) requireSameInterface(old, next)
      const release = await segment.lease()
      try {
        await this.#prepareAll(next)
        entry.serving = next
        logBatching(this.#options.log, source, segment.published.segment.header)
        await this.#changeAll(next, old)
      } finally {
        release()
      }
    } catch (thrown) {
      await this.#changeAll(null, next)
      await written?.remove()
      throw thrown
    }
    if (written !== null) await old?.segment.remove()
  }

  /** Has every ready worker load a generation; a worker that ends meanwhile is no reason not to go on. */
  async #prepareAll(next: Generation): Promise<void> {
    const message = messageOfGeneration(next)
    const { workers, prepareTimeoutMs } = this.#options
    const ready = workers().filter(({ isReady }) => isReady)
    const outcomes = await Promise.allSettled(
      ready.map((worker) => worker.prepare(message, prepareTimeoutMs)),
    )
    for (const outcome of outcomes) {
      if (outcome.status === 'fulfilled') continue
      const thrown: unknown = outcome.reason
      if (!(thrown instanceof OnecopyError) || thrown.code !== 'WORKER_GONE') throw thrown
    }
  }

  /** Flips every worker, those that boot meanwhile too, and waits until nobody uses what is retired. */
  async #changeAll(next: Generation | null, old: Generation | null): Promise<void> {
    const { workers, prepareTimeoutMs, retireTimeoutMs, condemn } = this.#options
    const activate = next === null ? [] : [next.facts.key]
    const retire = old === null ? [] : [old.facts.key]
    const isConcerned = (worker: WorkerHandle) =>
      retire.some((key) => worker.holds.has(key)) || activate.some((key) => !worker.serves.has(key))
    const change = async (worker: WorkerHandle) => {
      try {
        // One that boots was told what was served when it started.
        await worker.ready
        if (next !== null && !worker.holds.has(next.facts.key))
          await worker.prepare(messageOfGeneration(next), prepareTimeoutMs)
        await worker.change({ activate, retire }, retireTimeoutMs)
      } catch (thrown) {
        if (thrown instanceof OnecopyError && thrown.code !== 'WORKER_GONE') condemn(worker, thrown)
      }
    }
    const changed = new Set<WorkerHandle>()
    for (;;) {
      const concerned = workers().filter((worker) => !changed.has(worker) && isConcerned(worker))
      if (concerned.length === 0) return
      for (const worker of concerned) changed.add(worker)
      await Promise.all(concerned.map(change))
    }
  }

  /** Leaves the segments as they are. */
  async close(): Promise<void> {
    await Promise.all(this.#serving.map(({ segment }) => segment.close()))
  }
}
