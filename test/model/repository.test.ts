import { writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test from 'ava'
import { scanRepository } from '../../src/model/repository.js'
import { writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'

const BYTES = new Uint8Array(1)

test('versions are listed newest first, compared as integers', async (t) => {
  const dir = temporaryFolder(t)
  for (const version of ['2', '10', '9']) writeModel(dir, 'm', BYTES, version)
  writeModel(dir, 'a', BYTES)
  const found = await scanRepository(dir)
  t.deepEqual(
    found.map(({ name, version }) => `${name}/${version}`),
    ['a/1', 'm/10', 'm/9', 'm/2'],
  )
})

test('NAME.onnx and a single model.onnx are version 1', async (t) => {
  const dir = temporaryFolder(t)
  writeFileSync(join(dir, 'solo.onnx'), BYTES)
  writeFileSync(join(dir, 'model.onnx'), BYTES)
  const found = await scanRepository(dir)
  t.deepEqual(
    found.map(({ name, version }) => `${name}/${version}`).sort(),
    [`${basename(dir)}/1`, 'solo/1'].sort(),
  )
})

test('what is no model is ignored: hidden entries, other files, folders that are no version', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'm', BYTES)
  writeModel(dir, '.git', BYTES)
  writeModel(dir, 'm', BYTES, 'latest')
  writeModel(dir, 'm', BYTES, '0')
  writeFileSync(join(dir, 'README.md'), 'text')
  t.is((await scanRepository(dir)).length, 1)
})

test('one name and version cannot stand twice', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'm', BYTES)
  writeFileSync(join(dir, 'm.onnx'), BYTES)
  await t.throwsAsync(scanRepository(dir), { message: /model m version 1 stands twice/ })
})

test('a folder that is not there is named', async (t) => {
  await t.throwsAsync(scanRepository('/no/such/folder'), { message: /--models \/no\/such\/folder/ })
})
