import { once } from 'node:events'
import { createServer } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { ServingPorts } from '../../../cluster/port.js'
import type { ModelFault } from '../../../cluster/workers/breaker.js'
import { forkWorker } from '../../../cluster/workers/fork-worker.js'
import { until } from '../../helpers/waiting.js'
import { startFleet, useWorkerProgram } from '../fleet.js'

test.beforeEach(() => useWorkerProgram())

test.serial('a worker that died before its queued replacement is not replaced twice', async (t) => {
  const { supervisor } = await startFleet(t, 2)
  const [first, second] = supervisor.ready
  if (first === undefined || second === undefined) return t.fail('expected two workers')
  const replaced = supervisor.replace(first, 'max requests')
  const late = supervisor.replace(second, 'max requests')
  second.kill()
  await second.exited
  await Promise.all([replaced, late])
  await until('two serve', () => supervisor.ready.length === 2)
  const ids = supervisor.ready.map(({ id }) => id)
  t.deepEqual(ids.sort(), [second.id + 1, second.id + 2], 'one replacement each')
})

test.serial('a restart replaces every worker older than the call, and no newer one', async (t) => {
  let goOn: () => void = () => {}
  const isNewerReady = new Promise<void>((resolve) => {
    goOn = resolve
  })
  let restartedId = Number.POSITIVE_INFINITY
  const { supervisor } = await startFleet(t, 2, {
    // The restart gets to the second worker after that worker died and its replacement became ready.
    onReady: async ({ id }) => {
      if (id === restartedId) await isNewerReady
    },
  })
  const [, second] = supervisor.ready
  if (second === undefined) return t.fail('expected two workers')
  restartedId = second.id + 1
  const restarted = supervisor.restart('SIGHUP')
  second.kill()
  await until('the replacement of the dead worker', () =>
    supervisor.ready.some(({ id }) => id === second.id + 2),
  )
  goOn()
  await restarted
  await until('two serve', () => supervisor.ready.length === 2)
  t.deepEqual(supervisor.ready.map(({ id }) => id).sort(), [second.id + 1, second.id + 2])
})

test.serial('a stalled worker is not ready, stays until another serves, and is then drained', async (t) => {
  const faults: ModelFault[] = []
  const ends: string[] = []
  const { supervisor, stats, lines } = await startFleet(t, 1, {
    onModelFault: (fault) => {
      faults.push(fault)
      return false
    },
    onEnded: (reason) => ends.push(reason),
  })
  const [stalled] = supervisor.ready
  if (stalled === undefined) return t.fail('expected a worker')
  await stats.addModel({ model: 'slow', version: '3' })
  process.kill(stalled.pid, 'SIGWINCH')
  await until('the worker to be not ready', () => !supervisor.ready.includes(stalled))
  t.true(supervisor.alive.includes(stalled))
  t.false(supervisor.active.includes(stalled))
  const { how } = await stalled.exited
  t.is(how, 'code 0', 'drained, not killed')
  await until('its exit to be counted', () => ends.length === 1)
  t.deepEqual(ends, ['WORKER_STALLED'])
  t.is(supervisor.ready.length, 1, 'the replacement was ready before the exit')
  t.true(lines.some(({ code }) => code === 'WORKER_STALLED'))
  t.deepEqual(faults, [], 'no model was running')
})

test.serial(
  'a worker that sends an invalid message is replaced, and the others are not affected',
  async (t) => {
    const { supervisor, lines } = await startFleet(t, 2)
    const [bad, good] = supervisor.ready
    if (bad === undefined || good === undefined) return t.fail('expected two workers')
    process.kill(bad.pid, 'SIGHUP')
    await bad.exited
    await until('two serve', () => supervisor.ready.length === 2)
    t.true(supervisor.ready.includes(good))
    const line = lines.find(({ code }) => code === 'INTERNAL')
    t.regex(String(line?.reason), /invalid message/)
  },
)

async function occupy(t: ExecutionContext, port: number): Promise<void> {
  const other = createServer().listen(port, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => other.close())
}

test.serial('a free port that another process takes before a worker listens is replaced', async (t) => {
  const ports = await ServingPorts.choose({ host: '127.0.0.1', port: 0, grpcPort: null, isHttp: true })
  const first = ports.current
  await occupy(t, first.port)
  const { supervisor, lines } = await startFleet(t, 3, {
    ports: () => ports.current,
    replacePorts: (taken, onReplace) => ports.replace(taken, onReplace),
  })
  t.not(ports.current.port, first.port)
  t.is(supervisor.port, ports.current.port)
  t.deepEqual(
    supervisor.ready.map(({ port }) => port),
    [1, 2, 3].map(() => ports.current.port),
  )
  t.is(lines.filter(({ msg }) => msg.includes('choosing another')).length, 1)
})

test.serial('a configured port that another process has fails the start', async (t) => {
  const free = (await ServingPorts.choose({ host: '127.0.0.1', port: 0, grpcPort: null, isHttp: true }))
    .current
  await occupy(t, free.port)
  const ports = await ServingPorts.choose({ ...free, host: '127.0.0.1', isHttp: true })
  const started = startFleet(t, 2, {
    ports: () => ports.current,
    replacePorts: (taken, onReplace) => ports.replace(taken, onReplace),
  })
  await t.throwsAsync(started, { code: 'ADDRESS_UNAVAILABLE', message: new RegExp(`:${free.port} `) })
})

test.serial('a failing fork is retried, and reported after five attempts', async (t) => {
  const given: string[] = []
  const { supervisor } = await startFleet(t, 1, { onBootLimitReached: ({ message }) => given.push(message) })
  const [worker] = supervisor.ready
  if (worker === undefined) return t.fail('expected a worker')
  useWorkerProgram({ cwd: '/nowhere/at/all' })
  worker.kill()
  await until('the boot limit', () => given.length === 1)
  t.regex(given[0] ?? '', /failed to start 5 times in a row/)
  useWorkerProgram()
  await supervisor.restart('asked for')
  t.is(supervisor.ready.length, 1)
})

test.serial('a start boots as many workers at a time as it is told', async (t) => {
  let forked = 0
  const forkedWhenReady: number[] = []
  await startFleet(t, 3, {
    concurrentBoots: 1,
    fork: () => {
      forked++
      return forkWorker()
    },
    onReady: async () => {
      forkedWhenReady.push(forked)
    },
  })
  t.deepEqual(forkedWhenReady, [1, 2, 3])
})
