import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT } from '../helpers/shared.js'

const MODULE = join(PROJECT_ROOT, 'dist', 'src', 'runtime', 'process-environment.js')
const KOFFI = join(PROJECT_ROOT, 'node_modules', 'koffi', 'index.js')

/**
 * Frees a buffer of 24 MiB, as loading a model does, and allocates 24 MiB again: glibc then takes
 * such buffers from an arena, and keeps them. Prints whether the second is a mapping of its own:
 * bit 1 of the size in front of a chunk. Source: glibc, malloc.c, "IS_MMAPPED".
 */
const PROGRAM = `
import { createRequire } from 'node:module'
const require = createRequire(import.meta.url)
const { prepareRuntimeEnvironment } = await import(${JSON.stringify(MODULE)})
const libc = require(${JSON.stringify(KOFFI)}).load(null)
const [malloc, free] = [libc.func('uintptr_t malloc(size_t size)'), libc.func('void free(uintptr_t at)')]
const memcpy = libc.func('void *memcpy(_Out_ uint8_t *to, uintptr_t from, size_t size)')
prepareRuntimeEnvironment()
const bytes = 24 * 2 ** 20
free(malloc(bytes))
const size = new Uint8Array(8)
memcpy(size, BigInt(malloc(bytes)) - 8n, 8)
console.log((size[0] & 2) === 2 ? 'mapped' : 'kept')
`

function said(env: NodeJS.ProcessEnv): string {
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  })
  return stdout.trim() || stderr
}

test('large buffers go back to the system, unless the environment has settings of its own', (t) => {
  t.is(said({}), 'mapped')
  t.is(said({ MALLOC_MMAP_THRESHOLD_: String(32 * 2 ** 20) }), 'kept')
})
