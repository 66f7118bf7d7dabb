/** Jobs as files in a folder that every worker sees. */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type JobLimits, JobStore } from '../../src/ersilia/jobs.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'
import { makeBundle, molecules } from './helpers.js'

async function open(t: ExecutionContext, limits: Partial<JobLimits> = {}) {
  const folder = temporaryFolder(t)
  const store = await JobStore.open(folder, limits)
  const run = async (work: () => Promise<string>) => {
    const id = await store.submit(work, 10)
    await until('the job to end', async () => (await store.status(id)) !== 'pending')
    return id
  }
  return { store, run, folder: join(folder, 'jobs') }
}

/** A job that the test completes. */
function held() {
  let end = () => {}
  let begun = false
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  const work = async () => {
    begun = true
    await ended
    return '"held"'
  }
  return { work, end: () => end(), hasBegun: () => begun }
}

test('finished and failed jobs are kept up to the limit, then the oldest are removed', async (t) => {
  const { store, run, folder } = await open(t, { keepJobs: 5 })
  const ids: string[] = []
  for (let i = 0; i < 12; i++) {
    ids.push(await run(async () => (i % 2 === 0 ? `${i}` : Promise.reject(new Error('no')))))
    // The job that finishes is already counted among the others.
    t.true(new Set(readdirSync(folder).map((name) => name.split('.')[0])).size <= 5 + 1)
  }
  await t.throwsAsync(store.status(ids[0] as string), { code: 'JOB_NOT_FOUND' })
  t.is(await store.status(ids[11] as string), 'failed')
  t.deepEqual(await store.result(ids[10] as string), { status: 'completed', text: '10' })
})

test('results are kept up to the byte limit, and a larger one fails', async (t) => {
  const { store, run } = await open(t, { keepBytes: 100_000 })
  const first = await run(async () => 'x'.repeat(60_000))
  t.is((await store.result(first)).text?.length, 60_000)
  const second = await run(async () => 'y'.repeat(60_000))
  await t.throwsAsync(store.result(first), { code: 'JOB_NOT_FOUND' })
  t.is(await store.status(await run(async () => 'z'.repeat(100_001))), 'failed')
  t.is((await store.result(second)).text?.length, 60_000)
})

test('queued and running jobs are never removed', async (t) => {
  const { store, run } = await open(t, { keepJobs: 1 })
  const one = held()
  const running = await store.submit(one.work, 10)
  const waiting = store.submit(async () => '1', 10)
  await until('it to run', one.hasBegun)
  t.is(await store.status(running), 'pending')
  one.end()
  const second = await waiting
  await until('both to end', async () => (await store.status(second)) !== 'pending')
  await run(async () => '2')
  await t.throwsAsync(store.status(running), { code: 'JOB_NOT_FOUND' })
})

test('queued jobs are limited by number and by bytes', async (t) => {
  const { store } = await open(t, { maxPending: 3, maxPendingBytes: 1000 })
  const one = held()
  const first = await store.submit(one.work, 600)
  await t.throwsAsync(
    store.submit(async () => '1', 500),
    { code: 'QUEUE_FULL', message: /queued jobs take 600 bytes, 500 more would exceed the limit of 1000/ },
  )
  // It would never fit.
  await t.throwsAsync(
    store.submit(async () => '1', 1001),
    { code: 'REQUEST_TOO_LARGE', message: /at most 1000 bytes, got 1001/ },
  )
  const others = await Promise.allSettled([1, 2, 3, 4].map(() => store.submit(async () => '1', 10)))
  t.is(others.filter(({ status }) => status === 'fulfilled').length, 2)
  one.end()
  await until('the first to end', async () => (await store.status(first)) === 'completed')
  await t.notThrowsAsync(store.submit(async () => '1', 900))
  await store.close()
})

test('a closing store rejects new jobs, fails queued ones and stops the running one', async (t) => {
  const { store } = await open(t)
  let isBegun = false
  const running = await store.submit(async (isCancelled) => {
    isBegun = true
    await until('the job to be cancelled', isCancelled)
    throw new Error('cancelled')
  }, 10)
  const waiting = await store.submit(async () => t.fail('it never runs') as unknown as string, 10)
  await until('the job to run', () => isBegun)
  await store.close()
  t.deepEqual(await Promise.all([running, waiting].map((id) => store.status(id))), ['failed', 'failed'])
  await t.throwsAsync(
    store.submit(async () => '1', 1),
    { code: 'SHUTTING_DOWN' },
  )
})

test('a server shuts down without waiting for its jobs', async (t) => {
  const bundle = makeBundle(t, { manifest: { batch_size: 1 } })
  const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
  // Hours of work, one molecule at a time, and a job queued behind it.
  for (let i = 0; i < 2; i++) {
    const submitted = await fetch(`${url}/job/submit`, {
      method: 'POST',
      body: JSON.stringify(molecules(200_000)),
    })
    t.is(submitted.status, 200)
    await submitted.text()
  }
  await stopCleanly(t, server)
})
