/** Run after the tests: fails when anything of the server's, or of a test's, is left in shared memory. */
import { readdirSync } from 'node:fs'

const left = readdirSync('/dev/shm').filter((name) => name.startsWith('onecopy'))
if (left.length > 0) {
  process.stderr.write(`left in /dev/shm after the tests: ${left.join(', ')}\n`)
  process.exit(1)
}
