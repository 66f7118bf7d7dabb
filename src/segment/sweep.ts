/** Removes what dead servers left in a segment folder, and nothing that a living server owns. */
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { isAlive } from '../process/identity.js'
import { readOwner, removeServerFolder, SERVER_FOLDER_PATTERN } from './folder.js'

/** An owner record that cannot be read is trusted to a start in progress for this long. */
const UNREADABLE_GRACE_MS = 60_000

/** Sweeps `segmentDir`; returns the paths removed. Folders of other users and unknown names are left alone. */
export async function sweepSegmentFolder(segmentDir: string): Promise<string[]> {
  const removed: string[] = []
  for (const name of await readdir(segmentDir).catch(() => [])) {
    if (!SERVER_FOLDER_PATTERN.test(name)) continue
    const path = join(segmentDir, name)
    const stat = await lstat(path).catch(() => null)
    if (stat === null || !stat.isDirectory() || stat.uid !== process.getuid?.()) continue
    const owner = await readOwner(path)
    const isDead = owner === null ? Date.now() - stat.mtimeMs > UNREADABLE_GRACE_MS : !isAlive(owner)
    if (!isDead) continue
    await removeServerFolder(path)
    removed.push(path)
  }
  return removed
}
