import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Publisher } from '../../../cluster/models/publisher.js'
import type { Config } from '../../../src/config/config.js'
import { readModelConfig } from '../../../src/repository/config.js'
import type { ModelSource } from '../../../src/repository/repository.js'
import { createServerFolder, removeFolder } from '../../../src/segment/folder.js'
import { MemoryBudget } from '../../../src/sharing/memory-budget.js'
import { addModel, wideModel, writeModel } from '../../helpers/onnx-builder.js'
import { temporaryFolder } from '../../helpers/server.js'
import { recordingLog } from '../fleet.js'

async function scene(t: ExecutionContext, limitBytes: number | null = null) {
  const models = temporaryFolder(t)
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const cacheDir = temporaryFolder(t)
  const { log, lines } = recordingLog()
  const stop = new AbortController()
  const publisher = new Publisher({
    config: { segmentDir, cacheDir, compileTimeoutMs: 60_000, rawWeights: 'keep' } as Config,
    log,
    budget: new MemoryBudget({ limitBytes, workers: 1 }),
    signal: stop.signal,
    reservedBytes: () => 0,
  })
  const server = await createServerFolder(segmentDir)
  t.teardown(() => removeFolder(server.path))
  const source = async (name: string, bytes: Uint8Array): Promise<ModelSource> => {
    writeModel(models, name, bytes)
    const config = await readModelConfig(join(models, 'none.json'))
    return { name, version: '1', path: join(models, name, '1', 'model.onnx'), config }
  }
  const folders = () => readdirSync(server.path).filter((name) => name.includes('@'))
  return { publisher, server, source, folders, lines, stop, cacheDir, segmentDir }
}

test('models are published in the requested order and compiled once', async (t) => {
  const { publisher, server, source, folders } = await scene(t)
  const sources = [await source('large', wideModel(1024 * 1024)), await source('add', addModel())]
  let rooms = 0
  const published = await publisher.publishAll(sources, server, { onRoomForWorkers: () => rooms++ })
  t.deepEqual(
    published.map(({ source: { name }, origin }) => [name, origin]),
    [
      ['large', 'compiled'],
      ['add', 'compiled'],
    ],
  )
  t.is(rooms, 3, 'when each compilation begins, and when all have ended')
  t.deepEqual(folders().sort(), ['add@1', 'large@1'])
  const again = await publisher.publishOne(sources[1] as ModelSource, server, {
    ...{ folderName: 'add@1+2', heldKeys: [] },
  })
  t.is(again?.origin, 'cache')
  t.is(basename(again?.segment.folder ?? ''), 'add@1+2')
})

test('held content is not written again; other content is', async (t) => {
  const { publisher, server, source, folders } = await scene(t)
  const first = await source('add', addModel([1, 1]))
  const published = await publisher.publishOne(first, server, { folderName: 'add@1', heldKeys: [] })
  const heldKeys = [published?.segment.header.key ?? '']
  t.is(await publisher.publishOne(first, server, { folderName: 'add@1+2', heldKeys }), null)
  t.deepEqual(folders(), ['add@1'])
  const other = await source('add', addModel([2, 2]))
  t.not(await publisher.publishOne(other, server, { folderName: 'add@1+2', heldKeys }), null)
  t.deepEqual(folders().sort(), ['add@1', 'add@1+2'])
})

test('a failed publication leaves no folder, and its error names the model', async (t) => {
  const { publisher, server, source, folders } = await scene(t)
  const broken = await source('broken', Buffer.from('no model'))
  const error = await t.throwsAsync(
    publisher.publishOne(broken, server, { folderName: 'broken@1', heldKeys: [] }),
    { code: 'MODEL_INVALID' },
  )
  t.regex(error?.message ?? '', /^model broken version 1/)
  t.deepEqual(folders(), [])
})

test('nothing is published after the server starts to stop', async (t) => {
  const { publisher, server, source, folders, stop } = await scene(t)
  const sources = [await source('add', addModel())]
  stop.abort()
  await t.throwsAsync(publisher.publishAll(sources, server, {}), { code: 'SHUTTING_DOWN' })
  t.deepEqual(folders(), [])
})

test('an unusable cache is logged, and models are published anyway', async (t) => {
  const { publisher, server, source, lines, cacheDir } = await scene(t)
  rmSync(cacheDir, { recursive: true })
  writeFileSync(cacheDir, 'a file where a folder should be')
  const add = await source('add', addModel())
  t.is((await publisher.publishOne(add, server, { folderName: 'add@1', heldKeys: [] }))?.origin, 'compiled')
  t.true(lines.some(({ msg }) => msg === 'the compile cache cannot be used'))
})

test('segments of a live server are neither adopted nor removed', async (t) => {
  const { publisher, server, source, segmentDir, lines } = await scene(t)
  await publisher.publishOne(await source('add', addModel()), server, { folderName: 'add@1', heldKeys: [] })
  t.deepEqual(await publisher.findLeftovers([await source('add', addModel())]), [])
  t.deepEqual(readdirSync(segmentDir), [basename(server.path)])
  t.deepEqual(
    lines.filter(({ msg }) => /dead server/.test(msg)),
    [],
  )
})

test('the memory of a worker is measured where the limit could be reached, and once for each image', async (t) => {
  const model = wideModel(32 * 1024 * 1024)
  const measuredIn = async (limitBytes: number) => {
    const { publisher, server, source } = await scene(t, limitBytes)
    const wide = await source('wide', model)
    const choices = (folderName: string) => ({ folderName, heldKeys: [] })
    const published = await publisher.publishOne(wide, server, choices('wide@1'))
    const again = await publisher.publishOne(wide, server, choices('wide@1+2'))
    return [published, again].map((one) => one?.privateBytes)
  }
  t.deepEqual(await measuredIn(100e9), [null, null])
  const [first, again] = await measuredIn(300e6)
  t.is(typeof first, 'number')
  t.is(again, first)
})
