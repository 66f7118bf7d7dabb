import {
  appendFileSync,
  copyFileSync,
  readdirSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { Compiler } from '../../src/compile/compile.js'
import { areSettled, factsOf, findKnownDigest, rememberDigest } from '../../src/compile/known-files.js'
import { imagePathOf } from '../helpers/compile.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

const DIGEST = 'a'.repeat(64)
/** Seconds since 1970. */
const MODIFIED = 1_700_000_000

/** A model of two files with a cached digest. */
async function remembered(t: ExecutionContext) {
  const folder = temporaryFolder(t)
  const cacheDir = temporaryFolder(t)
  const modelPath = join(folder, 'model.onnx')
  const dataPath = join(folder, 'weights.bin')
  writeFileSync(modelPath, 'model')
  writeFileSync(dataPath, 'weights')
  for (const path of [modelPath, dataPath]) utimesSync(path, MODIFIED, MODIFIED)
  const cache = await openCache(cacheDir)
  const files = await factsOf(folder, ['model.onnx', 'weights.bin'])
  await rememberDigest(modelPath, { files, digest: DIGEST }, { cache, workFolder: temporaryFolder(t) })
  return { folder, cacheDir, cache, modelPath, dataPath }
}

test('unchanged files are recognised, at their path only', async (t) => {
  const { cache, modelPath, folder } = await remembered(t)
  t.is(await findKnownDigest(cache, modelPath), DIGEST)
  t.is(await findKnownDigest(cache, join(folder, 'weights.bin')), null)
  t.is(await findKnownDigest(await openCache(temporaryFolder(t)), modelPath), null)
})

test('a file with changed content is not recognised, whatever its mtime', async (t) => {
  for (const file of ['modelPath', 'dataPath'] as const) {
    const { cache, modelPath, [file]: path } = await remembered(t)
    writeFileSync(path, 'x'.repeat(statSync(path).size))
    utimesSync(path, MODIFIED, MODIFIED)
    t.is(await findKnownDigest(cache, modelPath), null, file)
  }
})

test('a replaced or removed file is not recognised', async (t) => {
  const { cache, modelPath, dataPath } = await remembered(t)
  copyFileSync(dataPath, `${dataPath}.new`)
  renameSync(`${dataPath}.new`, dataPath)
  t.is(await findKnownDigest(cache, modelPath), null)
  renameSync(dataPath, `${dataPath}.gone`)
  t.is(await findKnownDigest(cache, modelPath), null)
})

test('damaged or invalid records are ignored', async (t) => {
  const { cache, cacheDir, modelPath } = await remembered(t)
  const [record = ''] = readdirSync(cacheDir)
  for (const text of ['', '{', '{"files":[],"digest":"b"}', JSON.stringify({ files: [], digest: DIGEST })]) {
    writeFileSync(join(cacheDir, record), text)
    t.is(await findKnownDigest(cache, modelPath), null, text)
  }
})

test('files that changed during or just before reading are not recorded', async (t) => {
  const { folder, modelPath } = await remembered(t)
  const before = await factsOf(folder, ['model.onnx'])
  t.false(areSettled(before, before), 'a second change in the same moment would not be seen')
  const [fact] = before
  const old = [
    { ...fact, changedNs: String(BigInt(fact?.changedNs ?? 0) - 10_000_000_000n) },
  ] as typeof before
  t.true(areSettled(old, old))
  appendFileSync(modelPath, 'more')
  t.false(areSettled(old, await factsOf(folder, ['model.onnx'])))
})

test('a known model is found without a compile process, and compiled if the cache is not trusted', async (t) => {
  const modelPath = join(writeModel(temporaryFolder(t), 'add', addModel()), 'add', '1', 'model.onnx')
  const cache = await openCache(temporaryFolder(t))
  const { signal } = new AbortController()
  const compiler = new Compiler({ cache, timeoutMs: 60_000, signal })
  t.teardown(() => compiler.close())
  // Until the file has been unchanged for long enough.
  await until('the model to be known', async () => {
    imagePathOf(await compiler.compile(modelPath))
    return (await findKnownDigest(cache, modelPath)) !== null
  })
  // A millisecond is too short to start a process.
  const hasty = new Compiler({ cache, timeoutMs: 1, signal })
  t.teardown(() => hasty.close())
  const found = await hasty.compile(modelPath)
  t.like(found, { outcome: 'compiled', cached: true })
  t.deepEqual(await hasty.compile(modelPath, { heldKeys: [found.key] }), { outcome: 'held', key: found.key })
  await t.throwsAsync(hasty.compile(modelPath, { isCacheTrusted: false }), { code: 'TIMEOUT' })
  writeModel(join(modelPath, '..', '..', '..'), 'add', addModel([3, 4]))
  await t.throwsAsync(hasty.compile(modelPath), { code: 'TIMEOUT' })
})
