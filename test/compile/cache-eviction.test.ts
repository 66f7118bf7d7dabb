import { chmodSync, existsSync, readdirSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { imageName, openCache } from '../../src/compile/cache.js'
import { evictImages, holdImage } from '../../src/compile/cache-eviction.js'
import { temporaryFolder } from '../helpers/server.js'

const keyOf = (letter: string) => letter.repeat(64)

/** Images of 1000 bytes with the given times since their last use, in hours. */
async function cacheWith(t: ExecutionContext, ages: Record<string, number>) {
  const folder = temporaryFolder(t)
  const cache = await openCache(folder)
  for (const [letter, hours] of Object.entries(ages)) {
    const path = join(folder, imageName(keyOf(letter)))
    writeFileSync(path, new Uint8Array(1000))
    const at = Date.now() / 1000 - hours * 3600
    utimesSync(path, at, at)
  }
  const left = () =>
    readdirSync(folder)
      .filter((name) => name.endsWith('.segment'))
      .map((name) => name[0])
      .sort()
      .join('')
  return { cache, folder, left }
}

test('images above the limit are removed, least recently used first', async (t) => {
  const { cache, left } = await cacheWith(t, { a: 1, b: 4, c: 2, d: 3 })
  t.deepEqual(await evictImages(cache, 4000), { removed: 0, removedBytes: 0, leftBytes: 4000 })
  t.is(left(), 'abcd')
  t.deepEqual(await evictImages(cache, 2500), { removed: 2, removedBytes: 2000, leftBytes: 2000 })
  t.is(left(), 'ac')
})

test('an image in use is kept regardless of its age and counts as recently used', async (t) => {
  const { cache, left } = await cacheWith(t, { a: 1, b: 2, c: 50, d: 60 })
  const use = await holdImage(cache, keyOf('d'))
  const again = await holdImage(cache, keyOf('d'))
  t.truthy(use)
  const path = join(cache.writable, imageName(keyOf('d')))
  // The lock keeps the image, not its recent use.
  utimesSync(path, 1000, 1000)
  t.deepEqual(await evictImages(cache, 1), { removed: 3, removedBytes: 3000, leftBytes: 1000 })
  t.is(left(), 'd')
  await use?.close()
  t.is((await evictImages(cache, 1))?.removed, 0)
  await again?.close()
  // The image was just used: another server may be about to lock it.
  await (await holdImage(cache, keyOf('d')))?.close()
  t.is((await evictImages(cache, 1))?.removed, 0)
  utimesSync(path, 1000, 1000)
  t.is((await evictImages(cache, 1))?.removed, 1)
  t.is(await holdImage(cache, keyOf('d')), null)
})

test('concurrent evictions do not remove twice as much', async (t) => {
  const { cache, left } = await cacheWith(t, { a: 1, b: 2, c: 3, d: 4 })
  const outcomes = await Promise.all([1, 2, 3].map(() => evictImages(cache, 3500)))
  t.is(
    outcomes.reduce((sum, one) => sum + (one?.removed ?? 0), 0),
    1,
  )
  t.is(left(), 'abc')
})

test('the newest records of model files are kept, and other files are not touched', async (t) => {
  const { cache, folder } = await cacheWith(t, { a: 1 })
  const count = 16_384 + 10
  for (let i = 0; i < count; i++) {
    const path = join(folder, `${i}.files.json`)
    writeFileSync(path, '')
    utimesSync(path, 1000 + i, 1000 + i)
  }
  writeFileSync(join(folder, 'README'), 'mine')
  await evictImages(cache, 1e9)
  t.false(existsSync(join(folder, '9.files.json')))
  t.true(existsSync(join(folder, '10.files.json')))
  t.true(existsSync(join(folder, 'README')))
  t.true(existsSync(join(folder, imageName(keyOf('a')))))
})

test('a temporary cache is never evicted', async (t) => {
  const { cache, left, folder } = await cacheWith(t, { a: 100 })
  chmodSync(folder, 0o500)
  t.is(await evictImages({ ...cache, problem: 'it cannot be written' }, 1), null)
  chmodSync(folder, 0o700)
  t.is(left(), 'a')
})
