import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { HUGE_PAGE_BYTES } from '../../src/mapping.js'
import { allocatedBytes, openSealed, punchHole } from '../../src/segment/holes.js'
import { hugePageOffsets, useHugePages } from '../../src/segment/huge-pages.js'
import { temporaryFolder } from '../helpers/server.js'

const MIB = 1024 * 1024

function layout(fileBytes: number, rawRanges: readonly (readonly [number, number])[] = []) {
  return {
    fileBytes,
    data: { offsetBytes: 64 * 1024, bytes: fileBytes - 64 * 1024, crc32: 0 },
    rawRanges: rawRanges.map(([offsetBytes, bytes]) => ({ offsetBytes, bytes, crc32: 0 })),
  }
}

test('huge pages are whole pages of the file, and contain more than raw weights', (t) => {
  t.deepEqual(hugePageOffsets(layout(2 * MIB - 1)), [])
  t.deepEqual(hugePageOffsets(layout(7 * MIB)), [0, 2 * MIB, 4 * MIB])
  const offset = 64 * 1024
  // From 1 to 7 MiB, and from 9 MiB to 9 MiB and one page.
  const ranges = [
    [MIB - offset, 6 * MIB],
    [9 * MIB - offset, 4096],
  ] as const
  t.deepEqual(hugePageOffsets(layout(12 * MIB, ranges)), [0, 6 * MIB, 8 * MIB, 10 * MIB])
  // Exactly the second and third page.
  t.deepEqual(hugePageOffsets(layout(8 * MIB, [[2 * MIB - offset, 4 * MIB]])), [0, 6 * MIB])
})

test('a file keeps its content and its memory, which can be released afterwards', async (t) => {
  const path = join(temporaryFolder(t, '/dev/shm'), 'file')
  const content = Buffer.alloc(5 * MIB).map((_, i) => (i * 31) % 251)
  writeFileSync(path, content, { mode: 0o400 })
  const before = await allocatedBytes(path)
  const pages = await useHugePages(path, layout(content.length), new AbortController().signal)
  t.is(pages.possibleBytes, 2 * HUGE_PAGE_BYTES)
  if (pages.hugeBytes === 0) t.log('this kernel makes no huge pages of files in memory')
  else t.is(pages.hugeBytes, 2 * HUGE_PAGE_BYTES)
  t.true(readFileSync(path).equals(content))
  t.is(await allocatedBytes(path), before)
  await using file = await openSealed(path)
  t.true(punchHole(file.fd, MIB, MIB))
  t.is(await allocatedBytes(path), before - MIB)
  t.true(readFileSync(path).equals(content.fill(0, MIB, 2 * MIB)))
})

test('a file of which no huge page can be made stays as it is', async (t) => {
  const path = join(temporaryFolder(t), 'file')
  const content = Buffer.alloc(12 * MIB, 7)
  writeFileSync(path, content)
  const fd = openSync(path, 'r')
  t.teardown(() => closeSync(fd))
  const { hugeBytes } = await useHugePages(path, layout(content.length), AbortSignal.abort())
  t.is(hugeBytes, 0)
  await t.notThrowsAsync(useHugePages(path, layout(content.length), new AbortController().signal))
  t.true(readFileSync(path).equals(content))
})
