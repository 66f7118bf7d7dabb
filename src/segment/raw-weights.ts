/**
 * Brings a segment down to one copy of the weights.
 *
 * A segment holds the weights twice: raw, as the graph has them, and packed, as the kernels want them. The runtime
 * needs the raw ones only while it loads: it recomputes the packing to find the packed copy, and then unmaps them.
 * Between loads the pages of the raw weights are given back to the system, and before the next load they are
 * written again, from the compile cache, whose file is held open meanwhile: it may be deleted, not taken away.
 *
 * While they are gone the file reads as zeros there, and a session loaded from it would answer wrongly without a word. So:
 * - whoever loads takes a lease first: it is given when everything is back, and nothing is released while one is held;
 * - every range is written back under its own checksum;
 * - what a worker still has mapped is never released (a weight that two operators share stays in use);
 * - processes that are none of the server's share the file's lock for as long as they use it (attachWhole), and then nothing is released;
 * - releasing and restoring change the file's time, so that a reference from before is refused by attachSegment;
 * - a start that takes over what a dead server left restores it first and verifies the whole file.
 */
import { type FileHandle, lstat } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { messageOf, OnecopyError } from '../errors.js'
import { tryHoldLock } from '../process/lock.js'
import { mappedRanges } from '../process/mappings.js'
import { referenceSegment, type SegmentReference } from './attach.js'
import { canPunchHoles, openSealed, punchHole } from './holes.js'
import { chunksOf, writeFully } from './io.js'
import type { RawRange } from './layout.js'
import { isNoSpace, type SegmentFile, spaceError } from './write.js'

/** Below this it is not worth restoring them for every load. */
const WORTHWHILE_BYTES = 1024 * 1024
/** Loads come in groups: workers boot together, restarts replace one after another. */
const QUIET_MS = 5000

export interface RawWeightsOptions {
  readonly segment: SegmentFile
  /** The whole image, read-only; owned from here on. */
  readonly image: FileHandle
  /** Every process that may have the segment mapped. */
  readonly processes: () => readonly number[]
  /** How long no lease must have been held before they are released, in milliseconds. */
  readonly quietMs?: number
  readonly onReleased: (bytes: number) => void
  /** They are kept from here on, and why. */
  readonly onKept: (reason: string) => void
}

function sumBytes(ranges: readonly RawRange[]): number {
  return ranges.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** Whether there is anything to release. */
export function hasWorthwhileRanges(ranges: readonly RawRange[]): boolean {
  return canPunchHoles() && sumBytes(ranges) >= WORTHWHILE_BYTES
}

/**
 * Writes ranges of a segment again.
 * @throws OnecopyError SEGMENT_INVALID when the image does not hold what was in them, SEGMENT_SPACE when there is no room.
 */
export async function restoreRanges(options: {
  readonly file: FileHandle
  readonly image: FileHandle
  readonly dataOffsetBytes: number
  readonly ranges: readonly RawRange[]
}): Promise<void> {
  const { file, image, dataOffsetBytes, ranges } = options
  for (const range of ranges) {
    const from = dataOffsetBytes + range.offsetBytes
    let found = 0
    for await (const { position, bytes } of chunksOf(image, from, from + range.bytes)) {
      found = crc32(bytes, found)
      await writeFully(file, bytes, position)
    }
    if (found !== range.crc32)
      throw new OnecopyError(
        'SEGMENT_INVALID',
        `the compile cache does not hold the raw weights any more: ${range.bytes} bytes at ${from} do not match their checksum`,
      )
  }
}

/** The raw weights of one living segment. */
export class RawWeights {
  readonly #options: RawWeightsOptions
  #reference: SegmentReference
  /** What is not in the file now. */
  #released: readonly RawRange[] = []
  #leases = 0
  #turn: Promise<unknown> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: RawWeightsOptions) {
    this.#options = options
    this.#reference = referenceSegment(options.segment)
    this.#releaseLater()
  }

  /** What a process attaches by while it holds a lease; before and after, another one. */
  get reference(): SegmentReference {
    return this.#reference
  }

  /** Memory that the next load will take again. */
  get releasedBytes(): number {
    return sumBytes(this.#released)
  }

  /**
   * Resolves when the file is whole, and keeps it so until the returned function is called.
   * @throws OnecopyError SEGMENT_INVALID when the cache cannot give them back, SEGMENT_SPACE.
   */
  async lease(): Promise<() => void> {
    this.#leases++
    clearTimeout(this.#timer)
    let isHeld = true
    const giveBack = () => {
      if (!isHeld) return
      isHeld = false
      this.#leases--
      this.#releaseLater()
    }
    try {
      await this.#inTurn(() => this.#restore())
      return giveBack
    } catch (thrown) {
      giveBack()
      throw thrown
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work)
    this.#turn = mine.catch(() => {})
    return mine
  }

  #releaseLater(): void {
    clearTimeout(this.#timer)
    if (this.#leases > 0 || this.#isClosed || this.#released.length > 0) return
    this.#timer = setTimeout(
      () => void this.#inTurn(() => this.#release()).catch((thrown) => this.#keep(messageOf(thrown))),
      this.#options.quietMs ?? QUIET_MS,
    ).unref()
  }

  /** For good: what cannot be released now cannot be later. */
  #keep(reason: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#options.onKept(reason)
  }

  async #release(): Promise<void> {
    const { segment, processes, onReleased } = this.#options
    if (this.#leases > 0 || this.#isClosed || this.#released.length > 0) return
    const mapped = (await Promise.all(processes().map((pid) => mappedRanges(pid, segment.inode)))).flat()
    const start = segment.header.data.offsetBytes
    const unused = segment.header.rawRanges.filter(({ offsetBytes, bytes }) =>
      mapped.every(
        (one) =>
          one.offsetBytes + one.bytes <= start + offsetBytes ||
          one.offsetBytes >= start + offsetBytes + bytes,
      ),
    )
    if (!hasWorthwhileRanges(unused)) return
    let isShared = false
    await this.#write(async (file) => {
      isShared = !tryHoldLock(file.fd)
      if (isShared) return
      // Before the first hole: a failure half way leaves a file that is known not to be whole.
      this.#released = unused
      for (const { offsetBytes, bytes } of unused)
        if (!punchHole(file.fd, start + offsetBytes, bytes))
          throw new Error('the file system does not give back parts of files')
    })
    if (isShared) this.#releaseLater()
    else onReleased(sumBytes(unused))
  }

  async #restore(): Promise<void> {
    const { segment, image } = this.#options
    if (this.#released.length === 0) return
    const dataOffsetBytes = segment.header.data.offsetBytes
    const ranges = this.#released
    try {
      await this.#write(async (file) => await restoreRanges({ file, image, dataOffsetBytes, ranges }))
    } catch (thrown) {
      if (!isNoSpace(thrown)) throw thrown
      const neededBytes = sumBytes(ranges)
      throw spaceError(segment.folder, { neededBytes, availableBytes: null, cause: thrown })
    }
    this.#released = []
  }

  async #write(change: (file: FileHandle) => Promise<void>): Promise<void> {
    const { path } = this.#options.segment
    const file = await openSealed(path)
    try {
      await change(file)
    } finally {
      await file.close()
      const { ctimeNs } = await lstat(path, { bigint: true })
      this.#reference = { ...this.#reference, changedNs: String(ctimeNs) }
    }
  }

  /** From here on the file is left as it is. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#turn
    await this.#options.image.close().catch(() => {})
  }
}
