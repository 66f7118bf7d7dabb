/**
 * Reduces a segment to one copy of the weights.
 *
 * A segment contains the weights twice: raw, as in the graph, and packed for the kernels. The runtime needs the raw
 * ones only while it loads: it repeats the packing to find the packed copy, and then unmaps the raw weights. Between
 * loads their pages are released. Before the next load they are restored from the compile cache, whose file is kept
 * open meanwhile, so that deleting it does no harm.
 *
 * While they are released, the file reads as zeros there, and a session loaded from it would silently compute wrong
 * results. Therefore:
 * - loading requires a lease, which is granted once everything is restored; nothing is released while one is held;
 * - every range is restored with a check of its own checksum;
 * - ranges that a worker still maps are never released (a weight shared by two operators stays in use);
 * - processes of other servers share the lock on the file while they use it (attachWhole), which prevents releasing;
 * - releasing and restoring change the ctime of the file, so attachSegment rejects an older reference;
 * - a server that adopts the segment of a dead server first restores it and verifies the whole file.
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

/** Below this size, restoring for every load is not worthwhile. */
const WORTHWHILE_BYTES = 1024 * 1024
/** Loads come in groups: workers boot together, and restarts replace workers one after another. */
const QUIET_MS = 5000

export interface RawWeightsOptions {
  readonly segment: SegmentFile
  /** The complete image, read-only; owned by this object from now on. */
  readonly image: FileHandle
  /** Every process that may have mapped the segment. */
  readonly processes: () => readonly number[]
  /** Time without a lease before the raw weights are released, in milliseconds. */
  readonly quietMs?: number
  readonly onReleased: (bytes: number) => void
  /** Called with the reason when the raw weights stay in memory from now on. */
  readonly onKept: (reason: string) => void
}

function sumBytes(ranges: readonly RawRange[]): number {
  return ranges.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** Whether there is enough to release. */
export function hasWorthwhileRanges(ranges: readonly RawRange[]): boolean {
  return canPunchHoles() && sumBytes(ranges) >= WORTHWHILE_BYTES
}

/**
 * Restores ranges of a segment from the image.
 * @throws OnecopyError SEGMENT_INVALID if the image does not match the checksums, SEGMENT_SPACE if memory is
 *   insufficient.
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
        `the compile cache no longer contains the raw weights: ${range.bytes} bytes at ${from} do not match their checksum`,
      )
  }
}

/** The raw weights of one segment in use. */
export class RawWeights {
  readonly #options: RawWeightsOptions
  #reference: SegmentReference
  /** Ranges that are currently released. */
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

  /** What a process needs to attach while it holds a lease; it changes with each release and restore. */
  get reference(): SegmentReference {
    return this.#reference
  }

  /** Memory that the next load allocates again. */
  get releasedBytes(): number {
    return sumBytes(this.#released)
  }

  /**
   * Restores the file and keeps it complete until the returned function is called.
   * @throws OnecopyError SEGMENT_INVALID if the cache cannot restore it, SEGMENT_SPACE.
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

  /** Permanent: if releasing fails once, it is not tried again. */
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
      // Set before the first hole, so that after a partial failure the file is known to be incomplete.
      this.#released = unused
      for (const { offsetBytes, bytes } of unused)
        if (!punchHole(file.fd, start + offsetBytes, bytes))
          throw new Error('the file system cannot release parts of files')
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

  /** The file is not changed any more. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#turn
    await this.#options.image.close().catch(() => {})
  }
}
