/**
 * Models that crash workers: other models lose only requests in flight, and the crashing model is
 * disabled.
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { POINT } from '../helpers/model-inputs.js'
import { addModel, crashingModel, integerDivision, writeModel } from '../helpers/onnx-builder.js'
import { type IndexEntry, indexOf } from '../helpers/repository-index.js'
import {
  type RunningServer,
  spawnServer,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../helpers/server.js'
import { keepAsking } from '../helpers/steady-clients.js'
import { infer, type WireTensor } from '../helpers/v2-client.js'
import { until, untilSome } from '../helpers/waiting.js'

const MIN = -(2 ** 31)

function int32(name: string, value: number): WireTensor {
  return { name, datatype: 'INT32', shape: [1], bytes: new Uint8Array(Int32Array.of(value).buffer) }
}

/** The outcome of a request to the crashing model. */
async function divide(url: string, x: number, y: number): Promise<Response | 'cut off'> {
  return await infer({ url, model: 'div', inputs: [int32('x', x), int32('y', y)] }).catch(
    () => 'cut off' as const,
  )
}

function crash(url: string): Promise<Response | 'cut off'> {
  return divide(url, MIN, 0)
}

/**
 * Sends a harmless request until the model answers, or is disabled for longer than a replacement
 * takes.
 */
async function untilAnswered(url: string): Promise<Response> {
  return await untilSome('an answer', async () => {
    const response = await divide(url, 10, 3)
    if (response === 'cut off') throw new Error('expected no crash')
    if (response.status === 200) return response
    const text = await response.clone().text()
    return text.includes('disabled for') ? response : null
  })
}

/**
 * Crashes a worker whenever the model accepts requests, until it is disabled. Returns the last
 * response and the number of crashes.
 */
async function crashUntilDisabled({
  url,
  server,
}: RunningServer): Promise<{ answer: Response; crashes: number }> {
  const ends = () => server.log.filter(({ msg }) => msg === 'worker crashed inside the runtime').length
  for (let crashes = 0; ; crashes++) {
    const answer = await untilAnswered(url)
    if (answer.status !== 200) return { answer, crashes }
    const before = ends()
    if ((await crash(url)) !== 'cut off') throw new Error('expected a crash')
    await until('the crash to be logged', () => ends() > before)
    await until('the model to be suspended', async () => {
      const response = await divide(url, 10, 3)
      return response !== 'cut off' && response.status === 503
    })
  }
}

function makeModels(t: ExecutionContext): string {
  const models = writeModel(temporaryFolder(t), 'div', crashingModel())
  return writeModel(models, 'add', addModel())
}

/** Configures a warm-up that crashes the worker. */
function crashWhenLoaded(models: string): void {
  const tensor = (name: string, value: number) => ({ name, datatype: 'INT32', shape: [1], data: [value] })
  mkdirSync(join(models, 'div'), { recursive: true })
  writeFileSync(
    join(models, 'div', 'sample.json'),
    JSON.stringify({ inputs: [tensor('x', MIN), tensor('y', 0)] }),
  )
  writeFileSync(join(models, 'div', 'config.json'), JSON.stringify({ warm_up: ['sample.json'] }))
}

async function indexByName(adminUrl: string): Promise<Record<string, IndexEntry>> {
  return Object.fromEntries((await indexOf(adminUrl)).map((entry) => [entry.name, entry]))
}

async function metric(adminUrl: string, series: string): Promise<number | null> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  const line = text.split('\n').find((one) => one.startsWith(series))
  return line === undefined ? null : Number(line.split(' ').at(-1))
}

const DISABLED = 'onecopy_model_disabled{model="div",version="1"}'
const CRASHES = 'onecopy_model_crashes_total{model="div",version="1",kind="crash"}'

async function statusOf(url: string, path: string): Promise<number> {
  const response = await fetch(`${url}${path}`, { headers: { connection: 'close' } })
  await response.arrayBuffer()
  return response.status
}

async function expectAdd(t: ExecutionContext, url: string): Promise<void> {
  const response = await infer({ url, model: 'add', inputs: [POINT] })
  t.is(response.status, 200)
  t.regex(await response.text(), /\[11,22\]/)
}

async function load(adminUrl: string): Promise<Response> {
  return await fetch(`${adminUrl}/v2/repository/models/div/load`, { method: 'POST' })
}

function workersReady({ server }: RunningServer): number {
  return server.log.filter(({ msg }) => msg === 'worker ready').length
}

test.serial(
  'a model that crashes workers is disabled, and the other model loses only requests in flight',
  async (t) => {
    const clients = 8
    const running = await startServer(t, {
      models: makeModels(t),
      args: ['--workers', '2', '--breaker-backoff', '10m', '--log-level', 'debug'],
    })
    const { server, url, adminUrl } = running
    t.is(await metric(adminUrl, DISABLED), 0)
    const failures: string[] = []
    let answered = 0
    const steady = keepAsking({
      ...{ url, model: 'add', input: POINT, count: clients },
      onAnswer: (status, text) => {
        if (status === 200 && text.includes('[11,22]')) answered++
        else failures.push(`${status} ${text}`)
      },
      onFailure: (message) => failures.push(message),
    })
    await until('the load to run', () => answered > 100)

    const { answer, crashes } = await crashUntilDisabled(running)
    t.is(crashes, 3)
    t.is(answer.status, 503)
    t.is(answer.headers.get('x-error-code'), 'MODEL_DISABLED')
    const retryAfter = Number(answer.headers.get('retry-after'))
    t.true(retryAfter > 0 && retryAfter <= 600, `${retryAfter}`)
    t.regex(await answer.text(), /model div version 1 .* disabled for 600\.0 s: .* 3 times .*SIGFPE/)

    const lost = failures.length
    t.true(lost <= crashes * clients, `${lost} lost in ${crashes} crashes: ${failures.join('; ')}`)
    await until('every worker to be ready', () => workersReady(running) === 2 + crashes)
    const before = answered
    for (let i = 0; i < 20; i++) {
      const refused = await crash(url)
      if (refused === 'cut off') t.fail('a disabled model has ended a worker')
      else t.is(refused.status, 503)
    }
    await until('the load to continue', () => answered > before + 500)
    await steady.stop()
    t.is(failures.length, lost, failures.join('; '))
    t.is(workersReady(running), 2 + crashes)

    t.like((await indexByName(adminUrl)).div, { state: 'UNAVAILABLE' })
    t.regex((await indexByName(adminUrl)).div?.reason ?? '', /MODEL_DISABLED.*SIGFPE/)
    t.like((await indexByName(adminUrl)).add, { state: 'READY', reason: '' })
    const line = await server.logged(({ code }) => code === 'MODEL_DISABLED')
    t.like(line, { level: 'error', model: 'div', version: '1' })
    t.is(await metric(adminUrl, DISABLED), 1)
    t.is(await metric(adminUrl, CRASHES), 3)
    t.is(await metric(adminUrl, 'onecopy_model_crashes_total{model="add"'), null)
    t.is(await statusOf(url, '/v2/models/div/ready'), 503)
    t.is(await statusOf(url, '/v2/models/add/ready'), 200)
    t.is(await statusOf(url, '/v2/health/ready'), 200)
    t.is(await statusOf(adminUrl, '/v2/health/ready'), 200)
    await stopCleanly(t, server)
  },
)

test.serial(
  'after the back-off the model is retried: it answers, and one more crash disables it for longer',
  async (t) => {
    const running = await startServer(t, {
      models: makeModels(t),
      args: ['--workers', '2', '--breaker-backoff', '4s'],
    })
    const { server, url, adminUrl } = running
    const isTriedAgain = () =>
      until('the model to be retried', async () => {
        const response = await divide(url, 10, 3)
        if (response === 'cut off') throw new Error('expected no crash')
        const text = await response.text()
        if (response.status === 200) t.regex(text, /"data":\[5\]/)
        return response.status === 200
      })
    const { answer } = await crashUntilDisabled(running)
    t.regex(await answer.text(), /disabled for 4\.0 s/)
    t.regex(answer.headers.get('retry-after') ?? '', /^[1-4]$/)
    await isTriedAgain()
    t.is((await indexByName(adminUrl)).div?.state, 'READY')
    t.is(await metric(adminUrl, DISABLED), 0)
    const again = await crashUntilDisabled(running)
    t.is(again.crashes, 1)
    t.regex(await again.answer.text(), /disabled for 8\.0 s: the retry ended in a crash \(SIGFPE\)/)
    t.regex(again.answer.headers.get('retry-after') ?? '', /^[1-8]$/)
    await isTriedAgain()
    await expectAdd(t, url)
    await stopCleanly(t, server)
  },
)

test.serial('a disabled model answers immediately after a reload', async (t) => {
  const running = await startServer(t, {
    models: makeModels(t),
    args: ['--workers', '2', '--breaker-backoff', '10m', '--model-control', 'explicit', '--load-model', '*'],
  })
  const { server, url, adminUrl } = running
  await crashUntilDisabled(running)
  t.is((await load(adminUrl)).status, 200)
  for (let i = 0; i < 4; i++) {
    const response = await divide(url, 10, 3)
    t.is(response === 'cut off' ? 0 : response.status, 200)
  }
  t.is(await metric(adminUrl, DISABLED), 0)
  t.like((await indexByName(adminUrl)).div, { state: 'READY', reason: '' })
  const { crashes } = await crashUntilDisabled(running)
  t.is(crashes, 3, 'the count starts at zero')
  await stopCleanly(t, server)
})

test.serial('a disabled model is unknown after an unload, and serves again after a load', async (t) => {
  const running = await startServer(t, {
    models: makeModels(t),
    args: ['--workers', '2', '--breaker-backoff', '10m', '--model-control', 'explicit', '--load-model', '*'],
  })
  const { server, url, adminUrl } = running
  await crashUntilDisabled(running)
  t.is((await fetch(`${adminUrl}/v2/repository/models/div/unload`, { method: 'POST' })).status, 200)
  const gone = await divide(url, 10, 3)
  t.is(gone === 'cut off' ? 0 : gone.status, 404)
  t.is(await metric(adminUrl, CRASHES), null)
  t.is(await metric(adminUrl, DISABLED), null)
  t.is((await load(adminUrl)).status, 200)
  const back = await divide(url, 10, 3)
  t.is(back === 'cut off' ? 0 : back.status, 200)
  await stopCleanly(t, server)
})

test.serial(
  'a model whose load crashes workers does not fail the start, and the others serve during every retry',
  async (t) => {
    const models = makeModels(t)
    crashWhenLoaded(models)
    const { server, url, adminUrl } = await startServer(t, {
      models,
      args: ['--workers', '2', '--breaker-backoff', '1s', '--exit-on-error', 'off'],
    })
    t.is((await indexByName(adminUrl)).div?.state, 'UNAVAILABLE')
    const refused = await divide(url, 10, 3)
    t.is(refused === 'cut off' ? 0 : refused.status, 503)
    await expectAdd(t, url)
    const disabledTimes = () => server.log.filter(({ code }) => code === 'MODEL_DISABLED').length
    await until('three retries', async () => {
      t.is(await statusOf(adminUrl, '/v2/health/ready'), 200)
      await infer({ url, model: 'add', inputs: [POINT] }).then(
        async (response) => {
          t.is(response.status, 200)
          await response.arrayBuffer()
        },
        // In flight when the retry crashed this worker.
        () => {},
      )
      return disabledTimes() >= 4
    })
    t.false(server.log.some(({ level }) => level === 'fatal'))
    await stopCleanly(t, server)
  },
)

test.serial(
  'if all models are required, a model that repeatedly crashes workers fails the start',
  async (t) => {
    const models = makeModels(t)
    crashWhenLoaded(models)
    const server = spawnServer(t, { models, args: ['--workers', '2'] })
    const line = await server.logged(({ level }) => level === 'fatal')
    t.like(line, { code: 'MODEL_DISABLED' })
    t.regex(line.msg, /model div version 1: .*SIGFPE/)
    t.deepEqual(await server.exited, { code: 1, signal: null })
  },
)

test.serial(
  'a new version that crashes during its load ends one worker, and the old version keeps serving',
  async (t) => {
    const models = makeModels(t)
    const running = await startServer(t, {
      models,
      args: ['--workers', '3', '--model-control', 'explicit', '--load-model', '*', '--log-level', 'debug'],
    })
    const { server, url, adminUrl } = running
    crashWhenLoaded(models)
    const failed = await load(adminUrl)
    t.is(failed.status, 500)
    t.is(failed.headers.get('x-error-code'), 'MODEL_CRASHED')
    t.regex(await failed.text(), /model div version 1 ended worker \d+ with SIGFPE during its load/)
    await until('a replacement', () => workersReady(running) === 4)
    for (let i = 0; i < 6; i++) {
      const response = await divide(url, 10, 3)
      t.is(response === 'cut off' ? 0 : response.status, 200)
    }
    t.like((await indexByName(adminUrl)).div, { state: 'READY' })
    t.regex((await indexByName(adminUrl)).div?.reason ?? '', /SIGFPE/)
    t.is(server.log.filter(({ msg }) => msg === 'worker crashed inside the runtime').length, 1)
    t.is(await metric(adminUrl, CRASHES), 1)
    await stopCleanly(t, server)
  },
)

test.serial('with --breaker-limit 0 a model is never disabled, and dead workers are replaced', async (t) => {
  const { server, url, adminUrl } = await startServer(t, {
    models: makeModels(t),
    args: ['--workers', '1', '--breaker-limit', '0'],
  })
  for (let i = 1; i <= 5; i++) {
    t.is(await crash(url), 'cut off')
    await until('the crash to be counted', async () => (await metric(adminUrl, CRASHES)) === i)
    await until('a ready worker', async () => (await metric(adminUrl, 'onecopy_workers_ready ')) === 1)
  }
  t.is(await metric(adminUrl, DISABLED), 0)
  await expectAdd(t, url)
  await stopCleanly(t, server)
})

test.serial(
  'a division that would crash the worker is rejected, and the other requests are answered',
  async (t) => {
    const models = writeModel(temporaryFolder(t), 'div', integerDivision())
    const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
    const pairs = Array.from({ length: 30 }, (_, i) =>
      i % 3 === 0 ? [MIN, -1] : i % 3 === 1 ? [i, 0] : [i, 2],
    )
    const answers = await Promise.all(pairs.map(([x = 0, y = 0]) => divide(url, x, y)))
    for (const [i, answer] of answers.entries()) {
      if (answer === 'cut off') return t.fail('the worker ended')
      const text = await answer.text()
      if (i % 3 === 2) t.is(answer.status, 200, text)
      else {
        t.is(answer.status, 400)
        t.regex(text, i % 3 === 0 ? /divides -2147483648 by -1/ : /expected an integer other than 0/)
      }
    }
    t.false(server.log.some(({ msg }) => msg === 'worker crashed inside the runtime'))
    await stopCleanly(t, server)
  },
)

test.serial(
  'a crash on the event loop is attributed to the model, like one in the inference thread',
  async (t) => {
    const models = makeModels(t)
    const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '1'] })
    const onLoop = 'onecopy_compute_duration_seconds_count{model="div",version="1",placement="event-loop"}'
    await until('the model to run on the event loop', async () => {
      t.is((await untilAnswered(url)).status, 200)
      return (await metric(adminUrl, onLoop)) !== null
    })
    t.is(await crash(url), 'cut off')
    const line = await server.logged(({ msg }) => msg === 'worker crashed inside the runtime')
    t.like(line, { model: 'div', version: '1', how: 'SIGFPE' })
    await until('the crash to be counted', async () => (await metric(adminUrl, CRASHES)) === 1)
    await stopCleanly(t, server)
  },
)
