import { mkdtempSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { modelPathOf } from '../../src/repository/model-path.js'
import { scanRepository } from '../../src/repository/repository.js'
import { writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'

const BYTES = new Uint8Array(1)

test('versions are listed newest first, compared as integers', async (t) => {
  const dir = temporaryFolder(t)
  for (const version of ['2', '10', '9']) writeModel(dir, 'm', BYTES, version)
  writeModel(dir, 'a', BYTES)
  const { sources: found } = await scanRepository(dir)
  t.deepEqual(
    found.map(({ name, version }) => `${name}/${version}`),
    ['a/1', 'm/10', 'm/9', 'm/2'],
  )
})

test('NAME.onnx and a single model.onnx are version 1', async (t) => {
  const dir = temporaryFolder(t)
  writeFileSync(join(dir, 'solo.onnx'), BYTES)
  writeFileSync(join(dir, 'model.onnx'), BYTES)
  const { sources: found } = await scanRepository(dir)
  t.deepEqual(
    found.map(({ name, version }) => `${name}/${version}`).sort(),
    [`${basename(dir)}/1`, 'solo/1'].sort(),
  )
})

test('other entries are ignored: hidden entries, other files, folders that are not versions', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'm', BYTES)
  writeModel(dir, '.git', BYTES)
  writeModel(dir, 'm', BYTES, 'latest')
  writeModel(dir, 'm', BYTES, '0')
  writeFileSync(join(dir, 'README.md'), 'text')
  const { sources, problems } = await scanRepository(dir)
  t.is(sources.length, 1)
  t.deepEqual(problems, [])
})

test('duplicate names and versions are rejected', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'm', BYTES)
  writeFileSync(join(dir, 'm.onnx'), BYTES)
  writeModel(dir, 'm', BYTES, '2')
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(
    sources.map(({ name, version }) => `${name}/${version}`),
    ['m/2'],
  )
  t.like(problems, [{ name: 'm', version: '1', code: 'REPOSITORY_INVALID' }])
  t.regex(problems[0]?.reason ?? '', /model m version 1 exists twice: .*m\/1\/model\.onnx.*m\.onnx/)
})

test('a missing folder, and a file that is no model, are named in the error', async (t) => {
  await t.throwsAsync(scanRepository('/no/such/folder'), { message: /expected \/no\/such\/folder to be/ })
  const text = join(temporaryFolder(t), 'notes.txt')
  writeFileSync(text, 'text')
  await t.throwsAsync(scanRepository(text), {
    code: 'REPOSITORY_INVALID',
    message: /notes\.txt.*found a file/,
  })
})

test('a path is a repository, the folder of a model, or a model file, in any number', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'm', BYTES)
  writeModel(dir, 'm', BYTES, '2')
  writeModel(dir, 'other', BYTES)
  writeFileSync(join(dir, 'solo.onnx'), BYTES)
  const namesOf = async (...paths: string[]) =>
    (await scanRepository(paths)).sources.map(({ name, version }) => `${name}/${version}`)
  t.deepEqual(await namesOf(join(dir, 'm')), ['m/2', 'm/1'])
  t.deepEqual(await namesOf(`${join(dir, 'm')}/`), ['m/2', 'm/1'])
  t.deepEqual(await namesOf(join(dir, 'solo.onnx')), ['solo/1'])
  t.deepEqual(await namesOf(join(dir, 'm', '2', 'model.onnx')), ['m/2'])
  t.deepEqual(await namesOf(join(dir, 'other'), join(dir, 'solo.onnx')), ['other/1', 'solo/1'])
  const { problems } = await scanRepository([dir, join(dir, 'solo.onnx')])
  t.regex(problems[0]?.reason ?? '', /model solo version 1 exists twice/)
})

/** A repository with a model `m` that has these versions and this policy. */
function versionsWithPolicy(dir: string, versions: readonly string[], policy: unknown): string {
  for (const version of versions) writeModel(dir, 'm', BYTES, version)
  writeFileSync(join(dir, 'm', 'config.json'), JSON.stringify({ version_policy: policy }))
  return dir
}

async function served(dir: string): Promise<string[]> {
  return (await scanRepository(dir)).sources.map(({ version }) => version)
}

test('a version policy selects the served versions of its own model only', async (t) => {
  const versions = ['1', '2', '9', '10']
  const scan = async (policy: unknown) =>
    await served(versionsWithPolicy(temporaryFolder(t), versions, policy))
  t.deepEqual(await scan('all'), ['10', '9', '2', '1'])
  t.deepEqual(await scan({ latest: 2 }), ['10', '9'])
  t.deepEqual(await scan({ latest: 99 }), ['10', '9', '2', '1'])
  t.deepEqual(await scan({ specific: ['1', '9'] }), ['9', '1'])
  const dir = versionsWithPolicy(temporaryFolder(t), versions, { latest: 1 })
  for (const version of ['1', '2']) writeModel(dir, 'other', BYTES, version)
  t.deepEqual(
    (await scanRepository(dir)).sources.map(({ name, version }) => `${name}/${version}`),
    ['m/10', 'other/2', 'other/1'],
  )
})

test('missing versions required by a policy are reported, the others are served', async (t) => {
  const dir = versionsWithPolicy(temporaryFolder(t), ['2', '10'], { specific: ['1', '2', '3'] })
  t.deepEqual(await served(dir), ['2'])
  const { problems } = await scanRepository(dir)
  t.deepEqual(
    problems.map(({ version }) => version),
    ['3', '1'],
  )
  t.regex(
    problems[1]?.reason ?? '',
    /m\/config\.json: version_policy requires version 1, but the repository has 10, 2$/,
  )
})

test('for any versions, latest selects the highest and specific exactly the listed ones', async (t) => {
  const root = temporaryFolder(t)
  const versions = fc.uniqueArray(fc.bigInt({ min: 1n, max: 10n ** 18n - 1n }), {
    minLength: 1,
    maxLength: 5,
  })
  await fc.assert(
    fc.asyncProperty(versions, fc.integer({ min: 1, max: 6 }), async (numbers, count) => {
      const newestFirst = numbers.toSorted((a, b) => (a < b ? 1 : -1)).map(String)
      const dir = mkdtempSync(join(root, 'scan-'))
      const chosen = newestFirst.filter((_, i) => i % 2 === 0)
      t.deepEqual(await served(versionsWithPolicy(dir, numbers.map(String), 'all')), newestFirst)
      t.deepEqual(await served(versionsWithPolicy(dir, [], { latest: count })), newestFirst.slice(0, count))
      t.deepEqual(await served(versionsWithPolicy(dir, [], { specific: chosen.toReversed() })), chosen)
    }),
    { numRuns: 25 },
  )
})

test('a model file gets the name and version that its repository gives it', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'm', BYTES, '3')
  writeFileSync(join(dir, 'solo.onnx'), BYTES)
  writeFileSync(join(dir, 'model.onnx'), BYTES)
  const configPaths = [['m', 'config.json'], ['config.json'], ['solo.config.json']].map((parts) =>
    join(dir, ...parts),
  )
  const { sources: found } = await scanRepository(dir)
  t.deepEqual(
    found.map(({ name, version, path }) => ({ name, version, configPath: modelPathOf(path).configPath })),
    found.map(({ path }) => modelPathOf(path)),
  )
  t.deepEqual(found.map(({ path }) => modelPathOf(path).configPath).sort(), configPaths.sort())
  for (const configPath of configPaths) writeFileSync(configPath, '{"threads": 7}')
  t.true((await scanRepository(dir)).sources.every(({ config }) => config.threads === 7))
})
