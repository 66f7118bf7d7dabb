import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ServedModelConfigSchema } from '../../src/repository/config.js'
import { scanRepository } from '../../src/repository/repository.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { writeFiles, writeTextModel } from '../helpers/text-models.js'

test('a folder as the hub has it is a model of the repository, and a repository of its own', async (t) => {
  const dir = temporaryFolder(t)
  const folder = writeTextModel(join(dir, 'all-MiniLM-L6-v2'))
  writeModel(dir, 'plain', addModel())
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(problems, [])
  t.deepEqual(
    sources.map(({ name, version, config }) => [name, version, config.text?.task ?? null]),
    [
      ['all-MiniLM-L6-v2', '1', 'embedding'],
      ['plain', '1', null],
    ],
  )
  t.is(sources[0]?.path, join(folder, 'onnx', 'model.onnx'))
  t.deepEqual(ServedModelConfigSchema.parse(sources[0]?.config), sources[0]?.config)
  t.deepEqual((await scanRepository(folder)).sources, sources.slice(0, 1))
})

test('versions of a text model, each with files of its own', async (t) => {
  const dir = temporaryFolder(t)
  writeTextModel(join(dir, 'm', '1'), { maxLength: 32 })
  writeTextModel(join(dir, 'm', '2'), { maxLength: 48, modelFile: 'model.onnx' })
  writeFileSync(join(dir, 'm', 'config.json'), '{"text": {"pooling": "cls"}, "threads": 2}')
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(problems, [])
  t.deepEqual(
    sources.map(({ version, path, config }) => [
      version,
      path.slice(dir.length),
      config.text?.maxLength,
      config.text?.pooling,
      config.threads,
    ]),
    [
      ['2', '/m/2/model.onnx', 48, 'cls', 2],
      ['1', '/m/1/onnx/model.onnx', 32, 'cls', 2],
    ],
  )
  // By their own paths they are the same models.
  t.deepEqual((await scanRepository(join(dir, 'm'))).sources, sources)
  t.deepEqual((await scanRepository(join(dir, 'm', '2'))).sources, sources.slice(0, 1))
})

test('a config beside the folder overrules what its files say', async (t) => {
  const dir = temporaryFolder(t)
  writeTextModel(join(dir, 'm'))
  writeFiles(join(dir, 'm'), { 'onnx/model_quantized.onnx': addModel() })
  const configPath = join(dir, 'm.config.json')
  writeFileSync(configPath, '{"text": {"file": "model_quantized.onnx", "max_length": 8}}')
  const [source] = (await scanRepository(dir)).sources
  t.is(source?.path, join(dir, 'm', 'onnx', 'model_quantized.onnx'))
  t.is(source?.config.text?.maxLength, 8)
  writeFileSync(configPath, '{"text": {"pool": "cls"}}')
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(sources, [])
  t.regex(problems[0]?.reason ?? '', /m\.config\.json: .*pool/s)
})

test('what is wrong with a text model is its own problem, with file and key', async (t) => {
  const dir = temporaryFolder(t)
  const folder = writeTextModel(join(dir, 'bad'), { files: { 'config.json': { is_encoder_decoder: true } } })
  writeTextModel(join(dir, 'good'))
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(
    sources.map(({ name }) => name),
    ['good'],
  )
  t.like(problems[0], { name: 'bad', version: '1', code: 'REPOSITORY_INVALID' })
  t.true(problems[0]?.reason.startsWith(`${folder}/config.json: is_encoder_decoder: `))
  rmSync(join(folder, 'onnx'), { recursive: true })
  mkdirSync(join(dir, 'strange name'))
  renameSync(join(dir, 'good'), join(dir, 'strange name', 'inner'))
  writeTextModel(join(dir, 'no spaces allowed'))
  const again = await scanRepository(dir)
  t.deepEqual(again.sources, [])
  t.regex(again.problems[0]?.reason ?? '', /model name "no spaces allowed"/)
})

test('"text" in the config of another model is refused', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'plain', addModel())
  writeFileSync(join(dir, 'plain', 'config.json'), '{"text": {"pooling": "cls"}}')
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(sources, [])
  t.regex(problems[0]?.reason ?? '', /"text" is in its config: expected tokenizer\.json/)
})
