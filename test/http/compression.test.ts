import { readFileSync } from 'node:fs'
import { type IncomingHttpHeaders, request } from 'node:http'
import { deflateRawSync, deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { ELEMENT, graph, modelBytes, node, value, writeModel } from '../helpers/onnx-builder.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

/** `y = -x`, x FP32 [n]. */
const NEGATE = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, ['n'])],
    output: [value('y', ELEMENT.float, ['n'])],
    node: [node('Neg', ['x'], ['y'])],
  }),
)
const MAX_BODY_BYTES = 2 ** 20

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

/** Sends the parts unchanged, each after the previous one was accepted; several parts are sent chunked. */
function post(
  url: string,
  parts: Buffer | readonly Buffer[],
  headers: Record<string, string>,
): Promise<Answer> {
  const list = Buffer.isBuffer(parts) ? [parts] : parts
  return new Promise((resolve, reject) => {
    const length = list.length === 1 ? { 'Content-Length': String(list[0]?.length) } : {}
    const sending = request(`${url}/v2/models/negate/infer`, {
      method: 'POST',
      headers: { ...length, ...headers },
    })
    sending.on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks),
        }),
      )
    })
    // The response can arrive before everything is sent; the rest then meets a closed connection.
    sending.on('error', (error) => setImmediate(reject, error))
    void (async () => {
      for (const part of list) await new Promise((sent) => sending.write(part, sent))
      sending.end()
    })()
  })
}

function jsonBody(count: number, parameters: object = {}): Buffer {
  const data = Array.from({ length: count }, (_, i) => i)
  return Buffer.from(
    JSON.stringify({ parameters, inputs: [{ name: 'x', shape: [count], datatype: 'FP32', data }] }),
  )
}

async function startNegate(t: ExecutionContext): Promise<RunningServer> {
  const models = writeModel(temporaryFolder(t), 'negate', NEGATE)
  return await startServer(t, {
    models,
    args: ['--workers', '1', '--max-body', '1MiB', '--log-level', 'debug'],
  })
}

function firstOutput(json: Buffer): { data?: number[] } {
  return (JSON.parse(json.toString()) as { outputs: { data?: number[] }[] }).outputs[0] ?? {}
}

test('a compressed request is answered like an uncompressed one', async (t) => {
  const { server, url } = await startNegate(t)
  const body = jsonBody(3)
  const forms: [string, Buffer][] = [
    ['gzip', gzipSync(body)],
    ['GZip', gzipSync(body)],
    ['x-gzip', gzipSync(body)],
    ['X-GZIP', gzipSync(body)],
    ['\t x-gzip ', gzipSync(body)],
    ['identity, gzip,', gzipSync(body)],
    ['gzip', Buffer.concat([gzipSync(body.subarray(0, 20)), gzipSync(body.subarray(20))])],
    ['deflate', deflateSync(body)],
    ['identity', body],
    ['Identity , ', body],
    ['', body],
  ]
  for (const [encoding, bytes] of forms) {
    for (const parts of [bytes, [bytes.subarray(0, 5), bytes.subarray(5)]]) {
      const answer = await post(url, parts, { 'Content-Encoding': encoding })
      t.is(answer.status, 200, `${encoding}: ${answer.body}`)
      t.deepEqual(firstOutput(answer.body).data, [-0, -1, -2])
      t.regex(answer.body.toString(), /\[-0\.0,-1,-2\]/)
    }
  }
  // The length of the JSON counts bytes after decompression.
  const json = Buffer.from(
    JSON.stringify({
      inputs: [{ name: 'x', shape: [2], datatype: 'FP32', parameters: { binary_data_size: 8 } }],
    }),
  )
  const binary = gzipSync(Buffer.concat([json, Buffer.from(Float32Array.of(5, 6).buffer)]))
  const answer = await post(url, binary, {
    'Content-Encoding': 'gzip',
    'Inference-Header-Content-Length': String(json.length),
  })
  t.deepEqual(firstOutput(answer.body).data, [-5, -6])
  await stopCleanly(t, server)
})

test('bodies that do not decompress completely are rejected, and other codings are not read', async (t) => {
  const { server, url } = await startNegate(t)
  const body = jsonBody(3)
  const junk = Buffer.from('junk')
  const broken: [string, string, Buffer | Buffer[]][] = [
    ['truncated', 'gzip', gzipSync(body).subarray(0, -9)],
    ['without its checksum', 'gzip', gzipSync(body).subarray(0, -8)],
    ['truncated', 'deflate', deflateSync(body).subarray(0, -5)],
    ['followed by junk', 'gzip', Buffer.concat([gzipSync(body), junk])],
    ['followed by zeros', 'gzip', Buffer.concat([gzipSync(body), Buffer.alloc(4)])],
    ['followed by junk', 'deflate', Buffer.concat([deflateSync(body), junk])],
    ['followed by junk later', 'deflate', [deflateSync(body), junk, junk]],
    ['followed by junk later', 'gzip', [gzipSync(body), junk, junk]],
    ['without the zlib header', 'deflate', deflateRawSync(body)],
    ['gzip', 'deflate', gzipSync(body)],
    ['empty', 'gzip', Buffer.alloc(0)],
    ['plain', 'gzip', body],
  ]
  for (const [what, encoding, parts] of broken) {
    const answer = await post(url, parts, { 'Content-Encoding': encoding })
    t.is(answer.status, 400, `${encoding}, ${what}: ${answer.body}`)
    t.is(answer.headers['x-error-code'], 'BODY_MALFORMED', `${encoding}, ${what}`)
  }
  for (const encoding of ['br', 'xgzip', 'x-deflate', 'gzip, gzip', 'x-gzip, gzip', 'gzip;q=1', 'zstd']) {
    const answer = await post(url, gzipSync(body), { 'Content-Encoding': encoding })
    t.is(answer.status, 415, encoding)
    t.is(answer.headers['accept-encoding'], 'gzip, deflate')
    t.is(typeof (JSON.parse(answer.body.toString()) as { error: string }).error, 'string')
  }
  t.is((await post(url, body, {})).status, 200)
  await stopCleanly(t, server)
})

test('the limit applies before and after decompression, and a bomb takes no memory above it', async (t) => {
  const { server, url } = await startNegate(t)
  const pid = server.log.find((line) => line.msg === 'worker ready')?.workerPid
  const mostBytes = () =>
    Number(readFileSync(`/proc/${pid}/status`, 'latin1').match(/VmHWM:\s+(\d+) kB/)?.[1]) * 1024
  const bomb = gzipSync(Buffer.alloc(512 * 1024 * 1024))
  t.true(bomb.length < MAX_BODY_BYTES)
  await post(url, jsonBody(3), {})
  const before = mostBytes()
  for (const parts of [bomb, [bomb.subarray(0, 1000), bomb.subarray(1000)]]) {
    const answer = await post(url, parts, { 'Content-Encoding': 'gzip' })
    t.is(answer.status, 413)
    t.is(answer.headers['x-error-code'], 'BODY_TOO_LARGE')
  }
  const grown = mostBytes() - before
  t.true(grown < 64 * 1024 * 1024, `${grown} bytes`)
  // Endless bytes that decompress to nothing.
  const member = gzipSync('')
  const empty = Buffer.alloc(member.length * 10_000, member)
  const answer = await post(url, Array(8).fill(empty), { 'Content-Encoding': 'gzip' })
  t.is(answer.status, 413)
  await stopCleanly(t, server)
})

test('a response is compressed if accepted, by q-value, and if it is large enough', async (t) => {
  const { server, url } = await startNegate(t)
  const ask = (accept: string | undefined, body = jsonBody(1000)) =>
    post(url, body, accept === undefined ? {} : { 'Accept-Encoding': accept })
  const cases: [string | undefined, string | undefined][] = [
    [undefined, undefined],
    ['', undefined],
    ['identity', undefined],
    ['gzip', 'gzip'],
    ['deflate', 'deflate'],
    ['x-gzip', 'gzip'],
    ['X-GZip;q=0.9, deflate;q=0.5', 'gzip'],
    ['x-gzip;q=0, *', 'deflate'],
    ['ax-gzip, x-gzip2', undefined],
    ['br', undefined],
    ['gzip, deflate, br', 'gzip'],
    ['gzip;q=0.5, deflate;q=0.8', 'deflate'],
    ['gzip;q=0', undefined],
    ['gzip;q=0, *', 'deflate'],
    ['identity, gzip', undefined],
    ['gzip;q=0.5, identity;q=0.9', undefined],
    ['*', 'gzip'],
    ['identity;q=0, *;q=0', undefined],
    ['nonsense;;q=x', undefined],
  ]
  for (const [accept, encoding] of cases) {
    const { status, headers, body } = await ask(accept)
    t.is(status, 200)
    t.is(headers['content-encoding'], encoding, `${accept}`)
    t.is(headers.vary, 'Accept-Encoding')
    t.is(headers['content-length'], String(body.length), `${accept}`)
    const plain = encoding === 'gzip' ? gunzipSync(body) : encoding === 'deflate' ? inflateSync(body) : body
    t.is(firstOutput(plain).data?.[999], -999, `${accept}`)
  }
  const small = await ask('gzip', jsonBody(3))
  t.is(small.headers['content-encoding'], undefined)
  t.is(small.headers['content-length'], String(small.body.length))
  await stopCleanly(t, server)
})

test('the length of the JSON in a compressed response counts bytes before compression', async (t) => {
  const { server, url } = await startNegate(t)
  // Small responses are sent in one piece, large ones as a stream.
  for (const count of [1000, 100_000]) {
    const { headers, body } = await post(url, jsonBody(count, { binary_data_output: true }), {
      'Accept-Encoding': 'gzip',
    })
    t.is(headers['content-encoding'], 'gzip')
    t.is(headers['content-type'], 'application/octet-stream')
    const plain = gunzipSync(body)
    const jsonBytes = Number(headers['inference-header-content-length'])
    t.like(JSON.parse(plain.subarray(0, jsonBytes).toString()), { model_name: 'negate' })
    t.is(plain.length - jsonBytes, 4 * count)
    t.is(plain.readFloatLE(plain.length - 4), 1 - count)
  }
  await stopCleanly(t, server)
})
