/** Run after the tests: fails when one of them left anything in shared memory. Servers of others are not theirs. */
import { readdirSync } from 'node:fs'

const left = readdirSync('/dev/shm').filter((name) => name.startsWith('onecopy-test-'))
if (left.length > 0) {
  process.stderr.write(`left in /dev/shm after the tests: ${left.join(', ')}\n`)
  process.exit(1)
}
