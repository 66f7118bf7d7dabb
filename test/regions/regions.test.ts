import { rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Regions } from '../../src/regions/regions.js'
import { temporaryFolder } from '../helpers/server.js'

/** An object of this size. */
function objectOf(t: ExecutionContext, bytes: number): string {
  const name = `object-${basename(temporaryFolder(t))}`
  writeFileSync(join('/dev/shm', name), new Uint8Array(bytes))
  t.teardown(() => rmSync(join('/dev/shm', name), { force: true }))
  return name
}

test('a region registered by one process can be read and unregistered by another', (t) => {
  const folder = join(temporaryFolder(t), 'regions')
  const [one, other] = [new Regions(folder), new Regions(folder)]
  t.deepEqual(one.list(), [])
  t.is(one.find('b'), null)
  const key = objectOf(t, 64)
  const [b, a] = [
    { name: 'b', key, offsetBytes: 0, bytes: 32 },
    { name: 'a', key: `/${key}`, offsetBytes: 32, bytes: 32 },
  ]
  one.register(b)
  other.register(a)
  t.deepEqual(one.list(), [a, b])
  t.deepEqual(other.find('b'), b)
  one.write({ region: 'b', offsetBytes: 30, bytes: 2 }, Uint8Array.of(1, 2))
  other.write({ region: 'a', offsetBytes: 0, bytes: 9 }, Uint8Array.of(3))
  t.deepEqual(other.read({ region: 'b', offsetBytes: 29, bytes: 3 }), Uint8Array.of(0, 1, 2))
  t.deepEqual(one.read({ region: 'a', offsetBytes: 0, bytes: 2 }), Uint8Array.of(3, 0))
  t.throws(() => one.read({ region: 'b', offsetBytes: 30, bytes: 3 }), { code: 'REQUEST_INVALID' })
  t.throws(() => one.register({ ...a, bytes: 1 }), { code: 'REQUEST_INVALID', message: /already/ })
  other.unregister('b')
  t.deepEqual(one.list(), [a])
  other.unregister(null)
  t.deepEqual(one.list(), [])
})

test('after shutdown nothing is registered and no folder is created', (t) => {
  const server = join(temporaryFolder(t), 'server')
  const regions = new Regions(join(server, 'regions'))
  const region = { name: 'r', key: objectOf(t, 64), offsetBytes: 0, bytes: 32 }
  t.throws(() => regions.register(region), { code: 'SHUTTING_DOWN' })
  t.deepEqual(regions.list(), [])
})

test('names with any characters up to the length limit stay distinct', (t) => {
  const regions = new Regions(join(temporaryFolder(t), 'regions'))
  const key = objectOf(t, 64)
  const names = ['', '..', 'a/b', 'ä', 'A', 'a', 'x'.repeat(1024), '\0']
  for (const name of names) regions.register({ name, key, offsetBytes: 0, bytes: 1 })
  t.deepEqual(
    regions.list().map(({ name }) => name),
    [...names].sort(),
  )
  t.throws(() => regions.register({ name: 'x'.repeat(1025), key, offsetBytes: 0, bytes: 1 }), {
    code: 'REQUEST_INVALID',
  })
})
