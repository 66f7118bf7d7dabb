/**
 * A segment while it is served. The primary keeps it mapped. Between loads it holds only one copy
 * of the weights; if the compile cache cannot restore the released raw weights, the segment is
 * rebuilt.
 */
import { basename } from 'node:path'
import type { PublishedModel } from '../../src/compile/publish.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import { type AttachedSegment, attachSegment, type SegmentReference } from '../../src/segment/attach.js'
import { removeFolder } from '../../src/segment/folder.js'
import { useHugePages } from '../../src/segment/huge-pages.js'
import { RawWeights } from '../../src/segment/raw-weights.js'

export interface LiveSegmentOptions {
  readonly log: Log
  /** Publishes the same model version again, in a new folder. */
  readonly publishAgain: () => Promise<PublishedModel | null>
  /** The memory of this folder's segment is free again. */
  readonly release: (folderName: string) => void
  /** Every process that may map it. */
  readonly processes: () => readonly number[]
}

/** A published segment and the resources that belong to it. */
interface SegmentFile {
  readonly published: PublishedModel
  readonly attached: AttachedSegment
  /** Null if its raw weights are never released. */
  readonly raw: RawWeights | null
}

export class LiveSegment {
  readonly #options: LiveSegmentOptions
  #open: SegmentFile
  #rebuilding: Promise<void> | undefined
  #isRemoved = false
  #isClosed = false
  /** Leases of loads; the first time that none is left, the segment moves into huge pages. */
  #leases = 0
  #moving: { readonly done: Promise<void>; readonly stop: AbortController } | undefined

  private constructor(open: SegmentFile, options: LiveSegmentOptions) {
    this.#open = open
    this.#options = options
  }

  /**
   * @throws OnecopyError SEGMENT_INVALID if it differs from what was published; the segment is then
   *   removed.
   */
  static async open(published: PublishedModel, options: LiveSegmentOptions): Promise<LiveSegment> {
    return new LiveSegment(await openOrRemove(published, options), options)
  }

  get published(): PublishedModel {
    return this.#open.published
  }

  get releasedBytes(): number {
    return this.#open.raw?.releasedBytes ?? 0
  }

  /** How a process attaches to it while a lease is held. */
  get reference(): SegmentReference {
    return this.#open.raw?.reference ?? this.#open.published.reference
  }

  /**
   * Resolves when the segment is complete, and keeps it complete until the returned function is
   * called. Every load needs a lease.
   * @throws OnecopyError if it cannot be completed.
   */
  async lease(): Promise<() => void> {
    const release = await this.#lease()
    this.#leases++
    let isReleased = false
    return () => {
      if (isReleased) return
      isReleased = true
      this.#leases--
      if (this.#leases === 0) this.#moveToHugePages()
      release()
    }
  }

  async #lease(): Promise<() => void> {
    const { raw } = this.#open
    if (raw === null) return () => {}
    try {
      return await raw.lease()
    } catch (thrown) {
      // A second copy would not free shared memory.
      if (!(thrown instanceof OnecopyError) || thrown.code !== 'SEGMENT_INVALID') throw thrown
      if (this.#open.raw === raw) {
        this.#rebuilding ??= this.#rebuild(thrown).finally(() => {
          this.#rebuilding = undefined
        })
        await this.#rebuilding
      }
      return await this.#lease()
    }
  }

  /** Once for each file, and in the background, so that no start waits for it. */
  #moveToHugePages(): void {
    if (this.#moving !== undefined || this.#isRemoved || this.#isClosed) return
    const stop = new AbortController()
    this.#moving = { stop, done: this.#move(stop.signal) }
  }

  async #move(signal: AbortSignal): Promise<void> {
    const { log } = this.#options
    const { source, segment } = this.#open.published
    const facts = { model: source.name, version: source.version }
    try {
      // Raw weights stay complete meanwhile: a huge page with a hole would take more memory.
      const release = await this.#lease()
      try {
        const pages = await useHugePages(segment.path, segment.header, signal)
        log.debug({ ...facts, ...pages }, 'moved the segment into huge pages')
      } finally {
        release()
      }
    } catch (thrown) {
      // The segment can be used as it is.
      log.debug({ ...facts, reason: messageOf(thrown) }, 'the segment stays in small pages')
    }
  }

  async #stopMoving(): Promise<void> {
    this.#moving?.stop.abort()
    await this.#moving?.done
  }

  /** Processes that have loaded the old file keep it until they end. */
  async #rebuild(why: OnecopyError): Promise<void> {
    const { log, publishAgain } = this.#options
    const old = this.#open
    const { name: model, version } = old.published.source
    log.warn({ model, version, reason: why.message }, 'rebuilding the segment')
    const published = await publishAgain()
    if (published === null) throw why
    const { key } = published.segment.header
    if (key !== old.published.segment.header.key) {
      await removeFile({ published, raw: null }, this.#options)
      throw new OnecopyError(
        'SEGMENT_INVALID',
        `${why.message}; and the model in the repository has changed since it was loaded`,
      )
    }
    const rebuilt = await openOrRemove(published, this.#options)
    if (this.#isRemoved) {
      await removeFile(rebuilt, this.#options)
      throw why
    }
    this.#open = rebuilt
    this.#moving?.stop.abort()
    this.#moving = undefined
    await removeFile(old, this.#options)
  }

  /**
   * Removes the segment, even during a rebuild. Processes that have loaded it keep it until they
   * end. Idempotent.
   */
  async remove(): Promise<void> {
    if (this.#isRemoved) return
    this.#isRemoved = true
    await this.#stopMoving()
    await removeFile(this.#open, this.#options)
  }

  /** Does not remove the file. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.#stopMoving()
    await this.#open.raw?.close()
    await this.#open.published.use?.close()
  }
}

async function open(published: PublishedModel, { log, processes }: LiveSegmentOptions): Promise<SegmentFile> {
  const { source, segment, image, reference } = published
  const facts = { model: source.name, version: source.version }
  const attached = await attachSegment(reference)
  if (image === null) return { published, attached, raw: null }
  const raw = new RawWeights({
    ...{ segment, image, processes },
    onReleased: (bytes) => log.info({ ...facts, bytes }, 'released raw weights'),
    onKept: (reason) => log.warn({ ...facts, reason }, 'raw weights stay in shared memory'),
  })
  return { published, attached, raw }
}

async function openOrRemove(published: PublishedModel, options: LiveSegmentOptions): Promise<SegmentFile> {
  try {
    return await open(published, options)
  } catch (thrown) {
    await removeFile({ published, raw: null }, options)
    throw thrown
  }
}

async function removeFile(
  { published, raw }: Pick<SegmentFile, 'published' | 'raw'>,
  { release }: LiveSegmentOptions,
): Promise<void> {
  await (raw ?? published.image)?.close()
  await published.use?.close()
  await removeFolder(published.segment.folder)
  release(basename(published.segment.folder))
}

/**
 * Acquires a lease on each segment. `failures` has the error of each segment, or null, in the same
 * order.
 */
export async function leaseEach(
  segments: readonly LiveSegment[],
): Promise<{ readonly failures: readonly (OnecopyError | null)[]; readonly release: () => void }> {
  const outcomes = await Promise.allSettled(segments.map((segment) => segment.lease()))
  const failures = outcomes.map((outcome) => {
    if (outcome.status === 'fulfilled') return null
    const reason: unknown = outcome.reason
    return reason instanceof OnecopyError
      ? reason
      : new OnecopyError('SEGMENT_INVALID', messageOf(reason), { cause: reason })
  })
  const release = () => {
    for (const outcome of outcomes) if (outcome.status === 'fulfilled') outcome.value()
  }
  return { failures, release }
}
