/**
 * Turns model sources into segments in the server's folder. Segments of dead servers are adopted or
 * removed; other models are compiled or taken from the cache.
 */
import { dirname } from 'node:path'
import { type CompileCache, closeCache, openCache } from '../../src/compile/cache.js'
import { evictImages } from '../../src/compile/cache-eviction.js'
import {
  type PublishedModel,
  type PublishOptions,
  publishModels,
  publishUnlessHeld,
} from '../../src/compile/publish.js'
import type { Config } from '../../src/config/config.js'
import { messageOf } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import { usableCpus } from '../../src/process/cpus.js'
import type { ModelSource } from '../../src/repository/repository.js'
import { runtimeVersion } from '../../src/runtime/identity.js'
import { findLeftovers, type Leftover } from '../../src/segment/adopt.js'
import { isInMemory, type ServerFolder } from '../../src/segment/folder.js'
import { sweepSegmentFolder } from '../../src/segment/sweep.js'
import type { MemoryBudget } from '../../src/sharing/memory-budget.js'
import { measureSegment } from '../../src/sharing/memory-requirements.js'
import { createProgress } from '../progress.js'

export interface PublisherOptions {
  readonly config: Config
  readonly log: Log
  readonly budget: MemoryBudget
  readonly signal: AbortSignal
  /** Memory that live segments need again for the next load. */
  readonly reservedBytes: () => number
}

export class Publisher {
  readonly #options: PublisherOptions

  constructor(options: PublisherOptions) {
    this.#options = options
  }

  /**
   * Finds segments of dead servers for the given models and this runtime version, and removes all
   * others.
   */
  async findLeftovers(sources: readonly ModelSource[]): Promise<Leftover[]> {
    const leftovers = (await findLeftovers(this.#options.config.segmentDir)).filter(
      ({ model, version, header }) =>
        header.runtimeVersion === runtimeVersion() &&
        sources.some((source) => source.name === model && source.version === version),
    )
    // Unusable segments are removed first, to free memory.
    await this.#sweep(new Set(leftovers.map(({ path }) => dirname(dirname(path)))))
    return leftovers
  }

  async #sweep(spared?: ReadonlySet<string>): Promise<void> {
    for (const path of await sweepSegmentFolder(this.#options.config.segmentDir, spared)) {
      this.#options.log.warn({ path }, 'removed the segments of a dead server')
    }
  }

  async #withOptions<T>(server: ServerFolder, publish: (options: PublishOptions) => Promise<T>): Promise<T> {
    const { budget, signal } = this.#options
    const { cacheDir, segmentDir, compileTimeoutMs, rawWeights } = this.#options.config
    const cache = await openCache(cacheDir)
    if (cache.problem !== null)
      this.#options.log.warn({ cacheDir, reason: cache.problem }, 'the compile cache cannot be used')
    try {
      const published = await publish({
        server,
        cache,
        budget,
        hasRoomFor: (key, header) => budget.hasRoomFor(key, header),
        measure: (key, segment) =>
          measureSegment(segment, { cache, signal, hasRoom: budget.hasRoomFor(key, segment.header) }),
        compileTimeoutMs,
        concurrency: usableCpus(),
        keepsImages: rawWeights === 'release' && (await isInMemory(segmentDir)),
        signal,
        reservedBytes: this.#options.reservedBytes,
      })
      await this.#evict(cache)
      return published
    } finally {
      await closeCache(cache)
    }
  }

  /** Published models are locked and stay in the cache. */
  async #evict(cache: CompileCache): Promise<void> {
    const { cacheDir, cacheMaxBytes } = this.#options.config
    if (cacheMaxBytes === 0) return
    try {
      const eviction = await evictImages(cache, cacheMaxBytes)
      if (eviction !== null && eviction.removed > 0)
        this.#options.log.info({ cacheDir, ...eviction }, 'evicted unused models from the compile cache')
    } catch (thrown) {
      this.#options.log.warn(
        { cacheDir, reason: messageOf(thrown) },
        'cannot evict models from the compile cache',
      )
    }
  }

  /**
   * Publishes one version into the given folder at run time; null if a held segment has the same
   * content.
   */
  publishOne(
    source: ModelSource,
    server: ServerFolder,
    { folderName, heldKeys }: { readonly folderName: string; readonly heldKeys: readonly string[] },
  ): Promise<PublishedModel | null> {
    return this.#withOptions(server, (options) =>
      publishUnlessHeld(source, heldKeys, { ...options, folderName: () => folderName }),
    )
  }

  /**
   * Publishes every version at startup and shows the progress, then removes the remaining
   * leftovers.
   */
  async publishAll(
    sources: readonly ModelSource[],
    server: ServerFolder,
    {
      onRoomForWorkers = () => {},
      ...choices
    }: Pick<PublishOptions, 'leftovers' | 'onFailed'> & {
      /** Called when memory suffices for workers and what remains to be compiled. */
      readonly onRoomForWorkers?: () => void
    },
  ): Promise<PublishedModel[]> {
    const { budget } = this.#options
    const progress = createProgress(sources.length, this.#options.log)
    try {
      const published = await this.#withOptions(server, (options) =>
        publishModels(sources, {
          ...options,
          ...choices,
          onCompiling: (modelBytes) => {
            if (budget.hasRoomToCompile(modelBytes, sources.length)) onRoomForWorkers()
          },
          onAllCompiled: onRoomForWorkers,
          onRefused: ({ name, version }, reason) =>
            this.#options.log.warn(
              { model: name, version, reason },
              'the segment of a dead server was not adopted',
            ),
          onStart: (source) => progress.started(source),
          onDone: (one, done, total) => progress.done(one, done, total),
        }),
      )
      await this.#sweep()
      return published
    } finally {
      progress.end()
    }
  }
}
