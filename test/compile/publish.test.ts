import { join } from 'node:path'
import test from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { publishModels } from '../../src/compile/publish.js'
import { readModelConfig } from '../../src/repository/config.js'
import { createServerFolder } from '../../src/segment/folder.js'
import { MemoryBudget } from '../../src/sharing/memory-budget.js'
import { smallTmpfs, testWithLimits } from '../helpers/limits.js'
import { addModel, wideModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'

testWithLimits(
  'a model whose segment could not be written releases its memory reservation',
  ['tmpfs'],
  async (t) => {
    const segmentDir = smallTmpfs(t, 'size=4m')
    const models = temporaryFolder(t)
    writeModel(models, 'large', wideModel(8 * 1024 * 1024))
    writeModel(models, 'small', addModel())
    const config = await readModelConfig(join(models, 'config.json'))
    const options = {
      server: await createServerFolder(segmentDir),
      cache: await openCache(temporaryFolder(t)),
      // Only one of them fits.
      budget: new MemoryBudget({ limitBytes: 120e6 + 40e6, workers: 1 }),
      ...{ compileTimeoutMs: 60_000, concurrency: 1, signal: new AbortController().signal },
    }
    const publish = (name: string) =>
      publishModels([{ name, version: '1', path: join(models, name, '1', 'model.onnx'), config }], options)
    await t.throwsAsync(publish('large'), { code: 'SEGMENT_SPACE' })
    options.budget.reserve('another', {
      fileBytes: 30e6,
      privateBytes: 0,
      sharing: {
        ...{ state: 'shared', weightsBytes: 0, sharedRawBytes: 0, sharedPackedBytes: 0 },
        ...{ privatelyPackedBytes: 0, unshareableBytes: 0, notes: [] },
      },
    })
    t.is((await publish('small')).length, 1)
  },
)

test('a failed model does not affect the others and reserves no memory', async (t) => {
  const models = temporaryFolder(t)
  const names = ['bad-first', 'good', 'bad-middle', 'late', 'bad-last']
  for (const name of names)
    writeModel(models, name, name.startsWith('bad') ? Buffer.from('not a model') : addModel())
  const config = await readModelConfig(join(models, 'config.json'))
  const sources = names.map((name) => ({
    ...{ name, version: '1', config },
    path: join(models, name, '1', 'model.onnx'),
  }))
  const failed: string[] = []
  let compiled = 0
  const published = await publishModels(sources, {
    server: await createServerFolder(temporaryFolder(t, '/dev/shm')),
    cache: await openCache(temporaryFolder(t)),
    budget: new MemoryBudget({ limitBytes: null, workers: 1 }),
    ...{ compileTimeoutMs: 60_000, concurrency: 2, signal: new AbortController().signal },
    onAllCompiled: () => compiled++,
    onFailed: ({ name }, failure) => {
      t.like(failure, { code: 'MODEL_INVALID' })
      failed.push(name)
    },
  })
  t.deepEqual(
    published.map(({ source }) => source.name),
    ['good', 'late'],
    'in the order of the sources',
  )
  t.deepEqual(failed.toSorted(), ['bad-first', 'bad-last', 'bad-middle'])
  t.is(compiled, 1, 'workers are not waited for because of a model that fails')
})
