/** Removes what dead servers left in a segment folder, and nothing that a living server owns. */
import { readdir } from 'node:fs/promises'
import { removeServerFolder } from './folder.js'
import { readServerFolder } from './listing.js'

/** Sweeps `segmentDir`; returns the paths removed. Folders of other users and unknown names are left alone. */
export async function sweepSegmentFolder(segmentDir: string): Promise<string[]> {
  const removed: string[] = []
  for (const name of await readdir(segmentDir).catch(() => [])) {
    const server = await readServerFolder(segmentDir, name)
    if (server?.state !== 'dead') continue
    await removeServerFolder(server.path)
    removed.push(server.path)
  }
  return removed
}
