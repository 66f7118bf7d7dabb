import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { POINT } from '../../helpers/model-inputs.js'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { indexOf } from '../../helpers/repository-index.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { keepAsking } from '../../helpers/steady-clients.js'
import { infer, inferOutputs } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

async function answerOf(url: string, model = 'add'): Promise<number[]> {
  const [output] = await inferOutputs({ url, model, inputs: [POINT] })
  return [...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)]
}

async function post(url: string, path: string, headers = {}): Promise<Response> {
  return await fetch(`${url}${path}`, { method: 'POST', headers })
}

function segmentsOf({ server }: RunningServer): string[] {
  return server.segments().filter((path) => path.endsWith('.segment'))
}

async function serve(
  t: ExecutionContext,
  args: readonly string[],
): Promise<RunningServer & { models: string }> {
  const models = writeModel(temporaryFolder(t), 'add', addModel([1, 1]))
  return { models, ...(await startServer(t, { models, args: ['--workers', '2', ...args] })) }
}

/** Writes the file completely under another name, then renames it. */
function replaceModel(
  models: string,
  constant: readonly [number, number],
  name = 'add',
  version = '1',
): void {
  const staging = join(models, '.staging')
  writeModel(staging, name, addModel(constant), version)
  mkdirSync(join(models, name), { recursive: true })
  const target = join(models, name, version)
  rmSync(target, { recursive: true, force: true })
  renameSync(join(staging, name, version), target)
}

/** Clients that send requests without a pause, and counts of their responses. */
function countAnswers(url: string, count: number) {
  const answers = new Map<string, number>()
  const note = (what: string) => answers.set(what, (answers.get(what) ?? 0) + 1)
  const { stop } = keepAsking({
    ...{ url, model: 'add', input: POINT, count },
    onAnswer: (status, text) =>
      note(status === 200 ? (text.match(/"data":(\[.*?\])/)?.[1] ?? text) : `${status} ${text}`),
    onFailure: note,
  })
  return { answers, stop }
}

test.serial('repeated swaps under load fail no request', async (t) => {
  const running = await serve(t, ['--model-control', 'explicit', '--load-model', 'add'])
  const { server, url, adminUrl, models } = running
  const clients = countAnswers(url, 16)
  const SWAPS = 5
  for (let swap = 2; swap <= SWAPS; swap++) {
    replaceModel(models, [swap, swap])
    t.is((await post(adminUrl, '/v2/repository/models/add/load')).status, 200)
    t.deepEqual(await answerOf(url), [10 + swap, 20 + swap], 'after the load every worker uses it')
    t.is(segmentsOf(running).length, 1, 'the old segment is removed')
  }
  await clients.stop()
  const known = Array.from({ length: SWAPS }, (_, i) => `[${11 + i},${21 + i}]`)
  t.deepEqual(
    [...clients.answers.keys()].filter((answer) => !known.includes(answer)),
    [],
  )
  t.deepEqual(await indexOf(adminUrl), [{ name: 'add', version: '1', state: 'READY', reason: '' }])
  await stopCleanly(t, server)
})

test.serial(
  'an invalid new generation keeps the current one serving, and is reported in three places',
  async (t) => {
    const running = await serve(t, ['--model-control', 'explicit', '--load-model', '*'])
    const { server, url, adminUrl, models } = running
    writeFileSync(join(models, 'add', '1', 'model.onnx'), 'not a model')
    const refused = await post(adminUrl, '/v2/repository/models/add/load')
    t.is(refused.headers.get('x-error-code'), 'MODEL_INVALID')
    t.deepEqual(await answerOf(url), [11, 21])
    const [entry] = await indexOf(adminUrl)
    t.is(entry?.state, 'READY')
    t.regex(entry?.reason ?? '', /model add version 1 \(add\/1\/model\.onnx\)/)
    const line = await server.logged(
      ({ msg }) => msg === 'the model was not replaced: the current generation stays',
    )
    t.is(String(line.reason).replace(`${models}/`, ''), entry?.reason ?? '')
    const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
    t.regex(metrics, /^onecopy_model_changes_total\{outcome="failed"\} 1$/m)
    t.is(segmentsOf(running).length, 1)
    replaceModel(models, [7, 7])
    t.is((await post(adminUrl, '/v2/repository/models/add/load')).status, 200)
    t.deepEqual(await answerOf(url), [17, 27])
    t.is((await indexOf(adminUrl))[0]?.reason, '')
    await stopCleanly(t, server)
  },
)

test.serial('unload frees the memory, and new workers do not know the model', async (t) => {
  const running = await serve(t, ['--model-control', 'explicit', '--load-model', '*'])
  const { server, url, adminUrl, models } = running
  replaceModel(models, [5, 5], 'other')
  t.is((await post(adminUrl, '/v2/repository/models/other/load')).status, 200)
  t.deepEqual(await answerOf(url, 'other'), [15, 25])
  t.is(segmentsOf(running).length, 2)
  t.is((await post(adminUrl, '/v2/repository/models/add/unload')).status, 200)
  t.is(segmentsOf(running).length, 1)
  t.is((await infer({ url, model: 'add', inputs: [POINT] })).status, 404)
  t.is((await post(adminUrl, '/v2/repository/models/add/unload')).status, 404)
  t.deepEqual(
    (await indexOf(adminUrl)).map(({ name, state, reason }) => [name, state, reason]),
    [
      ['add', 'UNAVAILABLE', 'unloaded'],
      ['other', 'READY', ''],
    ],
  )
  server.process.kill('SIGHUP')
  await server.logged((line) => line.msg === 'every worker was replaced')
  t.is((await infer({ url, model: 'add', inputs: [POINT] })).status, 404)
  t.deepEqual(await answerOf(url, 'other'), [15, 25])
  await stopCleanly(t, server)
})

test.serial('--watch applies new, changed, broken and removed versions', async (t) => {
  const running = await serve(t, ['--watch'])
  const { server, url, adminUrl, models } = running
  const answers = async (model = 'add') =>
    (await infer({ url, model, inputs: [POINT] })).status === 200 && String(await answerOf(url, model))
  replaceModel(models, [2, 2], 'add', '2')
  await until('version 2 to be served', async () => (await answers()) === '12,22')
  t.deepEqual(await answerOf(url, 'add/versions/1'), [11, 21])
  replaceModel(models, [3, 3], 'add', '2')
  await until('its new generation to be served', async () => (await answers()) === '13,23')
  replaceModel(models, [4, 4], 'late')
  await until('the new model to be served', async () => (await answers('late')) === '14,24')
  writeFileSync(join(models, 'late', '1', 'model.onnx'), 'half')
  await until('the reason is in the index', async () =>
    (await indexOf(adminUrl)).some(({ name, reason }) => name === 'late' && reason !== ''),
  )
  t.is(await answers('late'), '14,24')
  rmSync(join(models, 'add', '2'), { recursive: true })
  await until('version 1 to be the newest again', async () => (await answers()) === '11,21')
  t.is((await infer({ url, model: 'add/versions/2', inputs: [POINT] })).status, 404)
  t.is((await post(adminUrl, '/v2/repository/models/add/load')).headers.get('x-error-code'), 'CONTROL_MODE')
  await stopCleanly(t, server)
})

test.serial('a version is not loaded before it is completely written', async (t) => {
  const { server, url, models } = await serve(t, ['--watch', '--log-level', 'debug'])
  const bytes = addModel([6, 6])
  const path = join(models, 'slow-copy', '1', 'model.onnx')
  mkdirSync(join(models, 'slow-copy', '1'), { recursive: true })
  for (let part = 1; part <= 12; part++) {
    writeFileSync(path, bytes.subarray(0, Math.ceil((bytes.length * part) / 12)))
    await new Promise((resolve) => setTimeout(resolve, 150))
  }
  await until(
    'it answers',
    async () => (await infer({ url, model: 'slow-copy', inputs: [POINT] })).status === 200,
  )
  t.deepEqual(await answerOf(url, 'slow-copy'), [16, 26])
  t.false(
    server.log.some(({ msg }) => /not served|not replaced/.test(msg)),
    'no partial file was loaded',
  )
  await stopCleanly(t, server)
})

test.serial('every mode has the index; the index and model changes require the token', async (t) => {
  const token = 'a-token-of-the-operator'
  const { server, url, adminUrl } = await serve(t, ['--model-control', 'explicit', '--admin-token', token])
  t.is((await post(url, '/v2/repository/index')).status, 404, 'not on the public port')
  for (const path of ['/v2/repository/index', '/v2/repository/models/add/load', '/restart']) {
    const refused = await post(adminUrl, path)
    t.is(refused.status, 401)
    t.is(refused.headers.get('www-authenticate'), 'Bearer')
    t.is((await post(adminUrl, path, { Authorization: 'Bearer wrong' })).status, 401)
  }
  const headers = { Authorization: `Bearer ${token}` }
  t.deepEqual(await (await post(adminUrl, '/v2/repository/index', headers)).json(), [
    { name: 'add', version: '1', state: 'UNAVAILABLE', reason: 'not loaded' },
  ])
  t.is((await post(adminUrl, '/v2/repository/models/add/load', headers)).status, 200)
  t.deepEqual(await answerOf(url), [11, 21])
  t.is((await post(adminUrl, '/v2/repository/models/none/load', headers)).status, 404)
  await stopCleanly(t, server)
})

test.serial('a kill of a worker during swaps does not affect the others', async (t) => {
  const running = await serve(t, ['--model-control', 'explicit', '--load-model', '*', '--log-level', 'debug'])
  const { server, url, adminUrl, models } = running
  for (let swap = 2; swap <= 4; swap++) {
    replaceModel(models, [swap, swap])
    const pids = server.log
      .filter(({ msg }) => msg === 'worker ready')
      .map(({ workerPid }) => workerPid as number)
    const loading = post(adminUrl, '/v2/repository/models/add/load')
    process.kill(pids.at(-1) as number, 'SIGKILL')
    t.is((await loading).status, 200)
    await until('both workers to be ready', async () =>
      /^onecopy_workers_ready 2$/m.test(await (await fetch(`${adminUrl}/metrics`)).text()),
    )
    for (let i = 0; i < 6; i++) t.deepEqual(await answerOf(url), [10 + swap, 20 + swap])
  }
  t.is(segmentsOf(running).length, 1)
  t.true(existsSync(server.segmentDir) && readdirSync(server.segmentDir).length === 1)
  await stopCleanly(t, server)
})
