/**
 * Names of temporary test folders: they differ between checkouts, so that concurrent runs do not interfere.
 */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'

const checkout = createHash('sha256')
  .update(fileURLToPath(new URL('../../../', import.meta.url)))
  .digest('hex')
  .slice(0, 8)

/** Prefix of all temporary test folders of this checkout. */
export const TEMPORARY_PREFIX = `onecopy-test-${checkout}-`
