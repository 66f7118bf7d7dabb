import { readdirSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { type PublishedModel, publishModels } from '../../src/compile/publish.js'
import { readModelConfig } from '../../src/repository/config.js'
import { createServerFolder } from '../../src/segment/folder.js'
import type { SegmentHeader } from '../../src/segment/layout.js'
import { verifySegment } from '../../src/segment/write.js'
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

/** Publishes a model of 32 MB; `onEarly` is called when its trial runs have begun. */
async function publishLarge(t: ExecutionContext, onEarly: (header: SegmentHeader) => boolean) {
  const models = writeModel(temporaryFolder(t), 'large', wideModel(32 * 1024 * 1024))
  const config = await readModelConfig(join(models, 'config.json'))
  const server = await createServerFolder(temporaryFolder(t, '/dev/shm'))
  const stop = new AbortController()
  const publishing = publishModels(
    [{ name: 'large', version: '1', path: join(models, 'large', '1', 'model.onnx'), config }],
    {
      ...{ server, cache: await openCache(temporaryFolder(t)) },
      budget: new MemoryBudget({ limitBytes: null, workers: 1 }),
      ...{ compileTimeoutMs: 60_000, concurrency: 1, signal: stop.signal },
      hasRoomFor: (_, header) => onEarly(header),
    },
  )
  return { publishing, stop, folders: () => readdirSync(server.path).filter((name) => name.includes('@')) }
}

test('a large image is copied during its trial runs, and the segment has their result', async (t) => {
  const early: SegmentHeader[] = []
  const { publishing, folders } = await publishLarge(t, (header) => early.push(header) > 0)
  const [published] = (await publishing) as [PublishedModel]
  const { path, header } = published.segment
  t.deepEqual(
    early.map(({ batching }) => batching.reason),
    ['the probe did not finish'],
  )
  t.true(header.batching.batchable, header.batching.reason)
  await using file = await open(path)
  const { batching, selfCheck } = await verifySegment(file)
  t.deepEqual({ batching, selfCheck }, { batching: header.batching, selfCheck: header.selfCheck })
  t.not(selfCheck, null)
  t.deepEqual(folders(), ['large@1'])
  t.deepEqual(readdirSync(dirname(path)), ['model.segment'])
})

test('a copy that was begun is removed if the server stops during trial runs', async (t) => {
  let hasBegun = false
  const { publishing, stop, folders } = await publishLarge(t, () => {
    hasBegun = true
    setImmediate(() => stop.abort())
    return true
  })
  await t.throwsAsync(publishing, { code: 'SHUTTING_DOWN' })
  t.true(hasBegun)
  t.deepEqual(folders(), [])
})
