import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import test from 'ava'
import { ownIdentity } from '../../src/process/identity.js'
import { iterations, POINT } from '../helpers/model-inputs.js'
import { addModel, slowModel, writeModel } from '../helpers/onnx-builder.js'
import { spawnServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { encodeRequest, infer, inferOutputs } from '../helpers/v2-client.js'

/** Waits until a request is queued: the one before it then runs. */
async function untilQueued(adminUrl: string): Promise<void> {
  const deadlineMs = performance.now() + 20_000
  while (performance.now() < deadlineMs) {
    const text = await (await fetch(`${adminUrl}/metrics`)).text()
    if (Number(text.match(/^onecopy_queue_depth (\d+)$/m)?.[1]) > 0) return
  }
  throw new Error('waited 20 s for a request to be queued')
}

/** Two requests to one worker: the first runs, the second is queued. */
function occupy(url: string, count: number): Promise<(number | string)[]> {
  const one = (iterationCount: number) =>
    infer({ url, model: 'slow', inputs: [iterations(iterationCount)] }).then(
      (response) => response.status,
      () => 'cut off',
    )
  return Promise.all([one(count), one(count)])
}

interface LoadResult {
  readonly answered: number
  readonly refused: number
  readonly lost: string[]
}

/**
 * Clients on keep-alive connections that send the next request after each response, until the
 * server closes.
 */
async function underLoad(url: string, clients: number, whenBusy: () => void): Promise<LoadResult> {
  const { body } = encodeRequest([iterations(200)], 'json')
  const lost: string[] = []
  let answered = 0
  let refused = 0
  const one = (agent: Agent) =>
    new Promise<'again' | 'closed' | 'refused'>((resolve) => {
      const call = request(`${url}/v2/models/slow/infer`, { method: 'POST', agent }, (response) => {
        response.resume().on('end', () => {
          if (response.statusCode === 200) answered++
          else if (response.statusCode === 503) refused++
          else lost.push(`status ${response.statusCode}`)
          resolve(response.headers.connection === 'close' ? 'closed' : 'again')
        })
      })
      call.on('error', (thrown: NodeJS.ErrnoException) => {
        // Connection refused: the request was never accepted.
        if (thrown.code !== 'ECONNREFUSED') lost.push(`${thrown.code}`)
        resolve('refused')
      })
      call.end(body)
    })
  const client = async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    for (let sent = 0; ; sent++) {
      if (sent === 3) whenBusy()
      const next = await one(agent)
      if (next !== 'again') break
    }
    agent.destroy()
  }
  await Promise.all(Array.from({ length: clients }, client))
  return { answered, refused, lost }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test.serial(
    `after ${signal} under load every accepted request is answered, the exit code is 0 and no file is left`,
    async (t) => {
      const models = writeModel(temporaryFolder(t), 'slow', slowModel())
      const { server, url } = await startServer(t, { models, args: ['--workers', '2'] })
      let isSignalled = false
      const result = await underLoad(url, 16, () => {
        if (!isSignalled) server.process.kill(signal)
        isSignalled = true
      })
      t.deepEqual(await server.exited, { code: 0, signal: null })
      t.deepEqual(result.lost, [])
      t.true(result.answered >= 16, `expected the load to be answered, got ${result.answered}`)
      t.deepEqual(server.segments(), [])
    },
  )
}

test.serial(
  'requests that run far longer than the close notice to clients are answered before the exit',
  async (t) => {
    const models = writeModel(temporaryFolder(t), 'slow', slowModel())
    const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '1'] })
    const answers = occupy(url, 50_000)
    await untilQueued(adminUrl)
    t.deepEqual(await server.stop(), { code: 0, signal: null })
    t.deepEqual(await answers, [200, 200])
    t.deepEqual(server.segments(), [])
  },
)

test.serial('a second signal ends immediately and leaves nothing', async (t) => {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  const socket = join(temporaryFolder(t), 'server.sock')
  const args = ['--workers', '1', '--socket', socket]
  const { server, url, adminUrl } = await startServer(t, { models, args })
  t.true(existsSync(socket))
  const answers = occupy(url, 1_000_000)
  await untilQueued(adminUrl)
  server.process.kill('SIGTERM')
  await server.logged((line) => line.msg === 'stopping')
  // This is not a wait for an event: copies of a signal within 100 ms count as one.
  await new Promise((resolve) => setTimeout(resolve, 150))
  server.process.kill('SIGTERM')
  t.deepEqual(await server.exited, { code: 143, signal: null })
  t.deepEqual(server.segments(), [])
  t.false(existsSync(socket))
  t.deepEqual(await answers, ['cut off', 'cut off'])
})

test.serial(
  'requests past the drain timeout are aborted, the exit code is 1, and nothing is left',
  async (t) => {
    const models = writeModel(temporaryFolder(t), 'slow', slowModel())
    const { server, url, adminUrl } = await startServer(t, {
      models,
      args: ['--workers', '1', '--drain-timeout', '1s'],
    })
    const answers = occupy(url, 1_000_000)
    await untilQueued(adminUrl)
    t.deepEqual(await server.stop(), { code: 1, signal: null })
    t.deepEqual(server.segments(), [])
    t.deepEqual(await answers, ['cut off', 'cut off'])
  },
)

test.serial('a signal during compilation ends the start with exit code 0, and nothing is left', async (t) => {
  const models = temporaryFolder(t)
  for (let i = 0; i < 20; i++) writeModel(models, `model-${i}`, addModel([i, i]))
  const server = spawnServer(t, { models })
  await server.logged((line) => line.msg === 'compiled, segment written')
  t.deepEqual(await server.stop(), { code: 0, signal: null })
  t.deepEqual(server.segments(), [])
})

test.serial('a segment is one sealed file: 0400 in folders of 0700', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server } = await startServer(t, { models, args: ['--workers', '1'] })
  const files = server.segments().map((path) => ({ path, stat: statSync(join(server.segmentDir, path)) }))
  const segments = files.filter(({ stat, path }) => stat.isFile() && path.endsWith('.segment'))
  t.is(segments.length, 1)
  t.is((segments[0]?.stat.mode ?? 0) & 0o777, 0o400)
  for (const { stat } of files) if (stat.isDirectory()) t.is(stat.mode & 0o777, 0o700)
  await stopCleanly(t, server)
})

test.serial('a second start compiles nothing', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const cacheDir = temporaryFolder(t)
  const first = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  await first.server.logged((line) => line.msg === 'compiled, segment written')
  await stopCleanly(t, first.server)
  const second = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  t.truthy(second.server.log.find((line) => line.msg === 'segment written from the cache'))
  await stopCleanly(t, second.server)
})

test.serial('a cache entry with a flipped bit is compiled again', async (t) => {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  const cacheDir = temporaryFolder(t)
  const first = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  await stopCleanly(t, first.server)
  const entry = join(cacheDir, readdirSync(cacheDir).find((name) => name.endsWith('.segment')) ?? '')
  const bytes = readFileSync(entry)
  bytes[bytes.length - 10] = (bytes[bytes.length - 10] ?? 0) ^ 1
  writeFileSync(entry, bytes)
  const second = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  t.truthy(second.server.log.find((line) => line.msg === 'compiled, segment written'))
  await stopCleanly(t, second.server)
})

test.serial('the newest version answers if none is named, and each version by its number', async (t) => {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel([1, 2]), '2')
  writeModel(models, 'add', addModel([100, 200]), '10')
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const valuesOf = async (model: string) => {
    const [output] = await inferOutputs({ url, model, inputs: [POINT] })
    return [...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)]
  }
  t.deepEqual(await valuesOf('add'), [110, 220])
  t.deepEqual(await valuesOf('add/versions/2'), [11, 22])
  t.deepEqual(await valuesOf('add/versions/10'), [110, 220])
  const unknown = await infer({ url, model: 'add/versions/3', inputs: [POINT] })
  t.is(unknown.status, 404)
  t.regex(((await unknown.json()) as { error: string }).error, /has 10, 2/)
  await stopCleanly(t, server)
})

test.serial('a start removes the segments of a dead server, but not of a live one', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server } = await startServer(t, { models, args: ['--workers', '1'] })
  const dead = join(server.segmentDir, 'onecopy-999999-5')
  mkdirSync(dead, { mode: 0o700 })
  writeFileSync(join(dead, 'owner.json'), JSON.stringify({ ...ownIdentity(), pid: 999_999, startTicks: 5 }))
  const other = spawnServer(t, { models, args: ['--workers', '1', '--segment-dir', server.segmentDir] })
  await other.ready()
  t.false(
    server.segments().some((path) => path.startsWith('onecopy-999999')),
    'the segments of the dead server are removed',
  )
  t.is(
    server.segments().filter((path) => path.endsWith('.segment')).length,
    2,
    'both live servers keep theirs',
  )
  t.deepEqual(await other.stop(), { code: 0, signal: null })
  await stopCleanly(t, server)
})

test.serial('a dead worker is replaced, and its counts are kept', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url, adminUrl } = await startServer(t, {
    models,
    args: ['--workers', '1', '--log-level', 'debug'],
  })
  const count = async () => {
    const text = await (await fetch(`${adminUrl}/metrics`)).text()
    return Number(text.match(/^onecopy_requests_total\{.*outcome="success"\} (\d+)$/m)?.[1])
  }
  for (let i = 0; i < 5; i++) await inferOutputs({ url, model: 'add', inputs: [POINT] })
  t.is(await count(), 5)
  const { workerPid: pid } = await server.logged((line) => line.msg === 'worker ready')
  process.kill(pid as number, 'SIGKILL')
  await server.logged((line) => line.msg === 'worker ready' && line.workerPid !== pid)
  t.is(await count(), 5)
  await inferOutputs({ url, model: 'add', inputs: [POINT] })
  t.is(await count(), 6)
  await stopCleanly(t, server)
})

test.serial('after a kill of the primary, workers drain, clean up and exit', async (t) => {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '1'] })
  const answers = occupy(url, 5000)
  await untilQueued(adminUrl)
  server.process.kill('SIGKILL')
  t.deepEqual(await answers, [200, 200])
  // The pipes close when the last process that has them open exits: the worker.
  t.deepEqual(await server.exited, { code: null, signal: 'SIGKILL' })
  t.deepEqual(server.segments(), [])
})
