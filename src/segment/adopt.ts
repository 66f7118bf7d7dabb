/**
 * Takes over a segment that a dead server left: its folder is renamed into the folder of this server, in the
 * same file system, so nothing is compiled and nothing copied. It is verified whole before it is used.
 * Of several servers that start at once, the rename decides who gets it.
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

/** A segment of a dead server against which nothing speaks yet; graph and weights are not verified. */
export interface Leftover {
  readonly path: string
  readonly model: string
  readonly version: string
  readonly header: SegmentHeader
}

/** What dead servers left whole in `segmentDir`. */
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

/** Puts back what was taken out of a segment between loads (raw-weights.ts), where anything was. */
async function makeWhole(path: string, header: SegmentHeader, imagePath: string | null): Promise<void> {
  const isWhole = header.rawRanges.length === 0 || (await allocatedBytes(path)) >= header.fileBytes
  // Without the image it stays as it is: verification finds out.
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
 * Moves a leftover into `server`'s folder and verifies it; what does not hold is removed. `imagePath` is the image
 * that the segment was written from, where the compile cache has it.
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
