import { queryObjects } from 'node:v8'
import test from 'ava'
import { until } from '../../helpers/waiting.js'
import { makeStats, segmentNamed, startWorker, useWorkerProgram } from '../fleet.js'

test.beforeEach(() => useWorkerProgram())

test.serial(
  'a worker that sends an invalid message is killed with the reason, and others are not affected',
  async (t) => {
    const stats = await makeStats(t)
    const [worker, other] = [startWorker(t, stats), startWorker(t, stats)]
    await Promise.all([worker.ready, other.ready])
    process.kill(worker.pid, 'SIGHUP')
    const { how, failure } = await worker.exited
    t.is(how, 'SIGKILL')
    t.is(failure?.code, 'INTERNAL')
    t.regex(failure?.message ?? '', /worker \d+ sent an invalid message: type/)
    await other.change({ activate: ['a'], retire: [] }, 30_000)
    t.true(other.serves.has('a'))
  },
)

test.serial('a failure reported by a worker is thrown unchanged', async (t) => {
  const stats = await makeStats(t)
  const worker = startWorker(t, stats)
  await worker.ready
  await t.throwsAsync(worker.prepare(await segmentNamed('refused', stats), 30_000), {
    code: 'SELF_CHECK_FAILED',
  })
  await worker.prepare(await segmentNamed('good', stats), 30_000)
  t.true(worker.holds.has('good@1#1'))
})

test.serial('pending requests are rejected when a worker ends or is abandoned', async (t) => {
  const stats = await makeStats(t)
  const [dying, abandoned] = [startWorker(t, stats), startWorker(t, stats)]
  await Promise.all([dying.ready, abandoned.ready])
  const endless = await segmentNamed('endless', stats)
  const asked = [dying, abandoned].map((worker) =>
    t.throwsAsync(worker.prepare(endless, 600_000), { code: 'WORKER_GONE' }),
  )
  dying.kill()
  abandoned.abandon('WORKER_STALLED')
  await Promise.all(asked)
  t.is(abandoned.retiredFor, 'WORKER_STALLED')
  await t.throwsAsync(dying.prepare(await segmentNamed('good', stats), 600_000), { code: 'WORKER_GONE' })
})

test.serial('a generation is held until the worker reports its unload, or ends', async (t) => {
  const stats = await makeStats(t)
  const [worker, dying] = [startWorker(t, stats), startWorker(t, stats)]
  for (const one of [worker, dying]) {
    await one.ready
    await one.prepare(await segmentNamed('good', stats), 30_000)
    await one.change({ activate: ['good@1#1'], retire: [] }, 30_000)
    await one.change({ activate: [], retire: ['good@1#1'] }, 30_000)
    t.false(one.serves.has('good@1#1'))
    t.true(one.holds.has('good@1#1'))
  }
  const unloaded = [worker, dying].map((one) => one.unloaded('good@1#1'))
  process.kill(worker.pid, 'SIGUSR2')
  dying.kill()
  await Promise.all(unloaded)
  t.deepEqual([worker.holds.size, dying.holds.size], [0, 0])
  await worker.unloaded('good@1#1')
})

test.serial('completed changes are not retained', async (t) => {
  const worker = startWorker(t, await makeStats(t))
  await worker.ready
  const CHANGES = 500
  const change = () => worker.change({ activate: ['a'], retire: ['b'] }, 30_000)
  await change()
  // Collects garbage before it counts.
  const before = queryObjects(Promise, { format: 'count' })
  for (let i = 0; i < CHANGES; i++) await change()
  const kept = queryObjects(Promise, { format: 'count' }) - before
  t.true(kept < CHANGES / 2, `${kept} promises are retained after ${CHANGES} changes`)
})

test.serial('a process that failed to spawn counts as ended', async (t) => {
  useWorkerProgram({ cwd: '/nowhere/at/all' })
  const worker = startWorker(t, await makeStats(t))
  const { how, failure, wasReady } = await worker.exited
  t.is(how, 'no process')
  t.is(failure?.code, 'WORKER_BOOT_FAILED')
  t.false(wasReady)
  await t.throwsAsync(worker.ready, { code: 'WORKER_BOOT_FAILED' })
})

test.serial('a worker reports a stall, and a repeated drain is a single drain', async (t) => {
  let silentMs = 0
  const worker = startWorker(t, await makeStats(t), {
    onStalled: (ms) => {
      silentMs = ms
    },
  })
  await worker.ready
  process.kill(worker.pid, 'SIGWINCH')
  await until('the report', () => silentMs === 1000)
  const [first, second] = await Promise.all([worker.drain(60_000), worker.drain(60_000)])
  t.is(first, second)
  t.false(first.wasKilled)
})
