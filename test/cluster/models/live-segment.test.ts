import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { LiveSegment, leaseEach } from '../../../cluster/models/live-segment.js'
import { openCache } from '../../../src/compile/cache.js'
import { type PublishedModel, publishUnlessHeld } from '../../../src/compile/publish.js'
import { OnecopyError } from '../../../src/errors.js'
import { readModelConfig } from '../../../src/repository/config.js'
import { createServerFolder, removeFolder } from '../../../src/segment/folder.js'
import { MemoryBudget } from '../../../src/sharing/memory-budget.js'
import { addModel, wideModel, writeModel } from '../../helpers/onnx-builder.js'
import { temporaryFolder } from '../../helpers/server.js'
import { until } from '../../helpers/waiting.js'
import { recordingLog } from '../fleet.js'

async function publisher(t: ExecutionContext, model = addModel()) {
  const models = writeModel(temporaryFolder(t), 'add', model)
  const server = await createServerFolder(temporaryFolder(t, '/dev/shm'))
  t.teardown(() => removeFolder(server.path))
  const source = {
    ...{ name: 'add', version: '1', path: join(models, 'add', '1', 'model.onnx') },
    config: await readModelConfig(join(models, 'none.json')),
  }
  const options = {
    ...{ server, cache: await openCache(temporaryFolder(t)) },
    budget: new MemoryBudget({ limitBytes: null, workers: 1 }),
    ...{ compileTimeoutMs: 60_000, concurrency: 1, signal: new AbortController().signal },
  }
  const publish = async (folderName: string): Promise<PublishedModel> =>
    (await publishUnlessHeld(source, [], { ...options, folderName: () => folderName })) as PublishedModel
  const released: string[] = []
  const { log } = recordingLog()
  const live = {
    ...{ log, processes: () => [], release: (name: string) => released.push(name) },
    publishAgain: () => publish('add@1+2'),
  }
  const folders = () => readdirSync(server.path).filter((name) => name.startsWith('add@'))
  return { publish, live, released, folders }
}

test('removing a segment deletes its folder and reports free memory once, even if repeated', async (t) => {
  const { publish, live, released, folders } = await publisher(t)
  const segment = await LiveSegment.open(await publish('add@1'), live)
  t.deepEqual(folders(), ['add@1'])
  await Promise.all([segment.remove(), segment.remove()])
  t.deepEqual(folders(), [])
  t.deepEqual(released, ['add@1'])
})

test('a segment that differs from what was published is rejected and removed', async (t) => {
  const { publish, live, released, folders } = await publisher(t)
  const published = await publish('add@1')
  const reference = { ...published.reference, graphSha256: 'another' }
  await t.throwsAsync(LiveSegment.open({ ...published, reference }, live), { code: 'SEGMENT_INVALID' })
  t.deepEqual(folders(), [])
  t.deepEqual(released, ['add@1'])
})

test('closing a segment keeps its file', async (t) => {
  const { publish, live, released } = await publisher(t)
  const segment = await LiveSegment.open(await publish('add@1'), live)
  await segment.close()
  t.true(existsSync(segment.published.segment.path))
  t.deepEqual(released, [])
})

test('leases of several segments report failures, and the others are held until released', async (t) => {
  const given: string[] = []
  const segment = (name: string, problem?: Error): Pick<LiveSegment, 'lease'> => ({
    lease: async () => {
      if (problem !== undefined) throw problem
      return () => given.push(name)
    },
  })
  const problem = new OnecopyError('SEGMENT_SPACE', 'it is full')
  const three = [segment('a'), segment('b', problem), segment('c')] as LiveSegment[]
  const { failures, release } = await leaseEach(three)
  t.deepEqual(failures, [null, problem, null])
  t.deepEqual(given, [])
  release()
  t.deepEqual(given, ['a', 'c'])
})

test('a segment moves into huge pages when the first loads have ended, unless it is removed', async (t) => {
  const { publish, live, folders } = await publisher(t, wideModel(8 * 1024 * 1024))
  const { log, lines } = recordingLog()
  const moved = () => lines.filter(({ msg }) => msg === 'moved the segment into huge pages')
  const segment = await LiveSegment.open(await publish('add@1'), { ...live, log })
  const releases = await Promise.all([segment.lease(), segment.lease()])
  releases[0]?.()
  releases[0]?.()
  t.deepEqual(moved(), [])
  releases[1]?.()
  await until('the segment to be moved', () => moved().length > 0)
  t.true(Number(moved()[0]?.possibleBytes) >= 6 * 1024 * 1024)
  // Later loads change nothing.
  ;(await segment.lease())()
  await segment.remove()
  t.is(moved().length, 1)

  const removed = await LiveSegment.open(await publish('add@1'), { ...live, log })
  ;(await removed.lease())()
  await removed.remove()
  t.deepEqual(folders(), [])
})
