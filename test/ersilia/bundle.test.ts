import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { OnecopyError } from '../../src/errors.js'
import { Breaker } from '../../src/ersilia/breaker.js'
import { isVariable, readBundle } from '../../src/ersilia/bundle.js'
import { MANIFEST_KEYS } from '../../src/ersilia/manifest.js'
import { INPUT_TRANSFORMS, OUTPUT_TRANSFORMS } from '../../src/transform/registry.js'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { LOGP_BUNDLE, LOGP_MODEL, makeBundle } from './helpers.js'

test('the built-in bundle is read completely, from its folder or its framework', async (t) => {
  const bundle = await readBundle(LOGP_BUNDLE)
  t.like(bundle, { columns: ['logp'], outputType: 'float', inputHeader: ['smiles'] })
  t.like(bundle.card, { Identifier: 'eos0lgp', Slug: 'crippen-logp' })
  // Packers pack only model/, so the checkpoint is there; the repository has the file in a version
  // folder.
  t.is(bundle.checkpoint, join(LOGP_BUNDLE, 'model', 'checkpoints', 'model.onnx'))
  t.deepEqual(readFileSync(bundle.checkpoint ?? ''), readFileSync(LOGP_MODEL))
  t.is(bundle.exampleInputs.length, bundle.exampleOutputs?.lines.length ?? 0)
  t.deepEqual(await readBundle(join(LOGP_BUNDLE, 'model', 'framework')), bundle)
  t.false(isVariable(bundle))
})

test('a packed bundle is read from its newest version, with its card', async (t) => {
  const packed = temporaryFolder(t)
  for (const [name, slug] of [
    ['20250101-aaaa', 'older'],
    ['20260101-bbbb', 'newer'],
  ] as const) {
    const root = join(packed, name)
    cpSync(makeBundle(t), root, { recursive: true })
    renameSync(join(root, 'metadata.json'), join(root, 'information.json'))
    const card = { Identifier: 'eos1abc', Slug: slug, Task: ['Generative'], 'Output Type': ['Integer'] }
    writeFileSync(join(root, 'information.json'), JSON.stringify({ card, model_id: 'eos1abc' }))
  }
  const bundle = await readBundle(packed)
  t.is(bundle.card.Slug, 'newer')
  t.is(bundle.outputType, 'integer')
  t.true(isVariable(bundle))
})

test('metadata is read in every encoding that examples may have, and no character is replaced', async (t) => {
  const root = makeBundle(t)
  const path = join(root, 'metadata.json')
  const card = JSON.stringify({ Identifier: 'eos1abc', Slug: 'caf\u00e9' })
  for (const bytes of [
    Buffer.from(card),
    Buffer.from(`\ufeff${card}`),
    Buffer.from(`\ufeff${card}`, 'utf16le'),
  ]) {
    writeFileSync(path, bytes)
    t.is((await readBundle(root)).card.Slug, 'caf\u00e9')
  }
  writeFileSync(path, Buffer.from(card, 'latin1'))
  await t.throwsAsync(readBundle(root), { code: 'BUNDLE_INVALID', message: /metadata\.json: .* not UTF-8/ })
})

test('a problem of a bundle is reported with its location', async (t) => {
  const refused = async (path: string, message: RegExp) => {
    await t.throwsAsync(readBundle(path), { code: 'BUNDLE_INVALID', message })
  }
  await refused(temporaryFolder(t), /expected .* to be an Ersilia bundle, with a folder model\/framework/)
  await refused(
    makeBundle(t, { manifest: { checkpoint: '../other/model.onnx' } }),
    /a path inside the bundle/,
  )
  await refused(makeBundle(t, { manifest: { checkpoint: '/etc/model.onnx' } }), /a path inside the bundle/)
  await refused(makeBundle(t, { manifest: { featurizer: { kind: 'ecfp' } } }), /expected one of morgan/)
  await refused(makeBundle(t, { manifest: { feature: 1 } }), /serve\.json.*"feature"/s)
  const outside = { kind: 'tokenizer', file: '../tokenizer.json', length: 8 }
  await refused(
    makeBundle(t, { manifest: { featurizer: outside } }),
    /featurizer\.file: expected a path inside/,
  )
  await refused(makeBundle(t, { files: { 'serve.json': '{' } }), /serve\.json: expected JSON/)
  await refused(makeBundle(t, { card: { Identifier: '' } }), /metadata\.json/)
  await refused(
    makeBundle(t, { files: { 'columns/run_columns.csv': 'a,b\n1,2\n' } }),
    /expected a column "name"/,
  )
  const bare = temporaryFolder(t)
  mkdirSync(join(bare, 'model', 'framework'), { recursive: true })
  await refused(bare, /expected metadata\.json, metadata\.yml or information\.json/)
})

test('docs/ersilia.md names every key of serve.json and every kind of transform', (t) => {
  const text = readFileSync(join(PROJECT_ROOT, 'docs', 'ersilia.md'), 'utf8')
  const named = [...text.matchAll(/^\| `([a-z_-]+)` \|/gm)].map(([, name]) => name)
  for (const name of [...MANIFEST_KEYS, ...Object.keys(INPUT_TRANSFORMS), ...Object.keys(OUTPUT_TRANSFORMS)])
    t.true(named.includes(name), name)
  const script = readFileSync(join(LOGP_BUNDLE, 'model', 'framework', 'run.sh'), 'utf8')
  t.true(text.includes(script), 'the page shows the run.sh of the built-in bundle')
  t.true(text.includes(readFileSync(join(LOGP_BUNDLE, 'model', 'framework', 'serve.json'), 'utf8')))
})

test('the breaker opens after a hundred failures in a row, and closes after one success', async (t) => {
  let nowMs = 1000
  const breaker = new Breaker({ resetMs: 30_000, nowMs: () => nowMs })
  const fail = (code: 'MODEL_RUN_FAILED' | 'INPUT_INVALID' | 'QUEUE_FULL') =>
    t.throwsAsync(
      breaker.through(() => Promise.reject(new OnecopyError(code, 'x'))),
      { code },
    )
  for (let i = 0; i < 99; i++) await fail('MODEL_RUN_FAILED')
  await breaker.through(async () => 1)
  for (let i = 0; i < 9; i++) await fail('INPUT_INVALID')
  for (let i = 0; i < 9; i++) await fail('QUEUE_FULL')
  for (let i = 0; i < 100; i++) await fail('MODEL_RUN_FAILED')
  t.like(breaker.state, { state: 'open', failures: 100, lastFailure: 1, nextReset: 31 })
  const refused = await t.throwsAsync(
    breaker.through(async () => 1),
    { code: 'BREAKER_OPEN' },
  )
  t.deepEqual((refused as OnecopyError).headers, { 'Retry-After': '30' })
  nowMs = 31_000
  t.is(breaker.state.state, 'half-open')
  await fail('MODEL_RUN_FAILED')
  t.is(breaker.state.state, 'open')
  nowMs = 61_000
  t.is(await breaker.through(async () => 2), 2)
  t.is(breaker.state.state, 'closed')
})
