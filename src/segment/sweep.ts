/** Removes the leftovers of dead servers from a segment folder, and nothing that a running server owns. */
import { readdir } from 'node:fs/promises'
import { removeFolder } from './folder.js'
import { readServerFolder } from './listing.js'

/**
 * Sweeps `segmentDir` and returns the removed paths. Folders of other users, unknown names and paths in
 * `spared` are kept.
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
