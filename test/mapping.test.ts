import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { OnecopyError } from '../src/errors.js'
import { type MappingLibrary, mappingLibrary, mapReadOnly } from '../src/mapping.js'
import { temporaryFolder } from './helpers/server.js'

function loadedOrNull(name: MappingLibrary['name']): MappingLibrary | null {
  try {
    return mappingLibrary(name)
  } catch {
    return null
  }
}

// One contract for both libraries; mmap-io is optional and may not have been compiled on this Node.
for (const name of ['mmap-io', 'koffi'] as const) {
  const library = loadedOrNull(name)
  const title = (text: string) =>
    `${name}: ${text}${library === null ? ' (skipped: it could not be built here)' : ''}`
  const contract = library === null ? test.skip : test

  contract(title('maps exactly the bytes asked for'), (t) => {
    const path = join(temporaryFolder(t), 'file')
    writeFileSync(
      path,
      Buffer.from({ length: 10_000 } as ArrayLike<number>).map((_, i) => i % 251),
    )
    const fd = openSync(path, 'r')
    const bytes = mapReadOnly(fd, 5000, library as MappingLibrary)
    closeSync(fd)
    t.is(bytes.byteLength, 5000)
    t.true(bytes.every((byte, i) => byte === i % 251))
  })

  contract(title('shares memory with the file: a later write shows'), (t) => {
    const path = join(temporaryFolder(t), 'file')
    writeFileSync(path, Buffer.alloc(4096, 1))
    const fd = openSync(path, 'r')
    const bytes = mapReadOnly(fd, 4096, library as MappingLibrary)
    closeSync(fd)
    writeFileSync(path, Buffer.alloc(1, 9), { flag: 'r+' })
    t.is(bytes[0], 9)
  })

  contract(title('refuses lengths that it cannot hold'), (t) => {
    const path = join(temporaryFolder(t), 'file')
    writeFileSync(path, 'x')
    const fd = openSync(path, 'r')
    t.teardown(() => closeSync(fd))
    const impossible = [0, -1, 1.5, Number.NaN, Number.MAX_SAFE_INTEGER + 1]
    if (name === 'mmap-io') impossible.push(2 ** 31, 4_600_000_000)
    for (const lengthBytes of impossible) {
      const error = t.throws(() => mapReadOnly(fd, lengthBytes, library as MappingLibrary), {
        instanceOf: OnecopyError,
      })
      t.is(error?.code, 'MAPPING_FAILED', String(lengthBytes))
    }
  })

  contract(title('says so when the descriptor cannot be mapped'), (t) => {
    const error = t.throws(() => mapReadOnly(9999, 4096, library as MappingLibrary), {
      instanceOf: OnecopyError,
    })
    t.is(error?.code, 'MAPPING_FAILED')
  })
}

test('at least one library is there', (t) => {
  t.truthy(loadedOrNull('mmap-io') ?? loadedOrNull('koffi'))
})

test('a mapping that came out shorter than asked for is refused', (t) => {
  const short: MappingLibrary = { name: 'mmap-io', maxBytes: 2 ** 31 - 1, map: () => new Uint8Array(10) }
  const error = t.throws(() => mapReadOnly(0, 4096, short), { instanceOf: OnecopyError })
  t.regex(error?.message ?? '', /expected 4096 mapped bytes from mmap-io, got 10/)
})
