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
import { SEGMENT_FILE_NAME, type SegmentHeader } from './layout.js'
import { listServers } from './listing.js'
import { type SegmentFile, sealedFile, sealProblem, verifySegment } from './write.js'

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

/** Moves a leftover into `server`'s folder and verifies it; what does not hold is removed. */
export async function adoptSegment(leftover: Leftover, server: ServerFolder): Promise<Adoption> {
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
