import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ERROR_CATALOGUE } from '../../src/errors.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

test('docs/errors.md and the catalogue list the same codes, with the same status and fault', (t) => {
  const text = readFileSync(join(PROJECT_ROOT, 'docs', 'errors.md'), 'utf8')
  const rows = [...text.matchAll(/^\| `([A-Z_]+)` \| (\d+) \| (\w+) \|/gm)].map(([, code, status, fault]) => [
    code,
    status,
    fault,
  ])
  const catalogue = Object.entries(ERROR_CATALOGUE).map(([code, { status, fault }]) => [
    code,
    String(status),
    fault,
  ])
  t.deepEqual(rows, catalogue)
})
