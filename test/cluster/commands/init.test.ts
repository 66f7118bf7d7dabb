import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { MODEL_CONFIG_KEYS, readModelConfig } from '../../../src/repository/config.js'
import { scanRepository } from '../../../src/repository/repository.js'
import { addModel, ELEMENT, graph, modelBytes, node, value } from '../../helpers/onnx-builder.js'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { sharedPath, testWithShared } from '../../helpers/shared.js'
import { inferOutputs } from '../../helpers/v2-client.js'

/** Runs init and checks that it leaves only the config. */
function init(t: ExecutionContext, ...args: string[]) {
  const tmp = temporaryFolder(t)
  const result = runCommand(['init', ...args], { TMPDIR: tmp })
  t.deepEqual(readdirSync(tmp), [])
  return result
}

function writeAt(path: string, bytes: Uint8Array = addModel()): string {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, bytes)
  return path
}

/** `y = |x|`, one image of `side` x `side` as x FP32 [batch, 3, side, side]. */
function imageModel(side: number): Uint8Array {
  const shape = ['batch', 3, side, side]
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, shape)],
      output: [value('y', ELEMENT.float, shape)],
      node: [node('Abs', ['x'], ['y'])],
    }),
  )
}

const LAYOUTS = [
  { model: ['m', '3', 'model.onnx'], config: ['m', 'config.json'] },
  { model: ['m.onnx'], config: ['m.config.json'] },
  { model: ['model.onnx'], config: ['config.json'] },
] as const

for (const { model, config } of LAYOUTS) {
  test.serial(
    `the config of ${model.join('/')} is written to ${config.join('/')}, where a scan reads it`,
    async (t) => {
      const dir = temporaryFolder(t)
      const path = writeAt(join(dir, ...model))
      const configPath = join(dir, ...config)
      const { code, stdout, stderr } = init(t, path)
      t.deepEqual({ code, stderr }, { code: 0, stderr: '' })
      t.true(stdout.startsWith(`wrote ${configPath}\n`))
      const rows = stdout.split('\n').map((line) => line.split(':')[0] ?? '')
      t.deepEqual(
        rows.filter((key) => MODEL_CONFIG_KEYS.includes(key as never)),
        MODEL_CONFIG_KEYS,
      )
      t.regex(stdout.replace(/\s+/g, ' '), /if the model was found to be batchable\./)
      const written = JSON.parse(readFileSync(configPath, 'utf8'))
      // A value other than the default shows that the scan reads this file.
      writeFileSync(configPath, JSON.stringify({ ...written, max_batch_size: 7 }))
      const {
        sources: [source],
      } = await scanRepository(dir)
      t.like(source?.config, {
        batching: 'auto',
        maxBatchSize: 7,
        threads: null,
        versionPolicy: { kind: 'all' },
      })
    },
  )
}

test.serial('--output writes NAME/config.json into a folder, and serve accepts it', async (t) => {
  const models = temporaryFolder(t)
  const path = writeAt(join(models, 'add', '1', 'model.onnx'))
  t.is(init(t, path, '--output', models).code, 0)
  t.true(existsSync(join(models, 'add', 'config.json')))
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const bytes = new Uint8Array(Float32Array.of(10, 20).buffer)
  const [output] = await inferOutputs({
    url,
    model: 'add',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], bytes }],
  })
  t.is(output?.bytes?.byteLength, 8)
  await stopCleanly(t, server)
})

test.serial('an existing config is not overwritten without --force', async (t) => {
  const path = writeAt(join(temporaryFolder(t), 'm.onnx'))
  const configPath = join(dirname(path), 'm.config.json')
  writeFileSync(configPath, '{"threads": 7}')
  const { code, stderr } = init(t, path)
  t.is(code, 2)
  t.regex(stderr, /^onecopy: CONFIG_INVALID: .*m\.config\.json already exists: --force/)
  t.is(readFileSync(configPath, 'utf8'), '{"threads": 7}')
  t.is(init(t, path, '--force').code, 0)
  t.is((await readModelConfig(configPath)).threads, null)
})

test.serial('batches and queues follow the size of a row', async (t) => {
  const dir = temporaryFolder(t)
  // 48 MB in, 48 MB out: two rows exceed the limit of a batch, six fill the queue.
  t.is(init(t, writeAt(join(dir, 'large.onnx'), imageModel(2000))).code, 0)
  t.like(await readModelConfig(join(dir, 'large.config.json')), { maxBatchSize: 1, maxQueueRequests: 5 })
  // 0.6 MB in, 0.6 MB out.
  t.is(init(t, writeAt(join(dir, 'medium.onnx'), imageModel(224))).code, 0)
  t.like(await readModelConfig(join(dir, 'medium.config.json')), {
    maxBatchSize: 32,
    maxQueueBytes: 256 * 1024 * 1024,
  })
  t.is(init(t, writeAt(join(dir, 'small.onnx'))).code, 0)
  t.like(await readModelConfig(join(dir, 'small.config.json')), {
    maxBatchSize: 64,
    maxQueueRequests: null,
    maxQueueBytes: 64 * 1024 * 1024,
  })
})

test.serial(
  'a model that cannot be served exits with 1, a wrong command line with 2, and nothing is written',
  (t) => {
    const dir = temporaryFolder(t)
    const broken = writeAt(join(dir, 'broken.onnx'), Buffer.from('text'))
    const { code, stdout, stderr } = init(t, broken)
    t.deepEqual({ code, stdout }, { code: 1, stdout: '' })
    t.regex(stderr, /^onecopy: MODEL_INVALID: /)
    const other = writeAt(join(dir, 'model.bin'))
    for (const args of [[], [other], [broken, '--output', ''], [broken, '--forse'], [join(dir, 'none.onnx')]])
      t.is(init(t, ...args).code, 2, args.join(' '))
    const spaced = init(t, writeAt(join(dir, 'two words.onnx')))
    t.is(spaced.code, 2)
    t.regex(spaced.stderr, /REPOSITORY_INVALID: model name "two words"/)
    t.deepEqual(readdirSync(dir).sort(), ['broken.onnx', 'model.bin', 'two words.onnx'])
  },
)

testWithShared('init suggests labels for a classifier', ['models', 'cnn-resnet'], async (t) => {
  const dir = temporaryFolder(t)
  const { code, stdout } = init(t, sharedPath('models', 'cnn-resnet', 'model.onnx'), '--output', dir)
  t.is(code, 0)
  t.regex(stdout.replace(/\s+/g, ' '), /elements of "logits" \(100\)/)
  await t.notThrowsAsync(readModelConfig(join(dir, 'cnn-resnet', 'config.json')))
})
