/**
 * A segment while it is served: kept mapped by the primary, down to one copy of its weights between loads, and made
 * again where the compile cache cannot give back what was taken out of it.
 */
import { basename } from 'node:path'
import type { PublishedModel } from '../../src/compile/publish.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import { type AttachedSegment, attachSegment, type SegmentReference } from '../../src/segment/attach.js'
import { removeFolder } from '../../src/segment/folder.js'
import { RawWeights } from '../../src/segment/raw-weights.js'

export interface LiveSegmentOptions {
  readonly log: Log
  /** Makes the segment of the same model version anew, in a folder of its own. */
  readonly publishAgain: () => Promise<PublishedModel | null>
  /** The memory of a folder's segment is free again. */
  readonly release: (folderName: string) => void
  /** Every process that may have it mapped. */
  readonly processes: () => readonly number[]
}

/** One file and what goes with it. */
interface Stand {
  readonly published: PublishedModel
  readonly attached: AttachedSegment
  /** Null where its raw weights stay. */
  readonly raw: RawWeights | null
}

export class LiveSegment {
  readonly #options: LiveSegmentOptions
  #stand: Stand
  #mending: Promise<void> | undefined
  #isRemoved = false

  private constructor(stand: Stand, options: LiveSegmentOptions) {
    this.#stand = stand
    this.#options = options
  }

  /** @throws OnecopyError SEGMENT_INVALID when it is not what was published; nothing of it is left then. */
  static async open(published: PublishedModel, options: LiveSegmentOptions): Promise<LiveSegment> {
    return new LiveSegment(await standOrDrop(published, options), options)
  }

  get published(): PublishedModel {
    return this.#stand.published
  }

  get releasedBytes(): number {
    return this.#stand.raw?.releasedBytes ?? 0
  }

  /** What a process attaches by while a lease is held. */
  get reference(): SegmentReference {
    return this.#stand.raw?.reference ?? this.#stand.published.reference
  }

  /**
   * Resolves when the segment is whole, and keeps it so until the returned function is called: taken before any load.
   * @throws OnecopyError why it cannot be made whole.
   */
  async lease(): Promise<() => void> {
    const { raw } = this.#stand
    if (raw === null) return () => {}
    try {
      return await raw.lease()
    } catch (thrown) {
      // Room in shared memory is not made by a second copy.
      if (!(thrown instanceof OnecopyError) || thrown.code !== 'SEGMENT_INVALID') throw thrown
      if (this.#stand.raw === raw) {
        this.#mending ??= this.#mend(thrown).finally(() => {
          this.#mending = undefined
        })
        await this.#mending
      }
      return await this.lease()
    }
  }

  /** Those who have the old file loaded keep it until they end. */
  async #mend(why: OnecopyError): Promise<void> {
    const { log, publishAgain } = this.#options
    const old = this.#stand
    const { name: model, version } = old.published.source
    log.warn({ model, version, reason: why.message }, 'making the segment anew')
    const published = await publishAgain()
    if (published === null) throw why
    const { key } = published.segment.header
    if (key !== old.published.segment.header.key) {
      await drop({ published, raw: null }, this.#options)
      throw new OnecopyError(
        'SEGMENT_INVALID',
        `${why.message}; and the model in the repository is not the one that is served any more`,
      )
    }
    const made = await standOrDrop(published, this.#options)
    if (this.#isRemoved) {
      await drop(made, this.#options)
      throw why
    }
    this.#stand = made
    await drop(old, this.#options)
  }

  /** Removes it, also while it is made anew; whoever has it loaded keeps it until it ends. Idempotent. */
  async remove(): Promise<void> {
    if (this.#isRemoved) return
    this.#isRemoved = true
    await drop(this.#stand, this.#options)
  }

  /** Leaves the file as it is. */
  async close(): Promise<void> {
    await this.#stand.raw?.close()
    await this.#stand.published.use?.close()
  }
}

async function stand(published: PublishedModel, { log, processes }: LiveSegmentOptions): Promise<Stand> {
  const { source, segment, image, reference } = published
  const facts = { model: source.name, version: source.version }
  const attached = await attachSegment(reference)
  if (image === null) return { published, attached, raw: null }
  const raw = new RawWeights({
    ...{ segment, image, processes },
    onReleased: (bytes) => log.info({ ...facts, bytes }, 'released weights that only a load needs'),
    onKept: (reason) =>
      log.warn({ ...facts, reason }, 'weights that only a load needs stay in shared memory'),
  })
  return { published, attached, raw }
}

async function standOrDrop(published: PublishedModel, options: LiveSegmentOptions): Promise<Stand> {
  try {
    return await stand(published, options)
  } catch (thrown) {
    await drop({ published, raw: null }, options)
    throw thrown
  }
}

async function drop(
  { published, raw }: Pick<Stand, 'published' | 'raw'>,
  { release }: LiveSegmentOptions,
): Promise<void> {
  await (raw ?? published.image)?.close()
  await published.use?.close()
  await removeFolder(published.segment.folder)
  release(basename(published.segment.folder))
}

/** Takes leases of several segments; `failures` says of each, in their order, why there is none, or null. */
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
