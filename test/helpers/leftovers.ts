/**
 * Runs before the tests with --remove, and after them, where it fails if a test left files in shared memory.
 * Leftovers of a killed test run are removed first. Files of other checkouts and servers are ignored.
 */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { TEMPORARY_PREFIX } from './temporary-names.js'

const FOLDER = '/dev/shm'

const left = readdirSync(FOLDER).filter((name) => name.includes(TEMPORARY_PREFIX))
if (process.argv.includes('--remove')) {
  for (const name of left) rmSync(join(FOLDER, name), { recursive: true, force: true })
} else if (left.length > 0) {
  process.stderr.write(`left in ${FOLDER} after the tests: ${left.join(', ')}\n`)
  process.exit(1)
}
