import { createHash } from 'node:crypto'
import test from 'ava'
import { adminTokenDigest, createKey, formatKey, Keyring, parseKeys } from '../../src/access/api-keys.js'
import { OnecopyError } from '../../src/errors.js'

const DIGEST = createHash('sha256').update('key').digest('hex')

test('formatted keys parse back; comments, blank lines and semicolons are accepted', (t) => {
  const { entry } = createKey({ name: 'a.b@c-d_1', scopes: ['infer', 'admin'] })
  t.deepEqual(parseKeys(formatKey(entry), 'x'), [entry])
  const text = `# all of them\n\n alice:${DIGEST.toUpperCase()}:infer # hers\r\n;${formatKey(entry)};\n`
  t.deepEqual(parseKeys(text, 'x'), [{ name: 'alice', sha256: DIGEST, scopes: ['infer'] }, entry])
  t.deepEqual(parseKeys('', 'x'), [])
})

test('an invalid entry is reported by its number, never by its text', (t) => {
  for (const [text, says] of [
    ['onecopy_secret', /entry 1: expected NAME:SHA256:SCOPES/],
    [`\na:${DIGEST}`, /entry 2/],
    [`a:${DIGEST}:infer:more`, /expected NAME:SHA256:SCOPES/],
    ['a:onecopy_secret:infer', /expected a SHA-256/],
    [`a secret:${DIGEST}:infer`, /expected a name/],
    [`a:${DIGEST}:secret`, /expected scopes from infer, metrics, admin/],
    [`a:${DIGEST}:`, /expected scopes/],
    [`a:${DIGEST}:infer\nb:${DIGEST}:admin`, /entry 2: expected distinct keys/],
  ] as const) {
    const error = t.throws(() => parseKeys(text, '--api-keys'), { instanceOf: OnecopyError })
    t.is(error?.code, 'CONFIG_INVALID')
    t.regex(error?.message ?? '', says)
    t.notRegex(error?.message ?? '', /secret/)
  }
})

test('without configured keys every scope is open; an empty list rejects every key', (t) => {
  t.true(new Keyring({ keys: null }).isOpen('admin'))
  t.false(new Keyring({ keys: [] }).isOpen('infer'))
  const guarded = new Keyring({ keys: null, adminTokenSha256: adminTokenDigest('a-token-that-is-long') })
  t.true(guarded.isOpen('infer'))
  t.true(guarded.isOpen('metrics'))
  t.false(guarded.isOpen('admin'))
  t.is(guarded.authorize({ authorization: 'Bearer a-token-that-is-long' }, 'admin'), 'admin-token')
})

test('a key is found at any position in the list', (t) => {
  const all = Array.from({ length: 20 }, (_, i) => createKey({ name: `k${i}`, scopes: ['infer'] }))
  const ring = new Keyring({ keys: all.map(({ entry }) => entry) })
  for (const { key, entry } of all) t.is(ring.authorize({ 'x-api-key': key }, 'infer'), entry.name)
  for (const headers of [
    {},
    { authorization: 'Bearer' },
    { authorization: `Bearer ${all[0]?.key} ${all[0]?.key}` },
    { authorization: `Digest ${all[0]?.key}` },
    { 'x-api-key': all[0]?.entry.sha256 ?? '' },
  ])
    t.throws(() => ring.authorize(headers, 'infer'), { instanceOf: OnecopyError, message: /expected a key/ })
})
