/**
 * Writes one segment from a compiled image: check the free space, write to a temporary name, sync,
 * read back and verify, make read-only, rename. All bytes are really written, because a sparse file
 * on a full tmpfs would raise SIGBUS at a later store. The rename ensures that no process opens an
 * incomplete segment.
 */
import { createHash } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import { type FileHandle, lstat, mkdir, open, rename, rm, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { OnecopyError } from '../errors.js'
import { formatBytes } from '../units.js'
import type { ServerFolder } from './folder.js'
import { chunksOf, fillSync, readExactly, writeFully, writeFullySync } from './io.js'
import {
  decodeHeader,
  decodePrefix,
  encodeHeader,
  PREFIX_BYTES,
  SEGMENT_FILE_NAME,
  type SegmentHeader,
  TEMPORARY_FILE_NAME,
} from './layout.js'

const SEALED_MODE = 0o400
/** Fits into the second-level cache of a core. */
const PART_BYTES = 256 * 1024

export interface SegmentFile {
  readonly path: string
  readonly folder: string
  readonly bytes: number
  readonly inode: number
  /** ctime in nanoseconds since 1970, which the owner cannot set. */
  readonly changedNs: bigint
  readonly header: SegmentHeader
}

export interface WriteSegmentOptions {
  /** A compiled image: a segment file without an owner. */
  readonly imagePath: string
  readonly server: ServerFolder
  readonly model: { readonly name: string; readonly version: string }
  /** Name of the segment's folder; the default is NAME@VERSION. */
  readonly folderName?: string
  /** Free space that is already reserved. */
  readonly reservedBytes?: number
  /** Called before anything is written; throws to reject the segment. */
  readonly admit?: (header: SegmentHeader) => void
}

/** Why a file was not sealed by `writeSegment` for this user; null if it was. */
export function sealProblem(stat: Stats): string | null {
  if (!stat.isFile()) return 'expected a regular file'
  if (stat.uid !== process.getuid?.()) return `expected owner ${process.getuid?.()}, got ${stat.uid}`
  const mode = stat.mode & 0o777
  return mode === SEALED_MODE ? null : `expected mode 0400, got 0${mode.toString(8)}`
}

/** Describes a verified segment under its final name. */
export async function sealedFile(path: string, header: SegmentHeader): Promise<SegmentFile> {
  const { ino, ctimeNs } = await lstat(path, { bigint: true })
  return {
    ...{ path, header, folder: dirname(path), bytes: header.fileBytes },
    inode: Number(ino),
    changedNs: ctimeNs,
  }
}

/** Reads and validates the header of an open segment or image. */
export async function readHeader(file: FileHandle): Promise<SegmentHeader> {
  const { headerBytes } = decodePrefix(await readExactly(file, PREFIX_BYTES, 0))
  return decodeHeader(await readExactly(file, headerBytes, 0))
}

/** Gaps between the parts of a file must be zero. */
async function verifyGap(file: FileHandle, from: number, to: number): Promise<void> {
  for await (const { position, bytes } of chunksOf(file, from, to)) {
    const at = bytes.findIndex((byte) => byte !== 0)
    if (at >= 0)
      throw new OnecopyError(
        'SEGMENT_INVALID',
        `expected zeros between its parts, got another value at byte ${position + at}`,
      )
  }
}

/**
 * Reads a whole segment or image and compares it with its header. `readCrc32` is the checksum of
 * the data where it has been read already.
 * @throws OnecopyError SEGMENT_INVALID naming the difference.
 */
export async function verifySegment(
  file: FileHandle,
  { readCrc32 }: { readonly readCrc32?: number } = {},
): Promise<SegmentHeader> {
  const header = await readHeader(file)
  const { size } = await file.stat()
  if (size !== header.fileBytes) {
    throw new OnecopyError('SEGMENT_INVALID', `expected ${header.fileBytes} bytes, the file has ${size}`)
  }
  const { jsonBytes } = decodePrefix(await readExactly(file, PREFIX_BYTES, 0))
  const graphEnd = header.graph.offsetBytes + header.graph.bytes
  await verifyGap(file, PREFIX_BYTES + jsonBytes, header.graph.offsetBytes)
  await verifyGap(file, graphEnd, header.data.offsetBytes)
  const graphHash = createHash('sha256')
  for await (const { bytes } of chunksOf(file, header.graph.offsetBytes, graphEnd)) graphHash.update(bytes)
  if (graphHash.digest('hex') !== header.graph.sha256) {
    throw new OnecopyError('SEGMENT_INVALID', 'the graph does not match its digest')
  }
  const dataCrc32 = readCrc32 ?? (await crc32Of(file, header.data.offsetBytes, size))
  if (dataCrc32 !== header.data.crc32) {
    throw new OnecopyError('SEGMENT_INVALID', 'the weights do not match their checksum')
  }
  return header
}

async function crc32Of(file: FileHandle, from: number, to: number): Promise<number> {
  let sum = 0
  for await (const { bytes } of chunksOf(file, from, to)) sum = crc32(bytes, sum)
  return sum
}

/**
 * Copies the data of an image, and reads each part back while it is in the processor's cache.
 * Shared memory is written synchronously: a turn of the thread pool for each part would cost as
 * much as the copy.
 * @returns the checksum of what was read back.
 */
async function copyData(
  image: FileHandle,
  file: FileHandle,
  { data, fileBytes }: SegmentHeader,
): Promise<number> {
  const readBack = Buffer.alloc(PART_BYTES)
  let sum = 0
  for await (const { position, bytes } of chunksOf(image, data.offsetBytes, fileBytes)) {
    for (let start = 0; start < bytes.length; start += PART_BYTES) {
      const part = bytes.subarray(start, start + PART_BYTES)
      writeFullySync(file.fd, part, position + start)
      sum = crc32(fillSync(readBack.subarray(0, part.length), file.fd, position + start), sum)
    }
  }
  return sum
}

export function spaceError(
  segmentDir: string,
  {
    neededBytes,
    availableBytes,
    cause,
  }: { readonly neededBytes: number; readonly availableBytes: number | null; readonly cause?: unknown },
): OnecopyError {
  const have = availableBytes === null ? 'the file system is full' : `${formatBytes(availableBytes)} are free`
  return new OnecopyError(
    'SEGMENT_SPACE',
    `the segment needs ${formatBytes(neededBytes)} in ${segmentDir}, ${have}: raise the size of that tmpfs ` +
      '(docker run --shm-size, the sizeLimit of a Kubernetes emptyDir, mount -o remount,size=) or point --segment-dir elsewhere',
    cause === undefined ? {} : { cause },
  )
}

export function isNoSpace(thrown: unknown): boolean {
  const code = (thrown as NodeJS.ErrnoException).code
  return code === 'ENOSPC' || code === 'EDQUOT'
}

/**
 * A segment without its header under a temporary name. Exactly one of the two functions must be
 * called.
 */
export interface CopiedSegment {
  /**
   * Writes the image's header as it is now, verifies the file and gives it its name.
   * @throws OnecopyError SEGMENT_INVALID if the image is damaged; nothing is left then.
   */
  finish(): Promise<SegmentFile>
  /** Removes the file. */
  discard(): Promise<void>
}

/**
 * Copies the graph and the data of an image, whose header may still change, into the server's
 * folder.
 * @throws OnecopyError SEGMENT_SPACE if it does not fit, SEGMENT_INVALID, and what `admit` throws;
 *   nothing is left then.
 */
export async function copySegment(options: WriteSegmentOptions): Promise<CopiedSegment> {
  const { server, model } = options
  const folder = join(server.path, options.folderName ?? `${model.name}@${model.version}`)
  const path = join(folder, SEGMENT_FILE_NAME)
  const temporaryPath = join(folder, TEMPORARY_FILE_NAME)
  const image = await open(options.imagePath, constants.O_RDONLY | constants.O_NOFOLLOW)
  let file: FileHandle | undefined
  const close = async () => {
    await file?.close()
    await image.close()
  }
  const discard = async () => {
    await close()
    await rm(folder, { recursive: true, force: true })
  }
  const orDiscard = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (thrown) {
      const neededBytes = isNoSpace(thrown) ? (await image.stat()).size : null
      await discard()
      if (neededBytes === null) throw thrown
      throw spaceError(server.path, { neededBytes, availableBytes: null, cause: thrown })
    }
  }
  const readCrc32 = await orDiscard(async () => {
    const header = await readHeader(image)
    options.admit?.(header)
    const { bavail, bsize } = await statfs(server.path)
    const availableBytes = Math.max(0, bavail * bsize - (options.reservedBytes ?? 0))
    if (header.fileBytes > availableBytes)
      throw spaceError(server.path, { neededBytes: header.fileBytes, availableBytes })
    await mkdir(folder, { mode: 0o700 })
    file = await open(
      temporaryPath,
      constants.O_CREAT | constants.O_EXCL | constants.O_RDWR | constants.O_NOFOLLOW,
      0o600,
    )
    for await (const { position, bytes } of chunksOf(
      image,
      header.graph.offsetBytes,
      header.data.offsetBytes,
    )) {
      await writeFully(file, bytes, position)
    }
    return await copyData(image, file, header)
  })
  const finish = () =>
    orDiscard(async () => {
      const written = file as FileHandle
      const header: SegmentHeader = { ...(await readHeader(image)), owner: server.owner, model }
      await writeFully(written, encodeHeader(header, header.graph.offsetBytes), 0)
      await written.sync()
      await verifySegment(written, { readCrc32 })
      await written.chmod(SEALED_MODE)
      await rename(temporaryPath, path)
      await close()
      return await sealedFile(path, header)
    })
  return { finish, discard }
}

/**
 * Writes the segment of one model version into the server's folder.
 * @throws OnecopyError SEGMENT_SPACE if it does not fit, SEGMENT_INVALID if the image is damaged.
 */
export async function writeSegment(options: WriteSegmentOptions): Promise<SegmentFile> {
  return await (await copySegment(options)).finish()
}
