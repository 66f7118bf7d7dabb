import { writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test from 'ava'
import {
  addModel,
  ELEMENT,
  floats,
  graph,
  modelBytes,
  node,
  sequence,
  slowModel,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { decodeResponse, infer } from '../helpers/v2-client.js'

const POINT = JSON.stringify({ inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [10, 20] }] })

/** `y` is a tensor, `s` a sequence, which has no form in the protocol. */
const WITH_SEQUENCE_OUTPUT = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, ['n'])],
    output: [value('y', ELEMENT.float, ['n']), sequence('s', ELEMENT.float)],
    node: [node('Neg', ['x'], ['y']), node('SequenceConstruct', ['x', 'y'], ['s'])],
  }),
)

/** A bfloat16 input and output around an addition in bfloat16. */
const BFLOAT16 = modelBytes(
  graph({
    input: [value('x', ELEMENT.bfloat16, ['n'])],
    output: [value('y', ELEMENT.bfloat16, ['n'])],
    node: [node('Identity', ['x'], ['y'])],
  }),
)

async function json(response: Response): Promise<unknown> {
  return await response.json()
}

test('the core routes answer as the protocol specifies', async (t) => {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel(), '1')
  writeModel(models, 'add', addModel(), '3')
  writeModel(models, 'sequence', WITH_SEQUENCE_OUTPUT)
  writeModel(models, 'bf16', BFLOAT16)
  const { server, url, adminUrl } = await startServer(t, {
    models,
    args: ['--workers', '1', '--max-body', '1KiB'],
  })
  const get = (path: string, base = url) => fetch(`${base}${path}`)
  const post = (path: string, body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string> = {}) =>
    fetch(`${url}${path}`, { method: 'POST', body, headers })
  const refused = async (response: Response, status: number, code: string, says: RegExp) => {
    t.is(response.status, status)
    t.is(response.headers.get('X-Error-Code'), code)
    const body = (await response.json()) as Record<string, unknown>
    t.deepEqual(Object.keys(body), ['error'])
    t.regex(String(body.error), says)
    t.notRegex(String(body.error), /\n\s+at |\/src\/|node_modules/)
  }

  for (const path of ['/v2', '/v2/']) {
    const body = (await json(await get(path))) as { name: string; extensions: string[] }
    t.is(body.name, 'onecopy')
    t.true(body.extensions.includes('binary_tensor_data'))
  }
  for (const base of [url, adminUrl]) {
    t.deepEqual(await json(await get('/v2/health/live', base)), { live: true })
    t.deepEqual(await json(await get('/v2/health/ready', base)), { live: true, ready: true })
  }
  t.deepEqual(await json(await get('/v2/models')), { models: ['add', 'bf16', 'sequence'] })
  t.deepEqual(await json(await get('/v2/models/add')), {
    name: 'add',
    versions: ['3', '1'],
    platform: 'onnx_onnxv1',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 2] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 2] }],
  })
  t.deepEqual(await json(await get('/v2/models/add/versions/1/ready')), { name: 'add', ready: true })

  // No Content-Type, as tritonclient sends it; unknown keys are ignored; the id is returned.
  const answer = await post('/v2/models/add/infer', `${POINT.slice(0, -1)},"id":"a1","model_name":"x"}`)
  t.is(answer.status, 200)
  t.deepEqual(await json(answer), {
    model_name: 'add',
    model_version: '3',
    id: 'a1',
    outputs: [{ name: 'y', shape: [1, 2], datatype: 'FP32', data: [11, 22] }],
  })
  t.is((await post('/v2/models/add/infer', gzipSync(POINT), { 'Content-Encoding': 'gzip' })).status, 200)
  t.is(
    (await post('/v2/models/add/infer', POINT, { 'X-Request-Id': 'mine' })).headers.get('X-Request-Id'),
    'mine',
  )

  await refused(await get('/nothing'), 404, 'ROUTE_NOT_FOUND', /\/nothing/)
  await refused(await get('/metrics'), 404, 'ROUTE_NOT_FOUND', /metrics/)
  await refused(await get('/v2/models/none'), 404, 'MODEL_NOT_FOUND', /"none"/)
  await refused(await get('/v2/models/a%2Fb'), 404, 'MODEL_NOT_FOUND', /"a\/b"/)
  await refused(await get('/v2/models/add/versions/2'), 404, 'MODEL_NOT_FOUND', /it has 3, 1/)
  await refused(await get('/v2/models/add/versions/latest'), 404, 'MODEL_NOT_FOUND', /latest/)
  await refused(await get('/v2/models/%E0%A4%A'), 404, 'MODEL_NOT_FOUND', /./)
  const wrongMethod = await get('/v2/models/add/infer')
  t.is(wrongMethod.headers.get('Allow'), 'POST')
  await refused(wrongMethod, 405, 'METHOD_NOT_ALLOWED', /POST/)
  await refused(await post('/v2/models/add/infer', 'x'), 400, 'BODY_MALFORMED', /./)
  await refused(
    await post('/v2/models/add/infer', POINT.replace('"FP32"', '"INT32"')),
    400,
    'TENSOR_INVALID',
    /"x".*FP32.*INT32/,
  )
  await refused(
    await post('/v2/models/add/infer', `${POINT}${' '.repeat(2000)}`),
    413,
    'BODY_TOO_LARGE',
    /1024/,
  )
  const bomb = gzipSync(`${POINT}${' '.repeat(100_000)}`)
  t.true(bomb.length < 1024)
  await refused(
    await post('/v2/models/add/infer', bomb, { 'Content-Encoding': 'gzip' }),
    413,
    'BODY_TOO_LARGE',
    /1024/,
  )
  const brotli = await post('/v2/models/add/infer', POINT, { 'Content-Encoding': 'br' })
  t.is(brotli.headers.get('Accept-Encoding'), 'gzip, deflate')
  await refused(brotli, 415, 'CONTENT_ENCODING_UNSUPPORTED', /"br"/)
  await refused(
    await post('/v2/models/add/infer', POINT, { 'Content-Encoding': 'gzip' }),
    400,
    'BODY_MALFORMED',
    /decompress/,
  )

  const partly = await infer({
    url,
    model: 'sequence',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1], bytes: new Uint8Array(Float32Array.of(2).buffer) }],
  })
  t.deepEqual(
    (await decodeResponse(partly)).map(({ name }) => name),
    ['y'],
  )

  const bits = new Uint8Array(Uint16Array.of(0x3f80, 0xc049, 0x7fc0).buffer)
  const half = await infer({
    url,
    model: 'bf16',
    encoding: 'binary',
    inputs: [{ name: 'x', datatype: 'BF16', shape: [3], bytes: bits }],
  })
  t.deepEqual(await decodeResponse(half), [{ name: 'y', datatype: 'BF16', shape: [3], bytes: bits }])

  await stopCleanly(t, server)
})

test('a timeout covers the wait for the result, a priority is a number, and a full queue is reported', async (t) => {
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  writeFileSync(join(models, 'slow', 'config.json'), JSON.stringify({ max_queue_requests: 1 }))
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const post = (iterations: number, parameters: object) =>
    fetch(`${url}/v2/models/slow/infer`, {
      method: 'POST',
      body: JSON.stringify({
        parameters,
        inputs: [{ name: 'iterations', shape: [], datatype: 'INT64', data: [iterations] }],
      }),
    })
  const late = await post(20_000, { timeout: 10_000 })
  t.is(late.status, 504)
  t.is(late.headers.get('X-Error-Code'), 'DEADLINE_EXCEEDED')
  t.is((await post(1, { timeout: 1e15, priority: 1 })).status, 200)
  for (const parameters of [{ timeout: -1 }, { timeout: '5' }, { priority: 1.5 }]) {
    const refused = await post(1, parameters)
    t.is(refused.status, 400, JSON.stringify(parameters))
    t.is(refused.headers.get('X-Error-Code'), 'REQUEST_INVALID')
  }
  const statuses = await Promise.all(
    Array.from({ length: 6 }, async () => {
      const response = await post(5000, {})
      if (response.status === 503) t.is(response.headers.get('Retry-After'), '1')
      return response.status
    }),
  )
  t.true(statuses.includes(200) && statuses.includes(503), statuses.join())
  await stopCleanly(t, server)
})

test('a failing run is a 500 without a stack, only for its own request', async (t) => {
  // An index outside the table is detected by the runtime.
  const picks = graph({
    input: [value('i', ELEMENT.int64, ['batch'])],
    output: [value('y', ELEMENT.float, ['batch'])],
    node: [node('Gather', ['table', 'i'], ['y'])],
    initializer: [floats('table', [3], [5, 6, 7])],
  })
  const models = writeModel(temporaryFolder(t), 'picks', modelBytes(picks))
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const pick = async (index: number) =>
    await fetch(`${url}/v2/models/picks/infer`, {
      method: 'POST',
      body: JSON.stringify({ inputs: [{ name: 'i', shape: [1], datatype: 'INT64', data: [index] }] }),
    })
  const [failed, right] = await Promise.all([pick(3), pick(2)])
  t.is(failed.status, 500)
  t.is(failed.headers.get('X-Error-Code'), 'MODEL_RUN_FAILED')
  const { error } = (await failed.json()) as { error: string }
  t.regex(error, /while running/)
  t.notRegex(error, /\n\s+at |\/src\/|node_modules|\/home\//)
  t.deepEqual(((await right.json()) as { outputs: { data: number[] }[] }).outputs[0]?.data, [7])
  await stopCleanly(t, server)
})

test('a client that disconnects during its body does not affect others', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '1', '--log-level', 'debug'] })
  const leaving = request(`${url}/v2/models/add/infer`, {
    method: 'POST',
    headers: { 'Content-Length': 1000 },
  })
  leaving.on('error', () => {})
  leaving.write('{"inputs":')
  await new Promise((resolve) => leaving.once('socket', (socket) => socket.once('connect', resolve)))
  leaving.destroy()
  await server.logged((line) => line.msg === 'request' && line.code === 'REQUEST_CANCELLED')
  const answer = await fetch(`${url}/v2/models/add/infer`, { method: 'POST', body: POINT })
  t.is(answer.status, 200)
  await stopCleanly(t, server)
})
