/** Model changes and worker replacements during slow uploads and long runs. */

import { mkdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { POINT } from '../../helpers/model-inputs.js'
import {
  addModel,
  ELEMENT,
  graph,
  modelBytes,
  node,
  slowModel,
  value,
  writeModel,
} from '../../helpers/onnx-builder.js'
import { RawClient } from '../../helpers/raw-client.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { keepAsking } from '../../helpers/steady-clients.js'
import { encodeRequest, infer, type WireTensor } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

type Serving = RunningServer & { readonly models: string }

async function serve(
  t: ExecutionContext,
  { name, bytes }: { readonly name: string; readonly bytes: Uint8Array },
  args: readonly string[],
): Promise<Serving> {
  const models = writeModel(temporaryFolder(t), name, bytes)
  const control = ['--model-control', 'explicit', '--load-model', name, '--log-level', 'debug']
  return { models, ...(await startServer(t, { models, args: [...control, ...args] })) }
}

function replaceFile({ models }: Serving, name: string, bytes: Uint8Array): void {
  writeModel(join(models, '.staging'), name, bytes)
  const target = join(models, name, '1')
  rmSync(target, { recursive: true, force: true })
  mkdirSync(join(models, name), { recursive: true })
  renameSync(join(models, '.staging', name, '1'), target)
}

async function change({ adminUrl }: Serving, name: string, action: 'load' | 'unload'): Promise<number> {
  return (await fetch(`${adminUrl}/v2/repository/models/${name}/${action}`, { method: 'POST' })).status
}

async function reasonOf({ adminUrl }: Serving): Promise<string> {
  const response = await fetch(`${adminUrl}/v2/repository/index`, { method: 'POST' })
  const [entry] = (await response.json()) as { state: string; reason: string }[]
  return `${entry?.state} ${entry?.reason}`.trim()
}

async function generationsOf({ adminUrl }: Serving): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  return Number(text.match(/^onecopy_model_generations\{.*\} (\d+)$/m)?.[1] ?? 0)
}

function workerPids({ server }: Serving): unknown[] {
  return server.log.filter(({ msg }) => msg === 'worker ready').map(({ workerPid }) => workerPid)
}

interface Upload {
  readonly client: RawClient
  finish(): void
}

async function halfSent(url: string, count: number, path = '/v2/models/add/infer'): Promise<Upload[]> {
  const { body } = encodeRequest([POINT], 'json')
  const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n`
  const half = Math.floor(body.length / 2)
  return await Promise.all(
    Array.from({ length: count }, async () => {
      const client = await RawClient.connect(url, Buffer.concat([Buffer.from(head), body.subarray(0, half)]))
      return { client, finish: () => client.socket.write(body.subarray(half)) }
    }),
  )
}

test.serial(
  'incomplete bodies delay no change and end no worker: once complete, the newest generation answers them',
  async (t) => {
    const add = { name: 'add', bytes: addModel([1, 1]) }
    const serving = await serve(t, add, ['--workers', '2', '--drain-timeout', '2s'])
    const { server, url } = serving
    const uploads = await halfSent(url, 6)
    const answers = new Map<string, number>()
    const note = (what: string) => answers.set(what, (answers.get(what) ?? 0) + 1)
    const clients = keepAsking({
      ...{ url, model: 'add', input: POINT, count: 8 },
      onAnswer: (status, text) =>
        note(status === 200 ? String(text.match(/"data":\[.*?\]/)) : `${status} ${text}`),
      onFailure: note,
    })
    await until('responses to the clients', () => (answers.get('"data":[11,21]') ?? 0) > 27)
    for (const constant of [2, 3]) {
      replaceFile(serving, 'add', addModel([constant, constant]))
      t.is(await change(serving, 'add', 'load'), 200)
      t.is(await reasonOf(serving), 'READY', 'no generation is kept for an incomplete body')
      t.is(await generationsOf(serving), 1)
      const newest = `"data":[${10 + constant},${20 + constant}]`
      await until('the new generation to be served', () => (answers.get(newest) ?? 0) > 27)
    }
    await clients.stop()
    t.deepEqual([...answers.keys()].sort(), ['"data":[11,21]', '"data":[12,22]', '"data":[13,23]'])
    for (const { client, finish } of uploads) {
      finish()
      const [answer] = await client.answered()
      t.is(answer?.status, 200)
      t.true(answer?.body.includes('[13,23]'), answer?.body)
      client.socket.destroy()
    }
    t.is(workerPids(serving).length, 2, 'no worker was replaced')
    await stopCleanly(t, server)
  },
)

test.serial('a body that arrives after its model was unloaded is answered with 404', async (t) => {
  const serving = await serve(t, { name: 'add', bytes: addModel() }, ['--workers', '1'])
  const [upload] = (await halfSent(serving.url, 1)) as [Upload]
  // A later request on another connection shows that the worker has it.
  t.is((await infer({ url: serving.url, model: 'add', inputs: [POINT] })).status, 200)
  t.is(await change(serving, 'add', 'unload'), 200)
  upload.finish()
  const [answer] = await upload.client.answered()
  t.is(answer?.status, 404)
  t.is(answer?.headers['x-error-code'], 'MODEL_NOT_FOUND')
  upload.client.socket.destroy()
  await stopCleanly(t, serving.server)
})

test.serial(
  'a body that arrives after the inputs of its model changed is validated against the new ones',
  async (t) => {
    const serving = await serve(t, { name: 'add', bytes: addModel() }, ['--workers', '1'])
    const [upload] = (await halfSent(serving.url, 1)) as [Upload]
    t.is((await infer({ url: serving.url, model: 'add', inputs: [POINT] })).status, 200)
    t.is(await change(serving, 'add', 'unload'), 200)
    const other = graph({
      input: [value('other', ELEMENT.float, ['batch', 3])],
      output: [value('y', ELEMENT.float, ['batch', 3])],
      node: [node('Neg', ['other'], ['y'])],
    })
    replaceFile(serving, 'add', modelBytes(other))
    t.is(await change(serving, 'add', 'load'), 200)
    upload.finish()
    const [answer] = await upload.client.answered()
    t.is(answer?.status, 400)
    t.regex(answer?.body ?? '', /other/)
    upload.client.socket.destroy()
    await stopCleanly(t, serving.server)
  },
)

/** `slow` with other weights and therefore other outputs. */
function otherSlowModel(): Uint8Array {
  const bytes = slowModel()
  const one = Buffer.from(Float32Array.of(1).buffer)
  // Changes the last 1 of the last identity matrix.
  const at = Buffer.from(bytes).lastIndexOf(one)
  bytes.set(new Uint8Array(Float32Array.of(2).buffer), at)
  return bytes
}

test.serial(
  'an earlier generation with queued runs is kept, reported, and unloaded after their responses',
  async (t) => {
    const slow = { name: 'slow', bytes: slowModel() }
    const serving = await serve(t, slow, ['--workers', '1', '--drain-timeout', '2s'])
    const { server, url, adminUrl } = serving
    const iterations: WireTensor = {
      ...{ name: 'iterations', datatype: 'INT64', shape: [] },
      bytes: new Uint8Array(BigInt64Array.of(40_000n).buffer),
    }
    const asked = Array.from({ length: 4 }, () => infer({ url, model: 'slow', inputs: [iterations] }))
    await until('three queued requests', async () =>
      /^onecopy_queue_depth 3$/m.test(await (await fetch(`${adminUrl}/metrics`)).text()),
    )
    replaceFile(serving, 'slow', otherSlowModel())
    t.is(await change(serving, 'slow', 'load'), 200, 'the change succeeds despite them')
    t.is(await reasonOf(serving), 'READY an earlier generation still has requests in flight')
    t.is(await generationsOf(serving), 2)
    const kept = await server.logged(({ msg }) => msg.startsWith('an earlier generation is kept'))
    t.is(kept.model, 'slow')
    t.is(server.segments().filter((path) => path.endsWith('.segment')).length, 2)
    for (const response of await Promise.all(asked)) t.is(response.status, 200)
    await server.logged(({ msg }) => msg === 'the earlier generation is unloaded')
    t.is(await reasonOf(serving), 'READY')
    t.is(await generationsOf(serving), 1)
    t.is(server.segments().filter((path) => path.endsWith('.segment')).length, 1)
    t.is(workerPids(serving).length, 1, 'no worker was replaced')
    await stopCleanly(t, server)
  },
)

test.serial(
  'in a rolling restart a body that arrives in time is answered; one that never does is aborted at the deadline',
  async (t) => {
    const serving = await serve(t, { name: 'add', bytes: addModel() }, [
      '--workers',
      '2',
      '--drain-timeout',
      '3s',
    ])
    const { server, url } = serving
    const [late, never] = (await halfSent(url, 2)) as [Upload, Upload]
    for (let i = 0; i < 4; i++) t.is((await infer({ url, model: 'add', inputs: [POINT] })).status, 200)
    const failures: string[] = []
    const clients = keepAsking({
      ...{ url, model: 'add', input: POINT, count: 4 },
      onAnswer: (status, text) => status !== 200 && failures.push(`${status} ${text}`),
      onFailure: (message) => failures.push(message),
    })
    server.process.kill('SIGHUP')
    await until('the first replacement to be ready', () => workerPids(serving).length === 3)
    late.finish()
    const [answer] = await late.client.answered()
    t.is(answer?.status, 200)
    await server.logged(({ msg }) => msg === 'every worker was replaced')
    t.deepEqual(await never.client.ended().catch(() => []), [], 'no response')
    await clients.stop()
    t.deepEqual(failures, [])
    await stopCleanly(t, server)
  },
)
