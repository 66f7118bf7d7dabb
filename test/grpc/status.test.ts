import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ERROR_CATALOGUE, type ErrorCode } from '../../src/errors.js'
import { statusNameOf } from '../../src/grpc/status.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

test('docs/grpc.md has every code of the catalogue in the row of its gRPC code', (t) => {
  const page = readFileSync(join(PROJECT_ROOT, 'docs', 'grpc.md'), 'utf8')
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| ((?:`[A-Z_]+`(?:, )?)+) \|/gm)]
  const documented = rows.flatMap(([, name = '', codes = '']) =>
    [...codes.matchAll(/`([A-Z_]+)`/g)].map(([, code = '']) => [code, name]),
  )
  const catalogue = (Object.keys(ERROR_CATALOGUE) as ErrorCode[]).map((code) => [code, statusNameOf(code)])
  t.deepEqual(documented.sort(), catalogue.sort())
})
