/** Removes what dead servers left in a segment folder, and nothing that a living server owns. */
import { readdir } from 'node:fs/promises'
import { removeFolder } from './folder.js'
import { readServerFolder } from './listing.js'

/**
 * Sweeps `segmentDir`; returns the paths removed. Folders of other users and unknown names are left alone, and
 * so are those in `spared`.
 */
export async function sweepSegmentFolder(
  segmentDir: string,
  spared: ReadonlySet<string> = new Set(),
): Promise<string[]> {
  const removed: string[] = []
  for (const name of await readdir(segmentDir).catch(() => [])) {
    const server = await readServerFolder(segmentDir, name)
    if (server?.state !== 'dead' || spared.has(server.path)) continue
    await removeFolder(server.path)
    removed.push(server.path)
  }
  return removed
}
