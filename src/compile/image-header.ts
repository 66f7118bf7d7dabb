/**
 * What trial runs show after an image is written goes into its header. A file of its own: the
 * primary parses no graphs.
 */
import type { FileHandle } from 'node:fs/promises'
import { writeFully } from '../segment/io.js'
import { encodeHeader, type SegmentHeader } from '../segment/layout.js'
import { readHeader } from '../segment/write.js'

/**
 * Changes the header of an open image. Only for a file that does not have its final name yet:
 * files in the cache or in shared memory never change.
 * @throws OnecopyError SEGMENT_INVALID if the new header does not fit its reserved space.
 */
export async function updateHeader(
  file: FileHandle,
  change: Partial<Pick<SegmentHeader, 'batching' | 'selfCheck'>>,
): Promise<void> {
  const header = await readHeader(file)
  await writeFully(file, encodeHeader({ ...header, ...change }, header.graph.offsetBytes), 0)
}
