/**
 * Attaches a process to a segment. The head (header and graph) is mapped read-only and checked. The weights
 * are not touched here; the runtime maps them from the same file. The primary has verified the whole file, so
 * workers only check what could have been replaced since: owner, mode, size, inode, graph.
 */
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import { mapReadOnly } from '../mapping.js'
import { tryShareLock } from '../process/lock.js'
import { BLOCK_BYTES } from './holes.js'
import { decodeHeader, decodePrefix, PREFIX_BYTES, type SegmentHeader } from './layout.js'
import { type SegmentFile, sealProblem } from './write.js'

export const SegmentReferenceSchema = z.object({
  path: z.string(),
  fileBytes: z.int().nonnegative(),
  graphSha256: z.string(),
  /** Inode number: a file renamed over the segment is another file. */
  inode: z.int().nonnegative(),
  /** Time of the file's last change in nanoseconds since 1970, as digits: a file written to afterwards is refused. */
  changedNs: z.string().regex(/^\d+$/),
})
export type SegmentReference = Readonly<z.infer<typeof SegmentReferenceSchema>>

export interface AttachedSegment {
  readonly header: SegmentHeader
  /** The optimised graph, a view into the mapping. */
  readonly graph: Uint8Array<ArrayBuffer>
  /** Folder against which the runtime resolves the graph's external tensors. */
  readonly folder: string
}

function refuse(path: string, message: string): OnecopyError {
  return new OnecopyError('SEGMENT_INVALID', `segment ${path}: ${message}`)
}

/** What a worker needs to attach to a segment and to check that it is the one the primary verified. */
export function referenceSegment({ path, bytes, inode, changedNs, header }: SegmentFile): SegmentReference {
  return { path, fileBytes: bytes, graphSha256: header.graph.sha256, inode, changedNs: String(changedNs) }
}

async function mapHead(path: string, fd: number, fileBytes: number) {
  if (fileBytes < PREFIX_BYTES)
    throw refuse(path, `expected at least ${PREFIX_BYTES} bytes, got ${fileBytes}`)
  const { headerBytes } = decodePrefix(mapReadOnly(fd, PREFIX_BYTES))
  if (headerBytes > fileBytes)
    throw refuse(path, `expected ${headerBytes} header bytes, the file has ${fileBytes}`)
  const header = decodeHeader(mapReadOnly(fd, headerBytes))
  if (header.fileBytes !== fileBytes)
    throw refuse(path, `expected ${header.fileBytes} bytes, got ${fileBytes}`)
  const head = mapReadOnly(fd, header.graph.offsetBytes + header.graph.bytes)
  return { header, graph: head.subarray(header.graph.offsetBytes) }
}

/**
 * Maps the head of a sealed segment.
 * @throws OnecopyError SEGMENT_INVALID if it is not the file described by `reference`, or not sealed.
 */
export async function attachSegment(reference: SegmentReference): Promise<AttachedSegment> {
  const { path } = reference
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch((thrown) => {
    throw refuse(path, `cannot be opened (${(thrown as NodeJS.ErrnoException).code})`)
  })
  try {
    const stat = await file.stat()
    const problem = sealProblem(stat)
    if (problem !== null) throw refuse(path, problem)
    if (stat.ino !== reference.inode) throw refuse(path, `expected inode ${reference.inode}, got ${stat.ino}`)
    if (stat.size !== reference.fileBytes)
      throw refuse(path, `expected ${reference.fileBytes} bytes, got ${stat.size}`)
    const { ctimeNs } = await file.stat({ bigint: true })
    if (String(ctimeNs) !== reference.changedNs) throw refuse(path, 'it was changed after it was verified')
    const { header, graph } = await mapHead(path, file.fd, stat.size)
    const digest = createHash('sha256').update(graph).digest('hex')
    if (digest !== reference.graphSha256) throw refuse(path, 'the graph does not match its digest')
    return { header, graph, folder: dirname(path) }
  } finally {
    await file.close()
  }
}

/** A reference to the segment that is open now. */
async function describeOpen(path: string, file: FileHandle): Promise<SegmentReference> {
  const { size, ino, ctimeNs } = await file.stat({ bigint: true })
  const { header } = await mapHead(path, file.fd, Number(size))
  return {
    path,
    fileBytes: Number(size),
    graphSha256: header.graph.sha256,
    inode: Number(ino),
    changedNs: String(ctimeNs),
  }
}

/**
 * Attaches to a segment of another server and keeps that server from releasing its raw weights until the
 * returned `close` is called. The content is untrusted: load it, then run its self-check.
 * With `expected` it must be the very file that the reference names.
 * @throws OnecopyError SEGMENT_INVALID if it is not sealed or its raw weights are currently released.
 */
export async function attachWhole(
  path: string,
  expected?: SegmentReference,
): Promise<AttachedSegment & { readonly close: () => Promise<void> }> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch((thrown) => {
    throw refuse(path, `cannot be opened (${(thrown as NodeJS.ErrnoException).code})`)
  })
  try {
    if (!tryShareLock(file.fd)) throw refuse(path, 'its server is changing it')
    const stat = await file.stat()
    // No new holes appear while the lock is held.
    if (stat.blocks * BLOCK_BYTES < stat.size) throw refuse(path, 'its raw weights are released')
    const attached = await attachSegment(expected ?? (await describeOpen(path, file)))
    return { ...attached, close: () => file.close() }
  } catch (thrown) {
    await file.close()
    throw thrown
  }
}
