/**
 * Moves a segment in shared memory into huge pages. The kernel hands out pages of 4 KiB from
 * wherever memory is free. A processor reads weights that lie together in 2 MiB pages up to 1.6
 * times as fast, even where processes map them in small pages, because it translates fewer
 * addresses (docs/decisions/034-huge-pages.md).
 *
 * The content does not change, and processes may read the file meanwhile. Where the kernel cannot
 * do it (before Linux 6.1, fragmented memory, a file on disk), the pages stay as they are.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { HUGE_PAGE_BYTES, mapForHugePages } from '../mapping.js'
import type { SegmentHeader } from './layout.js'

/** After this many failures in a row, the rest would most likely fail, too. */
const MAX_FAILURES = 3

export interface HugePages {
  /** Memory that is in huge pages now. */
  readonly hugeBytes: number
  /**
   * Memory that could be: the rest is smaller than a huge page, or needed only while the segment is
   * loaded.
   */
  readonly possibleBytes: number
}

type Layout = Pick<SegmentHeader, 'fileBytes' | 'data' | 'rawRanges'>

/** Offsets of the whole huge pages of the file, without those that contain only raw weights. */
export function hugePageOffsets({ fileBytes, data, rawRanges }: Layout): number[] {
  const offsets: number[] = []
  let next = 0
  for (let at = 0; at + HUGE_PAGE_BYTES <= fileBytes; at += HUGE_PAGE_BYTES) {
    const startOf = (i: number) => data.offsetBytes + (rawRanges[i]?.offsetBytes ?? Number.POSITIVE_INFINITY)
    const endOf = (i: number) => startOf(i) + (rawRanges[i]?.bytes ?? 0)
    while (endOf(next) <= at) next++
    if (startOf(next) > at || endOf(next) < at + HUGE_PAGE_BYTES) offsets.push(at)
  }
  return offsets
}

/**
 * Moves the pages, one huge page at a time and with pauses as long as the work, in a thread of the
 * pool. The file must be complete until this resolves: holes would take memory. Never rejects
 * because of the kernel.
 */
export async function useHugePages(path: string, layout: Layout, signal: AbortSignal): Promise<HugePages> {
  const offsets = hugePageOffsets(layout)
  const possibleBytes = offsets.length * HUGE_PAGE_BYTES
  let hugeBytes = 0
  if (offsets.length === 0) return { hugeBytes, possibleBytes }
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  const mapping = mapForHugePages(file.fd, layout.fileBytes)
  if (mapping === null) return { hugeBytes, possibleBytes }
  try {
    let failures = 0
    for (const offset of offsets) {
      if (signal.aborted || failures >= MAX_FAILURES) break
      const startedMs = performance.now()
      const isHuge = await mapping.collapse(offset)
      failures = isHuge ? 0 : failures + 1
      if (isHuge) hugeBytes += HUGE_PAGE_BYTES
      await delay(performance.now() - startedMs, undefined, { signal }).catch(() => {})
    }
  } finally {
    mapping.close()
  }
  return { hugeBytes, possibleBytes }
}
