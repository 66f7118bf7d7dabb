/** Names of the tests' temporary folders: every checkout has its own, so that runs beside each other are not mixed up. */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'

const checkout = createHash('sha256')
  .update(fileURLToPath(new URL('../../../', import.meta.url)))
  .digest('hex')
  .slice(0, 8)

/** What the name of every temporary folder of this checkout's tests begins with. */
export const TEMPORARY_PREFIX = `onecopy-test-${checkout}-`
