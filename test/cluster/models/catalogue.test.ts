/** Real segments, and real processes that report to load them (worker-program.ts). */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Catalogue } from '../../../cluster/models/catalogue.js'
import { Supervisor } from '../../../cluster/workers/supervisor.js'
import type { IndexEntry } from '../../../src/api/schemas.js'
import { openCache } from '../../../src/compile/cache.js'
import { publishUnlessHeld } from '../../../src/compile/publish.js'
import { readModelConfig } from '../../../src/repository/config.js'
import type { ModelSource } from '../../../src/repository/repository.js'
import { createServerFolder, removeFolder } from '../../../src/segment/folder.js'
import { MemoryBudget } from '../../../src/sharing/memory-budget.js'
import { addModel, wideModel, writeModel } from '../../helpers/onnx-builder.js'
import { temporaryFolder } from '../../helpers/server.js'
import { until } from '../../helpers/waiting.js'
import { makeStats, recordingLog, startMessage, useWorkerProgram } from '../fleet.js'

const TIMEOUT_MS = 30_000

async function makeCatalogue(t: ExecutionContext, { retireTimeoutMs = TIMEOUT_MS, unloads = '' } = {}) {
  process.env.WORKER_PROGRAM_UNLOADS = unloads
  useWorkerProgram()
  const stats = await makeStats(t)
  const server = await createServerFolder(temporaryFolder(t, '/dev/shm'))
  t.teardown(() => removeFolder(server.path))
  const cache = await openCache(temporaryFolder(t))
  const { log, lines } = recordingLog()
  const released: string[] = []
  const condemned: string[] = []
  const changes: [IndexEntry, string][] = []
  const publishing = {
    ...{ server, cache, budget: new MemoryBudget({ limitBytes: null, workers: 2 }) },
    ...{ compileTimeoutMs: 60_000, concurrency: 1, signal: new AbortController().signal },
  }
  let supervisor: Supervisor | undefined
  const catalogue = new Catalogue({
    stats,
    log,
    publish: (source, { folderName, heldKeys }) =>
      publishUnlessHeld(source, heldKeys, { ...publishing, folderName: () => folderName }),
    release: (folderName) => released.push(folderName),
    processes: () => supervisor?.pids ?? [],
    workers: () => supervisor?.active ?? [],
    allWorkers: () => supervisor?.alive ?? [],
    discard: (worker, failure) => {
      condemned.push(failure.code)
      supervisor?.discard(worker, failure)
    },
    onChange: (entry, outcome) => changes.push([entry, outcome]),
    prepareTimeoutMs: TIMEOUT_MS,
    retireTimeoutMs,
  })
  await catalogue.initialize([], [])
  const supervising = new Supervisor({
    concurrentBoots: 1,
    workers: 2,
    lease: (take) => catalogue.lease((start) => take({ ...startMessage(stats), ...start })),
    replacePorts: async () => false,
    ...{ stats, bootTimeoutMs: TIMEOUT_MS, drainTimeoutMs: TIMEOUT_MS, log },
    onEnded: () => {},
    onBootLimitReached: () => {},
    onRecovered: () => {},
    onReady: async (worker) => catalogue.workerReady(worker),
    onModelFault: () => false,
    onFaultyWorkerReplaced: () => {},
  })
  supervisor = supervising
  t.teardown(async () => {
    await supervising.drain(TIMEOUT_MS)
    await catalogue.close()
  })
  await supervising.start()
  const models = temporaryFolder(t)
  const source = async (bytes: Uint8Array, name = 'add'): Promise<ModelSource> => {
    writeModel(models, name, bytes)
    const config = await readModelConfig(join(models, 'none.json'))
    return { name, version: '1', path: join(models, name, '1', 'model.onnx'), config }
  }
  const unload = () => {
    for (const pid of supervising.pids) process.kill(pid, 'SIGUSR2')
  }
  const paths = () => catalogue.published.map(({ segment }) => segment.path)
  return { catalogue, supervisor: supervising, source, unload, paths, lines, released, condemned, changes }
}

test.serial(
  'an earlier generation is kept while a worker holds it, through later changes, and no worker is ended',
  async (t) => {
    const { catalogue, supervisor, source, unload, paths, lines, released, condemned } = await makeCatalogue(
      t,
      {
        retireTimeoutMs: 100,
      },
    )
    const workers = supervisor.ready
    const [kept]: string[] = await catalogue.load(await source(addModel([1, 1]))).then(paths)
    await catalogue.load(await source(addModel([2, 2])))
    await catalogue.load(await source(addModel([3, 3])))
    t.deepEqual(catalogue.generations, [{ name: 'add', version: '1', generations: 3 }])
    t.true(existsSync(kept as string))
    t.deepEqual(released, [], 'all three are in memory')
    const [entry] = catalogue.index
    t.is(entry?.state, 'READY')
    t.regex(entry?.reason ?? '', /earlier generation still has requests in flight/)
    t.is(lines.filter(({ msg }) => msg.startsWith('an earlier generation is kept')).length, 2)
    unload()
    await until('two generations to be unloaded', () => released.length === 2)
    t.false(existsSync(kept as string))
    t.deepEqual(released.sort(), ['add@1', 'add@1+2'])
    t.deepEqual(catalogue.generations, [{ name: 'add', version: '1', generations: 1 }])
    t.is(catalogue.index[0]?.reason, '')
    t.deepEqual(condemned, [])
    t.deepEqual(supervisor.ready, workers)
  },
)

test.serial('an earlier generation is removed after its last worker has ended', async (t) => {
  const { catalogue, supervisor, source, released } = await makeCatalogue(t, { retireTimeoutMs: 100 })
  await catalogue.load(await source(addModel([1, 1])))
  await catalogue.load(await source(addModel([2, 2])))
  t.deepEqual(released, [])
  for (const worker of supervisor.ready) worker.kill()
  await until('its removal', () => released.length === 1)
  t.deepEqual(released, ['add@1'])
})

test.serial('a segment that serves under a new config outlives its earlier generation', async (t) => {
  const { catalogue, source, paths, released } = await makeCatalogue(t, { unloads: 'immediately' })
  const first = await source(addModel([1, 1]))
  await catalogue.load(first)
  const [path] = paths()
  await catalogue.load({ ...first, config: { ...first.config, maxQueueDelayMs: 5 } })
  t.deepEqual(paths(), [path])
  t.true(existsSync(path as string))
  await catalogue.load(await source(addModel([2, 2])))
  t.false(existsSync(path as string))
  t.deepEqual(released, ['add@1'])
})

test.serial('a failed change keeps the current generation and leaves nothing behind', async (t) => {
  const { catalogue, source, paths, released, changes } = await makeCatalogue(t, { unloads: 'immediately' })
  await catalogue.load(await source(addModel([1, 1])))
  const before = paths()
  await t.throwsAsync(catalogue.load(await source(wideModel(1024 * 1024))), { code: 'INTERFACE_CHANGED' })
  t.deepEqual(paths(), before)
  t.deepEqual(released, ['add@1+2'])
  await t.throwsAsync(catalogue.load(await source(addModel([1, 1]), 'refused')), {
    code: 'SELF_CHECK_FAILED',
  })
  t.deepEqual(released, ['add@1+2', 'refused@1'])
  t.deepEqual(
    changes.map(([{ name, state }, outcome]) => [name, state, outcome]),
    [
      ['add', 'READY', 'loaded'],
      ['add', 'READY', 'failed'],
      ['refused', 'UNAVAILABLE', 'failed'],
    ],
  )
})

test.serial('new workers do not load an unloaded model; its remaining generation is reported', async (t) => {
  const { catalogue, supervisor, source, unload, released } = await makeCatalogue(t, {
    retireTimeoutMs: 100,
  })
  await catalogue.load(await source(addModel([1, 1])))
  await catalogue.unload({ name: 'add', version: '1' })
  const [entry] = catalogue.index
  t.is(entry?.state, 'UNAVAILABLE')
  t.regex(entry?.reason ?? '', /^unloaded; an earlier generation/)
  await t.throwsAsync(catalogue.unload({ name: 'add', version: '1' }), { code: 'MODEL_NOT_FOUND' })
  await supervisor.restart('asked for')
  t.true(supervisor.ready.every(({ holds }) => holds.size === 0))
  unload()
  await until('its removal', () => released.length === 1)
  t.is(catalogue.index[0]?.reason, 'unloaded')
  t.deepEqual(catalogue.generations, [])
})
