/**
 * Copies an image into shared memory while its trial runs are in progress. They use one CPU, and a
 * copy of a large image takes as long as they do.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { SegmentHeader } from '../segment/layout.js'
import { type CopiedSegment, readHeader } from '../segment/write.js'

/** Below this size a copy takes less time than it takes to notice that trial runs have begun. */
const WORTHWHILE_BYTES = 16 * 1024 * 1024

export interface EarlyCopyOptions {
  /** Whether memory suffices for the copy while the compilation is not over. */
  readonly hasRoomFor: (header: SegmentHeader) => boolean
  /** @throws OnecopyError as copySegment. */
  readonly copy: (imagePath: string) => Promise<CopiedSegment>
  /** Called before the copy begins. */
  readonly onBegin: () => void
}

export class EarlyCopy {
  readonly #options: EarlyCopyOptions
  #copying: Promise<CopiedSegment | null> = Promise.resolve(null)

  constructor(options: EarlyCopyOptions) {
    this.#options = options
  }

  /** Starts to copy an image, in place of an earlier one. */
  begin(imagePath: string): void {
    const discarded = this.discard()
    this.#copying = discarded.then(() => this.#copy(imagePath))
    // `take` reports the error.
    this.#copying.catch(() => {})
  }

  async #copy(imagePath: string): Promise<CopiedSegment | null> {
    const { hasRoomFor, copy, onBegin } = this.#options
    try {
      const header = await headerOf(imagePath)
      if (header.fileBytes < WORTHWHILE_BYTES || !hasRoomFor(header)) return null
      onBegin()
      return await copy(imagePath)
    } catch (thrown) {
      const { code, path } = thrown as NodeJS.ErrnoException
      // The trial runs have ended, and the image has its final name.
      if (code === 'ENOENT' && path === imagePath) return null
      throw thrown
    }
  }

  /**
   * The copy, which the caller finishes; null if there is none. @throws OnecopyError as
   * copySegment.
   */
  async take(): Promise<CopiedSegment | null> {
    const copying = this.#copying
    this.#copying = Promise.resolve(null)
    return await copying
  }

  async discard(): Promise<void> {
    const copied = await this.take().catch(() => null)
    await copied?.discard()
  }
}

async function headerOf(imagePath: string): Promise<SegmentHeader> {
  await using image = await open(imagePath, constants.O_RDONLY | constants.O_NOFOLLOW)
  return await readHeader(image)
}
