/**
 * Adopts a segment that a dead server left: its folder is renamed into the folder of this server on the same
 * file system, so nothing is compiled or copied. The segment is verified completely before use. If several
 * servers start concurrently, the rename decides which one gets it.
 */
import { constants } from 'node:fs'
import { open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { messageOf } from '../errors.js'
import type { ServerFolder } from './folder.js'
import { allocatedBytes, openSealed } from './holes.js'
import { SEGMENT_FILE_NAME, type SegmentHeader } from './layout.js'
import { listServers } from './listing.js'
import { restoreRanges } from './raw-weights.js'
import { readHeader, type SegmentFile, sealedFile, sealProblem, verifySegment } from './write.js'

/** A segment of a dead server without known problems; graph and weights are not verified yet. */
export interface Leftover {
  readonly path: string
  readonly model: string
  readonly version: string
  readonly header: SegmentHeader
}

/** The complete segments of dead servers in `segmentDir`. */
export async function findLeftovers(segmentDir: string): Promise<Leftover[]> {
  const servers = await listServers(segmentDir)
  return servers
    .filter(({ state }) => state === 'dead')
    .flatMap(({ segments }) => segments)
    .flatMap(({ path, model, version, header, problem }) =>
      header === null || problem !== null ? [] : [{ path, model, version, header }],
    )
}

export type Adoption =
  | { readonly outcome: 'adopted'; readonly segment: SegmentFile }
  | { readonly outcome: 'refused'; readonly reason: string }

/** Restores raw weights that were released from the segment (raw-weights.ts), if any. */
async function makeWhole(path: string, header: SegmentHeader, imagePath: string | null): Promise<void> {
  const isWhole = header.rawRanges.length === 0 || (await allocatedBytes(path)) >= header.fileBytes
  // Without the image the segment stays incomplete, which verification detects.
  if (isWhole || imagePath === null) return
  const image = await open(imagePath, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const file = await openSealed(path)
    try {
      const { rawRanges: ranges, data } = header
      await restoreRanges({ file, image, dataOffsetBytes: data.offsetBytes, ranges })
    } finally {
      await file.close()
    }
  } finally {
    await image.close()
  }
}

/**
 * Moves a leftover into `server`'s folder and verifies it; an invalid one is removed. `imagePath` is the
 * image from which the segment was written, if the compile cache has it.
 */
export async function adoptSegment(
  leftover: Leftover,
  server: ServerFolder,
  imagePath: string | null,
): Promise<Adoption> {
  const folder = join(server.path, `${leftover.model}@${leftover.version}`)
  try {
    await rename(dirname(leftover.path), folder)
  } catch (thrown) {
    return { outcome: 'refused', reason: `it cannot be moved: ${messageOf(thrown)}` }
  }
  try {
    for (const name of await readdir(folder))
      if (name !== SEGMENT_FILE_NAME) await rm(join(folder, name), { recursive: true })
    const path = join(folder, SEGMENT_FILE_NAME)
    const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
    try {
      const problem = sealProblem(await file.stat())
      if (problem !== null) throw new Error(problem)
      await makeWhole(path, await readHeader(file), imagePath)
      const header = await verifySegment(file)
      return { outcome: 'adopted', segment: await sealedFile(path, header) }
    } finally {
      await file.close()
    }
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true })
    return { outcome: 'refused', reason: messageOf(thrown) }
  }
}
