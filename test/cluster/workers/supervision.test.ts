import { once } from 'node:events'
import { connect } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { iterations, POINT } from '../../helpers/model-inputs.js'
import { addModel, slowModel, writeModel } from '../../helpers/onnx-builder.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { keepAsking } from '../../helpers/steady-clients.js'
import { encodeRequest, infer, inferOutputs } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

async function metric(adminUrl: string, series: RegExp): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  const value = text.split('\n').find((line) => series.test(line))
  return value === undefined ? 0 : Number(value.split(' ').at(-1))
}

const SUCCESSES = /^onecopy_requests_total\{.*outcome="success"\}/

async function serveAdd(t: ExecutionContext, args: readonly string[]): Promise<RunningServer> {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  return await startServer(t, { models, args: ['--log-level', 'debug', ...args] })
}

async function serveSlow(t: ExecutionContext, args: readonly string[]): Promise<RunningServer> {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  return await startServer(t, { models, args: ['--log-level', 'debug', '--workers', '1', ...args] })
}

function workerPids({ server }: RunningServer): number[] {
  return server.log.filter((line) => line.msg === 'worker ready').map((line) => line.workerPid as number)
}

interface Clients {
  readonly failures: string[]
  answered: number
  stop(): Promise<void>
}

function askAll(url: string, count: number): Clients {
  const clients: Clients = { failures: [], answered: 0, stop: () => steady.stop() }
  const steady = keepAsking({
    ...{ url, model: 'add', input: POINT, count },
    onAnswer: (status, text) => {
      if (status === 200 && text.includes('[11,22]')) clients.answered++
      else clients.failures.push(`${status} ${text}`)
    },
    onFailure: (message) => clients.failures.push(message),
  })
  return clients
}

test.serial('SIGHUP replaces every worker, one at a time, and no request fails', async (t) => {
  const running = await serveAdd(t, ['--workers', '2'])
  const { server, url, adminUrl } = running
  const before = workerPids(running)
  const clients = askAll(url, 16)
  await until('the load to run', () => clients.answered > 100)
  server.process.kill('SIGHUP')
  await server.logged((line) => line.msg === 'every worker was replaced')
  await clients.stop()
  t.deepEqual(clients.failures, [])
  const after = workerPids(running).slice(before.length)
  t.is(after.length, 2)
  t.is(new Set([...before, ...after]).size, 4)
  t.is(await metric(adminUrl, SUCCESSES), clients.answered, 'counts of the old workers are kept')
  t.is(await metric(adminUrl, /worker_exits_total\{reason="SIGHUP"\}/), 2)
  await stopCleanly(t, server)
})

test.serial('further requests during a restart cause exactly one more restart', async (t) => {
  const running = await serveAdd(t, ['--workers', '2'])
  const { server } = running
  const times = (msg: string) => server.log.filter((line) => line.msg === msg).length
  for (let i = 1; i <= 3; i++) {
    server.process.kill('SIGHUP')
    await until('the signal to be handled', () => times('replacing every worker') === i)
  }
  await until('all restarts to be logged', () => times('every worker was replaced') === 3)
  t.is(workerPids(running).length, 6)
  await stopCleanly(t, server)
})

test.serial(
  'POST /restart on the admin port does the same, and the public port has no such route',
  async (t) => {
    const running = await serveAdd(t, ['--workers', '1'])
    const { server, url, adminUrl } = running
    t.is((await fetch(`${url}/restart`, { method: 'POST' })).status, 404)
    const response = await fetch(`${adminUrl}/restart`, { method: 'POST' })
    t.is(response.status, 202)
    t.deepEqual(await response.json(), { restarting: true })
    await server.logged((line) => line.msg === 'every worker was replaced')
    t.is(workerPids(running).length, 2)
    await stopCleanly(t, server)
  },
)

test.serial('a stopped worker is replaced for its silence; a scrape does not wait for it', async (t) => {
  const running = await serveAdd(t, ['--workers', '2', '--stall-timeout', '2s'])
  const { server, url, adminUrl } = running
  for (let i = 0; i < 4; i++) await inferOutputs({ url, model: 'add', inputs: [POINT] })
  process.kill(workerPids(running)[0] as number, 'SIGSTOP')
  const startedMs = performance.now()
  t.is(await metric(adminUrl, SUCCESSES), 4)
  t.true(performance.now() - startedMs < 500)
  const end = await server.logged((line) => line.msg === 'worker killed by the server')
  t.is(end.code, 'WORKER_STALLED')
  await until('a new worker to be ready', () => workerPids(running).length === 3)
  t.is(await metric(adminUrl, SUCCESSES), 4)
  await stopCleanly(t, server)
})

for (const signal of ['SIGSEGV', 'SIGABRT', 'SIGBUS'] as const) {
  test.serial(`a crash inside the runtime is reported with model and signal: ${signal}`, async (t) => {
    const running = await serveSlow(t, [])
    const { server, url, adminUrl } = running
    const lost = infer({ url, model: 'slow', inputs: [iterations(1_000_000_000)] }).catch(() => 'cut off')
    // The second request is queued, so the first is in the runtime.
    const waiting = infer({ url, model: 'slow', inputs: [iterations(1)] }).catch(() => 'cut off')
    await until('one waits', async () => (await metric(adminUrl, /^onecopy_queue_depth /)) === 1)
    process.kill(workerPids(running)[0] as number, signal)
    const end = await server.logged((line) => line.msg === 'worker crashed inside the runtime')
    t.is(end.how, signal)
    t.is(end.model, 'slow')
    t.is(end.version, '1')
    t.deepEqual(await Promise.all([lost, waiting]), ['cut off', 'cut off'])
    await until('a new worker to be ready', () => workerPids(running).length === 2)
    t.is(await metric(adminUrl, new RegExp(`worker_exits_total\\{reason="${signal}"\\}`)), 1)
    await stopCleanly(t, server)
  })
}

test.serial(
  'kill -9 during inference is logged as an outside signal, not as a fault of the model',
  async (t) => {
    const running = await serveSlow(t, ['--breaker-limit', '1'])
    const { server, url, adminUrl } = running
    const lost = infer({ url, model: 'slow', inputs: [iterations(1_000_000_000)] }).catch(() => 'cut off')
    const waiting = infer({ url, model: 'slow', inputs: [iterations(1)] }).catch(() => 'cut off')
    await until('one waits', async () => (await metric(adminUrl, /^onecopy_queue_depth /)) === 1)
    process.kill(workerPids(running)[0] as number, 'SIGKILL')
    const end = await server.logged((line) => line.msg === 'worker killed by an outside signal')
    t.like(end, { how: 'SIGKILL', model: 'slow', version: '1' })
    t.deepEqual(await Promise.all([lost, waiting]), ['cut off', 'cut off'])
    await until('a new worker to be ready', () => workerPids(running).length === 2)
    await inferOutputs({ url, model: 'slow', inputs: [iterations(1)] })
    t.is(await metric(adminUrl, /^onecopy_model_disabled\{.*slow/), 0)
    t.is(await metric(adminUrl, /^onecopy_model_crashes_total\{.*slow/), 0)
    t.is(await metric(adminUrl, /worker_exits_total\{reason="SIGKILL"\}/), 1)
    await stopCleanly(t, server)
  },
)

test.serial('a worker that reached its number of requests is replaced, and no request fails', async (t) => {
  const running = await serveAdd(t, ['--workers', '2', '--max-requests-per-worker', '200'])
  const { server, url, adminUrl } = running
  const clients = askAll(url, 8)
  await until('four replacements', () => workerPids(running).length >= 6)
  await clients.stop()
  t.deepEqual(clients.failures, [])
  t.is(await metric(adminUrl, SUCCESSES), clients.answered)
  await stopCleanly(t, server)
})

test.serial('a memory ceiling below the size of a new worker is reported and ignored', async (t) => {
  const running = await serveAdd(t, ['--workers', '1', '--max-private-memory', '1MiB'])
  const { server, url } = running
  const line = await server.logged((one) => /--max-private-memory/.test(one.msg))
  t.regex(line.msg, /has .* MB of private memory .* right after its start: the ceiling is ignored/)
  await inferOutputs({ url, model: 'add', inputs: [POINT] })
  t.is(workerPids(running).length, 1)
  await stopCleanly(t, server)
})

test.serial('counts of a worker killed during scrapes are exact', async (t) => {
  const running = await serveAdd(t, ['--workers', '1'])
  const { server, url, adminUrl } = running
  let highest = 0
  for (let round = 1; round <= 3; round++) {
    for (let i = 0; i < 50; i++) await inferOutputs({ url, model: 'add', inputs: [POINT] })
    const scrapes = Array.from({ length: 5 }, () => metric(adminUrl, SUCCESSES))
    process.kill(workerPids(running).at(-1) as number, 'SIGKILL')
    for (const count of await Promise.all(scrapes)) {
      t.is(count, round * 50)
      t.true(count >= highest)
      highest = count
    }
    await until('a new worker to be ready', () => workerPids(running).length === round + 1)
  }
  t.is(await metric(adminUrl, SUCCESSES), 150)
  await stopCleanly(t, server)
})

test.serial('connections that a dead worker did not accept go to another worker', async (t) => {
  const running = await serveAdd(t, ['--workers', '2'])
  const { server, url } = running
  const stopped = workerPids(running)[0] as number
  process.kill(stopped, 'SIGSTOP')
  const { body, headers } = encodeRequest([POINT], 'json')
  let answered = 0
  // Each on a new connection, so that they alternate between the workers.
  const all = Promise.all(
    Array.from({ length: 6 }, async () => {
      const response = await fetch(`${url}/v2/models/add/infer`, {
        method: 'POST',
        headers: { ...headers, Connection: 'close' },
        body,
      })
      answered++
      return response.status
    }),
  )
  await until('responses on all connections but that of the stopped worker', () => answered === 5)
  process.kill(stopped, 'SIGKILL')
  t.deepEqual(await all, [200, 200, 200, 200, 200, 200])
  await stopCleanly(t, server)
})

test.serial(
  'a connection that the only worker did not accept is answered or closed when it dies',
  async (t) => {
    const running = await serveAdd(t, ['--workers', '1'])
    const { server, url } = running
    const [pid] = workerPids(running) as [number]
    process.kill(pid, 'SIGSTOP')
    const clients = Array.from({ length: 3 }, () => {
      const socket = connect(Number(new URL(url).port), '127.0.0.1')
      socket.end('GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
      socket.on('error', () => {}).resume()
      const closed = new Promise((resolve) => socket.on('close', resolve))
      return { connected: once(socket, 'connect'), closed }
    })
    await Promise.all(clients.map(({ connected }) => connected))
    process.kill(pid, 'SIGKILL')
    await Promise.all(clients.map(({ closed }) => closed))
    await until('a new worker to be ready', () => workerPids(running).length === 2)
    await inferOutputs({ url, model: 'add', inputs: [POINT] })
    await stopCleanly(t, server)
  },
)
