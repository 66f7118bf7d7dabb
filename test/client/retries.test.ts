import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gunzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { createClient, InferenceError, type InputTensor } from '../../src/client/client.js'

type Turn = (request: IncomingMessage, response: ServerResponse) => void

interface Script {
  readonly url: string
  /** Arrival time of each request. */
  readonly arrivals: number[]
}

/** A server that answers the n-th request with the n-th response; the last response repeats. */
async function scripted(t: ExecutionContext, turns: readonly Turn[]): Promise<Script> {
  const arrivals: number[] = []
  const server = createServer((request, response) => {
    arrivals.push(performance.now())
    turns[Math.min(arrivals.length, turns.length) - 1]?.(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, arrivals }
}

function refuse(status: number, headers: Record<string, string> = {}): Turn {
  return (_, response) => response.writeHead(status, headers).end('{"error":"not now"}')
}

const ready: Turn = (_, response) => response.end('{"models":["m"]}')
const reset: Turn = (request) => request.socket.resetAndDestroy()
const silent: Turn = () => {}
const INPUT: InputTensor = { name: 'x', datatype: 'FP32', shape: [1], data: Float32Array.of(1) }

const inferred: Turn = (_, response) =>
  response.end(
    '{"model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[2]}]}',
  )

test('a rejection with Retry-After is retried, and not earlier', async (t) => {
  for (const status of [503, 429]) {
    const { url, arrivals } = await scripted(t, [refuse(status, { 'Retry-After': '1' }), ready])
    t.deepEqual(await createClient({ url }).models(), ['m'])
    t.is(arrivals.length, 2)
    t.true((arrivals[1] as number) - (arrivals[0] as number) >= 1000)
  }
})

test('Retry-After can be a date', async (t) => {
  const { url, arrivals } = await scripted(t, [
    (_, response) => refuse(503, { 'Retry-After': new Date(Date.now() + 2000).toUTCString() })(_, response),
    ready,
  ])
  t.deepEqual(await createClient({ url }).models(), ['m'])
  // A date has a resolution of one second.
  t.true((arrivals[1] as number) - (arrivals[0] as number) > 500)
})

test('rejections without Retry-After and lost connections are retried a limited number of times, including inference', async (t) => {
  const retry = { baseDelayMs: 1 }
  const { url, arrivals } = await scripted(t, [refuse(503), reset, refuse(429), inferred])
  const result = await createClient({ url, retry }).infer({ model: 'm', inputs: [INPUT] })
  t.deepEqual(result.output().data, Float32Array.of(2))
  t.is(arrivals.length, 4)

  const never = await scripted(t, [refuse(503, { 'X-Error-Code': 'QUEUE_FULL' })])
  const failure = await t.throwsAsync(createClient({ url: never.url, retry }).models(), {
    instanceOf: InferenceError,
  })
  t.like(failure, { kind: 'status', status: 503, code: 'QUEUE_FULL', message: 'not now' })
  t.is(never.arrivals.length, 4)

  const gone = await scripted(t, [reset])
  const options = { url: gone.url, retry: { maxRetries: 1, baseDelayMs: 1 } }
  t.like(await t.throwsAsync(createClient(options).models()), { kind: 'network', status: null })
  t.is(gone.arrivals.length, 2)
})

test('permanent errors are not retried', async (t) => {
  for (const status of [400, 404, 413, 500, 504]) {
    const { url, arrivals } = await scripted(t, [refuse(status)])
    t.like(await t.throwsAsync(createClient({ url }).models()), { kind: 'status', status })
    t.is(arrivals.length, 1)
  }
  const { url, arrivals } = await scripted(t, [refuse(503, { 'Retry-After': '60' })])
  t.false(await createClient({ url }).ready())
  t.is(arrivals.length, 1)
})

test('no retry starts that would exceed the deadline, and an abort ends a pending delay', async (t) => {
  const { url, arrivals } = await scripted(t, [refuse(503, { 'Retry-After': '60' })])
  const early = await t.throwsAsync(createClient({ url, timeoutMs: 5000 }).models(), {
    instanceOf: InferenceError,
  })
  t.like(early, { status: 503, retryAfterMs: 60_000 })
  t.is(arrivals.length, 1)

  const leaving = new AbortController()
  const waiting = await scripted(t, [
    (request, response) => {
      refuse(503, { 'Retry-After': '60' })(request, response)
      response.once('close', () => leaving.abort(new Error('enough')))
    },
  ])
  const options = { url: waiting.url, timeoutMs: Number.POSITIVE_INFINITY }
  await t.throwsAsync(createClient(options).models({ signal: leaving.signal }), { message: 'enough' })
  t.is(waiting.arrivals.length, 1)
})

test('a call to an unresponsive server ends at the deadline', async (t) => {
  const { url } = await scripted(t, [silent])
  const late = await t.throwsAsync(createClient({ url }).models({ timeoutMs: 30 }), {
    instanceOf: InferenceError,
  })
  t.like(late, { kind: 'timeout', status: null, message: `no response from ${url}/v2/models within 30 ms` })
})

test('key, headers and compression are sent as configured', async (t) => {
  const seen: Record<string, unknown>[] = []
  const bodies: Buffer[] = []
  const { url } = await scripted(t, [
    (request, response) => {
      seen.push({ ...request.headers, path: request.url })
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        bodies.push(Buffer.concat(chunks))
        inferred(request, response)
      })
    },
  ])
  const client = createClient({
    url: `${url}/prefix/`,
    apiKey: 'a key',
    headers: { 'X-Team': 'blue' },
    compression: 'gzip',
  })
  await client.infer({ model: 'a model', version: 3, inputs: [INPUT], headers: { 'X-Request-Id': 'r1' } })
  t.like(seen[0], {
    path: '/prefix/v2/models/a%20model/versions/3/infer',
    authorization: 'Bearer a key',
    'x-team': 'blue',
    'x-request-id': 'r1',
    'content-encoding': 'gzip',
    'accept-encoding': 'identity',
    'content-type': 'application/octet-stream',
  })
  const body = gunzipSync(bodies[0] as Buffer)
  const jsonBytes = Number(seen[0]?.['inference-header-content-length'])
  t.like(JSON.parse(body.subarray(0, jsonBytes).toString()), { parameters: { binary_data_output: true } })
  t.deepEqual(body.subarray(jsonBytes), Buffer.from(Float32Array.of(1).buffer))

  await client.infer({ model: 'm', inputs: [INPUT], compression: null, encoding: 'json' })
  t.is(seen[1]?.['content-encoding'], undefined)
  t.is(seen[1]?.['content-type'], 'application/json')
  await createClient({ url, acceptCompressed: true }).infer({ model: 'm', inputs: [INPUT] })
  t.is(seen[2]?.['accept-encoding'], 'gzip, deflate')
  t.throws(() => createClient({ url, apiKey: 'two\nlines' }), { instanceOf: TypeError })
})

test('statistics and configuration use the routes of the protocol', async (t) => {
  const paths: (string | undefined)[] = []
  const { url } = await scripted(t, [
    (request, response) => {
      paths.push(request.url)
      response.end('{"model_stats":[]}')
    },
  ])
  const client = createClient({ url })
  t.deepEqual(await client.stats(), { model_stats: [] })
  await client.stats('m', { version: 2 })
  await client.config('m')
  t.deepEqual(paths, ['/v2/models/stats', '/v2/models/m/versions/2/stats', '/v2/models/m/config'])
})

test('a response that does not follow the protocol is an error', async (t) => {
  const head = (outputs: string) => `{"model_name":"m","model_version":"1","outputs":[${outputs}]}`
  const say =
    (text: string, headers: Record<string, string> = {}): Turn =>
    (_, response) =>
      response.writeHead(200, headers).end(text)
  const cut = head('{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}')
  for (const turn of [
    say('<html>'),
    say('{}'),
    say(head('{"name":"y","datatype":"FP31","shape":[1],"data":[1]}')),
    say(head('{"name":"y","datatype":"INT64","shape":[1],"data":[1.5]}')),
    say(`${cut}abc`, { 'Inference-Header-Content-Length': String(cut.length) }),
    say(`${cut.replaceAll('4', '5')}abcde`, { 'Inference-Header-Content-Length': String(cut.length) }),
  ]) {
    const { url } = await scripted(t, [turn])
    t.like(await t.throwsAsync(createClient({ url }).infer({ model: 'm', inputs: [INPUT] })), {
      kind: 'answer',
    })
  }
  const { url } = await scripted(t, [say('<html>')])
  t.like(await t.throwsAsync(createClient({ url }).models()), { kind: 'answer' })
})
