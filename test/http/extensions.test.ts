/** The protocol's extensions, tested through clients. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  addModel,
  ELEMENT,
  graph,
  modelBytes,
  node,
  slowModel,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { decodeResponse } from '../helpers/v2-client.js'

/** `y = x` for texts, x [n]. */
const TEXTS = modelBytes(
  graph({
    input: [value('x', ELEMENT.string, ['n'])],
    output: [value('y', ELEMENT.string, ['n'])],
    node: [node('Identity', ['x'], ['y'])],
  }),
)

/** `y = -x`, one row of fixed length, which cannot be batched. */
const FIXED = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, [3])],
    output: [value('y', ELEMENT.float, [3])],
    node: [node('Neg', ['x'], ['y'])],
  }),
)

const MODELS: Record<string, { bytes: Uint8Array; versions?: string[]; config?: object }> = {
  add: {
    bytes: addModel(),
    versions: ['1', '3'],
    config: {
      labels: { y: ['cat', 'dog'] },
      version_policy: { specific: ['1', '3'] },
      max_queue_delay: '2ms',
    },
  },
  alone: { bytes: addModel(), config: { batching: false } },
  fixed: { bytes: FIXED },
  texts: { bytes: TEXTS },
  slow: { bytes: slowModel() },
}

function startWith(t: ExecutionContext, names: readonly string[], args: readonly string[] = []) {
  const models = temporaryFolder(t)
  for (const name of names) {
    const { bytes = FIXED, versions = ['1'], config = {} } = MODELS[name] ?? {}
    for (const version of versions) writeModel(models, name, bytes, version)
    writeFileSync(join(models, name, 'config.json'), JSON.stringify(config))
  }
  return startServer(t, { models, args: ['--workers', '1', ...args] })
}

function ask(url: string, model: string, request: object): Promise<Response> {
  return fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body: JSON.stringify(request) })
}

function rows(shape: readonly number[], data: readonly number[], parameters: object) {
  return {
    inputs: [{ name: 'x', shape, datatype: 'FP32', data }],
    outputs: [{ name: 'y', parameters }],
  }
}

test('an output can be returned as its highest classes, with labels, in JSON and binary', async (t) => {
  const { server, url } = await startWith(t, ['add', 'alone', 'fixed', 'texts'])
  const classified = async (model: string, parameters: object, shape = [2, 2], data = [5, 5, 0, 9]) => {
    const response = await ask(url, model, rows(shape, data, parameters))
    t.is(response.status, 200, await response.clone().text())
    return await decodeResponse(response)
  }
  const texts = ['7.000000:1:dog', '11.000000:1:dog']
  const first = { name: 'y', datatype: 'BYTES', shape: [2, 1], strings: texts }
  t.deepEqual(await classified('add', { classification: 1 }), [first])
  t.deepEqual(await classified('add', { classification: 1, binary_data: true }), [first])
  t.deepEqual(await classified('add', { classification: 99 }, [1, 2], [5, 5]), [
    { name: 'y', datatype: 'BYTES', shape: [1, 2], strings: ['7.000000:1:dog', '6.000000:0:cat'] },
  ])
  // The batch dimension is also known if the config disables batching.
  t.deepEqual((await classified('alone', { classification: 1 }))[0]?.shape, [2, 1])
  t.deepEqual(await classified('fixed', { classification: 2 }, [3], [1, -2, 3]), [
    { name: 'y', datatype: 'BYTES', shape: [2], strings: ['2.000000:1', '-1.000000:0'] },
  ])
  const refused = await ask(url, 'texts', {
    inputs: [{ name: 'x', shape: [1], datatype: 'BYTES', data: ['a'] }],
    outputs: [{ name: 'y', parameters: { classification: 1 } }],
  })
  t.is(refused.status, 400)
  t.regex(((await refused.json()) as { error: string }).error, /"y".*BYTES/)
  await stopCleanly(t, server)
})

test('the configuration of a model in the format of Triton', async (t) => {
  const { server, url } = await startWith(t, ['add', 'alone', 'fixed', 'texts'])
  const notes = new Map<string, string>()
  const config = async (model: string) => {
    const response = await fetch(`${url}/v2/models/${model}/config`)
    const { parameters, ...configuration } = (await response.json()) as {
      parameters: Record<string, { string_value: string }>
    }
    const { batching, ...others } = parameters
    notes.set(model, batching?.string_value ?? '')
    return { ...configuration, parameters: others }
  }
  const tensor = (name: string, dims: number[]) => ({ name, data_type: 'TYPE_FP32', dims })
  const add = {
    name: 'add',
    platform: 'onnx_onnxv1',
    backend: 'onnxruntime',
    version_policy: { specific: { versions: [1, 3] } },
    max_batch_size: 64,
    input: [tensor('x', [2])],
    output: [tensor('y', [2])],
    dynamic_batching: { preferred_batch_size: [], max_queue_delay_microseconds: 2000 },
    parameters: { intra_op_thread_count: { string_value: '1' } },
  }
  t.deepEqual(await config('add'), add)
  t.deepEqual(await config('add/versions/1'), add)
  const { dynamic_batching: _gathered, ...ungathered } = add
  t.deepEqual(await config('alone'), { ...ungathered, name: 'alone', version_policy: { all: {} } })
  t.regex(notes.get('add') as string, /^yes: /)
  t.regex(notes.get('alone') as string, /^no: "batching" is false in the model's config \(detected: yes: /)
  t.like(await config('fixed'), { max_batch_size: 0, input: [tensor('x', [3])] })
  t.regex(notes.get('fixed') as string, /^no: input "x" has a fixed first dimension/)
  t.like(await config('texts'), { input: [{ data_type: 'TYPE_STRING' }] })
  t.is((await fetch(`${url}/v2/models/add/versions/2/config`)).status, 404)
  await stopCleanly(t, server)
})

test('each port lists its extensions', async (t) => {
  const extensions = async (base: string) =>
    ((await (await fetch(`${base}/v2`)).json()) as { extensions: string[] }).extensions
  const core = [
    'binary_tensor_data',
    'classification',
    'logging',
    'model_configuration',
    'parameters',
    'schedule_policy',
    'statistics',
    'trace',
  ]
  const plain = await startWith(t, ['fixed'])
  t.deepEqual(await extensions(plain.url), core)
  t.deepEqual(await extensions(plain.adminUrl), [
    ...['logging', 'model_configuration', 'model_repository', 'statistics', 'trace'],
  ])
  t.is((await fetch(`${plain.url}/v2/systemsharedmemory/status`)).status, 404)
  await stopCleanly(t, plain.server)
  const sharing = await startWith(t, ['fixed'], ['--system-shared-memory', 'on'])
  t.deepEqual(await extensions(sharing.url), [...core, 'system_shared_memory'])
  await stopCleanly(t, sharing.server)
})

test('the raw body for a model with a text input is the text', async (t) => {
  const { server, url } = await startWith(t, ['texts'])
  const response = await fetch(`${url}/v2/models/texts/infer`, {
    method: 'POST',
    headers: { 'Inference-Header-Content-Length': '0' },
    body: 'grüße',
  })
  t.deepEqual(await decodeResponse(response), [
    { name: 'y', datatype: 'BYTES', shape: [1], strings: ['grüße'] },
  ])
  await stopCleanly(t, server)
})

test('an exceeded deadline is 503 if configured', async (t) => {
  const { server, url, adminUrl } = await startWith(t, ['slow'], ['--deadline-status', '503'])
  const late = await ask(url, 'slow', {
    parameters: { timeout: 10_000 },
    inputs: [{ name: 'iterations', shape: [], datatype: 'INT64', data: [20_000] }],
  })
  t.is(late.status, 503)
  t.is(late.headers.get('X-Error-Code'), 'DEADLINE_EXCEEDED')
  t.regex(await (await fetch(`${adminUrl}/metrics`)).text(), /outcome="timeout"\} 1/)
  await stopCleanly(t, server)
})

test('binary inputs that can never fit the queue are rejected before they are sent', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  writeFileSync(join(models, 'add', 'config.json'), JSON.stringify({ max_queue_bytes: 1024 }))
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const json = JSON.stringify({
    inputs: [{ name: 'x', shape: [256, 2], datatype: 'FP32', parameters: { binary_data_size: 2048 } }],
  })
  const response = await fetch(`${url}/v2/models/add/infer`, {
    method: 'POST',
    headers: { 'Inference-Header-Content-Length': String(json.length) },
    // The right length, but not JSON: the parser reports it.
    body: new Uint8Array(json.length + 2048),
  })
  t.is(response.status, 413)
  t.is(response.headers.get('X-Error-Code'), 'REQUEST_TOO_LARGE')
  t.is(response.headers.get('Retry-After'), null)
  t.regex(await response.text(), /at most 1024 bytes.*got 2048/)
  await stopCleanly(t, server)
})

test('JSON inputs that can never fit the queue are rejected without Retry-After, and the next request is answered', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  writeFileSync(join(models, 'add', 'config.json'), JSON.stringify({ max_queue_bytes: 1024 }))
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const rows = (count: number) => ({
    inputs: [{ name: 'x', shape: [count, 2], datatype: 'FP32', data: new Array(count * 2).fill(1) }],
  })
  const refused = await ask(url, 'add', rows(129))
  t.is(refused.status, 413)
  t.is(refused.headers.get('X-Error-Code'), 'REQUEST_TOO_LARGE')
  t.is(refused.headers.get('Retry-After'), null)
  t.regex(await refused.text(), /at most 1024 bytes.*got 1032/)
  t.is((await ask(url, 'add', rows(128))).status, 200)
  await stopCleanly(t, server)
})
