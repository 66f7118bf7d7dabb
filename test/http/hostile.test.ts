/**
 * Clients that violate the protocol: each gets an error in the usual form, and others are not
 * affected.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { ELEMENT, graph, modelBytes, node, slowModel, value, writeModel } from '../helpers/onnx-builder.js'
import { type RawAnswer, RawClient } from '../helpers/raw-client.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'
import { until } from '../helpers/waiting.js'

const PATH = '/v2/models/negate/infer'
const WORKERS = 2
const _DEADLINE_MS = 20_000
const _LOOK_AGAIN_MS = 20

/** `y = -x`, x FP32 [n]. */
const NEGATE = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, ['n'])],
    output: [value('y', ELEMENT.float, ['n'])],
    node: [node('Neg', ['x'], ['y'])],
  }),
)

function bodyWith(id: string, number = 1): string {
  return JSON.stringify({ id, inputs: [{ name: 'x', shape: [1], datatype: 'FP32', data: [number] }] })
}

function post(body: string, headers = ''): string {
  return `POST ${PATH} HTTP/1.1\r\nHost: x\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`
}

const CHUNKED_HEAD = `POST ${PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`
const CUT_BODY = post(bodyWith('cut')).slice(0, -10)

/** Compiled once for all servers. */
let compiled: string | undefined
test.after.always(() => {
  if (compiled !== undefined) rmSync(compiled, { recursive: true, force: true })
})

/** A request with a truncated gzip body. */
function gzipCut(): Buffer {
  const body = gzipSync(bodyWith('compressed'))
  const head = `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: ${body.length}\r\n\r\n`
  return Buffer.concat([Buffer.from(head), body.subarray(0, -5)])
}

async function startAttacked(t: ExecutionContext, ...args: string[]): Promise<RunningServer> {
  const models = writeModel(temporaryFolder(t), 'negate', NEGATE)
  writeModel(models, 'slow', slowModel())
  compiled ??= mkdtempSync(join(tmpdir(), TEMPORARY_PREFIX))
  return await startServer(t, {
    models,
    cacheDir: compiled,
    args: ['--workers', String(WORKERS), '--log-level', 'debug', ...args],
  })
}

/** Every worker serves other clients, has never died and has logged no error. */
async function assertUnharmed(t: ExecutionContext, { server, url }: RunningServer): Promise<void> {
  const first = server.log.filter((line) => line.msg === 'worker ready').map((line) => line.workerPid)
  const servedBy = new Set<number>()
  await until('an answer of every worker', async () => {
    const body = bodyWith('other', 1 + servedBy.size)
    const requestId = `other-${performance.now()}`
    const response = await fetch(`${url}${PATH}`, {
      method: 'POST',
      body,
      headers: { connection: 'close', 'x-request-id': requestId },
    })
    t.is(response.status, 200)
    const { id, outputs } = (await response.json()) as { id: string; outputs: { data: number[] }[] }
    t.deepEqual([id, outputs[0]?.data], ['other', [-1 - servedBy.size]])
    servedBy.add((await server.logged((line) => line.requestId === requestId)).pid)
    return servedBy.size === WORKERS
  })
  t.is(first.length, WORKERS, 'no worker was replaced')
  t.deepEqual([...servedBy].sort(), [...first].sort())
  for (const line of server.log) {
    t.false(['warn', 'error', 'fatal'].includes(line.level), JSON.stringify(line))
    t.false('err' in line, JSON.stringify(line))
  }
  t.notRegex(server.stderr, /\n\s+at |Warning/)
  await stopCleanly(t, server)
}

function assertRefused(
  t: ExecutionContext,
  answer: RawAnswer | undefined,
  { status, code }: { status: number; code: string },
): void {
  t.is(answer?.status, status)
  t.is(answer?.headers['x-error-code'], code)
  t.is(answer?.headers.connection, 'close')
  t.regex(answer?.headers['content-type'] ?? '', /^application\/json/)
  const body = JSON.parse(answer?.body ?? '') as { error: string }
  t.deepEqual(Object.keys(body), ['error'])
  t.regex(body.error, /\S/)
  t.notRegex(body.error, /\n|node_modules|HPE_/)
}

/** Requests and executions that all workers have counted so far. */
async function count(adminUrl: string, metric: string, label = ''): Promise<number> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  const lines = text.split('\n').filter((line) => line.startsWith(`${metric}{`) && line.includes(label))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

function outcomes(adminUrl: string, outcome: string): Promise<number> {
  return count(adminUrl, 'onecopy_requests_total', `outcome="${outcome}"`)
}

function executions(adminUrl: string): Promise<number> {
  return count(adminUrl, 'onecopy_batch_size_count', 'model="negate"')
}

test.serial('slow headers and bodies get 408 at their time limits', async (t) => {
  const running = await startAttacked(t, '--headers-timeout', '700ms', '--request-timeout', '1500ms')
  const { url, adminUrl } = running
  const startedMs = performance.now()
  const slowHeaders = await Promise.all(
    ['GET /', 'GET /v2 HTTP/1.1\r\n', 'GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: b\r\n'].map((bytes) =>
      RawClient.connect(url, bytes),
    ),
  )
  const slowBodies = await Promise.all(
    [CUT_BODY, `${CHUNKED_HEAD}${chunk('{"inputs"')}`, gzipCut()].map((bytes) =>
      RawClient.connect(url, bytes),
    ),
  )
  // Occasional bytes do not extend the limit.
  const drips = setInterval(() => {
    for (const { socket } of slowHeaders) if (socket.writable) socket.write('a')
    for (const { socket } of slowBodies.slice(0, 1)) if (socket.writable) socket.write(' ')
  }, 300)
  t.teardown(() => clearInterval(drips))
  const silent = await RawClient.connect(url)
  for (const client of slowHeaders) {
    const answers = await client.ended()
    t.is(answers.length, 1)
    assertRefused(t, answers[0], { status: 408, code: 'REQUEST_TIMEOUT' })
  }
  t.deepEqual(await silent.ended(), [], 'a client that sends nothing receives nothing')
  t.true(performance.now() - startedMs < 700 + 2000)
  for (const client of slowBodies) {
    const answers = await client.ended()
    t.is(answers.length, 1)
    assertRefused(t, answers[0], { status: 408, code: 'REQUEST_TIMEOUT' })
  }
  const elapsedMs = performance.now() - startedMs
  t.true(elapsedMs > 1400 && elapsedMs < 1500 + 2500, `${elapsedMs}`)
  await until('the metrics', async () => (await outcomes(adminUrl, 'client_error')) === slowBodies.length)
  t.is(await outcomes(adminUrl, 'cancelled'), 0)
  t.is(await executions(adminUrl), 0)
  await assertUnharmed(t, running)
})

test.serial('an idle connection is closed after the keep-alive timeout, and not before', async (t) => {
  const running = await startAttacked(t, '--keep-alive-timeout', '1s')
  const client = await RawClient.connect(running.url, post(bodyWith('one')))
  const [answer] = await client.answered()
  t.is(answer?.status, 200)
  const answeredMs = performance.now()
  t.is((await client.ended()).length, 1)
  const idleMs = performance.now() - answeredMs
  t.true(idleMs > 800 && idleMs < 5000, `${idleMs}`)
  await assertUnharmed(t, running)
})

test.serial(
  'a client that closes its side after its request is treated as disconnected, without effect on others',
  async (t) => {
    const running = await startAttacked(t)
    const pipelined = `${post(bodyWith('a'))}${post(bodyWith('b'))}`
    const left = [post(bodyWith('half')), pipelined].map(async (bytes) => {
      const client = await RawClient.connect(running.url)
      client.socket.end(bytes)
      return (await client.ended()).map(({ status }) => status)
    })
    // A response that was ready immediately may still have been sent.
    for (const statuses of await Promise.all(left)) t.true(statuses.every((status) => status === 200))
    await assertUnharmed(t, running)
  },
)

test.serial('a connection that ends during a request causes no inference', async (t) => {
  const running = await startAttacked(t)
  const { url, adminUrl } = running
  for (const bytes of [CUT_BODY, `${CHUNKED_HEAD}${chunk('{"inputs"')}`, `${CHUNKED_HEAD}5\r\n{"i`]) {
    const client = await RawClient.connect(url)
    client.socket.end(bytes)
    const answers = await client.ended()
    t.is(answers.length, 1)
    assertRefused(t, answers[0], { status: 400, code: 'REQUEST_CANCELLED' })
  }
  const inHeaders = await RawClient.connect(url)
  inHeaders.socket.end('POST / HTTP/1.1\r\nHost:')
  assertRefused(t, (await inHeaders.ended())[0], { status: 400, code: 'REQUEST_CANCELLED' })
  const silent = await RawClient.connect(url)
  silent.socket.end()
  t.deepEqual(await silent.ended(), [])
  await until('the metrics', async () => (await outcomes(adminUrl, 'cancelled')) === 3)
  t.is(await executions(adminUrl), 0)
  await assertUnharmed(t, running)
})

test.serial('hundreds of resets during a body are cancelled and cause no inference', async (t) => {
  const running = await startAttacked(t)
  const { server, url, adminUrl } = running
  const RESETS = 300
  for (let done = 0; done < RESETS; done += 50) {
    const clients = await Promise.all(
      Array.from({ length: 50 }, () =>
        RawClient.connect(url, `${CUT_BODY.replace('Host: x', 'Host: x\r\nExpect: 100-continue')}`),
      ),
    )
    // The server sends 100 Continue after it has read the headers, so every reset happens during
    // the body.
    await Promise.all(clients.map((client) => client.answered()))
    await Promise.all(clients.map((client) => client.reset()))
  }
  await until('the metrics', async () => (await outcomes(adminUrl, 'cancelled')) === RESETS)
  t.is(server.log.filter((line) => line.code === 'REQUEST_CANCELLED').length, RESETS)
  t.is(await executions(adminUrl), 0)
  await assertUnharmed(t, running)
})

test.serial('headers that are too large or too many get 431, even a million of them', async (t) => {
  const running = await startAttacked(t)
  const { url } = running
  const head = 'GET /v2 HTTP/1.1\r\nHost: x\r\n'
  for (const bytes of [
    `${head}X-Huge: ${'a'.repeat(20_000_000)}\r\n\r\n`,
    `GET /${'a'.repeat(1_000_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    `${head}${'a:b\r\n'.repeat(1_000_000)}\r\n`,
    `${head}${'a:b\r\n'.repeat(1000)}\r\n`,
    `${head}${'a:b\r\n'.repeat(256)}\r\n`,
  ]) {
    const client = await RawClient.connect(url, bytes)
    const answers = await client.ended()
    t.is(answers.length, 1)
    assertRefused(t, answers[0], { status: 431, code: 'HEADERS_TOO_LARGE' })
  }
  const many = await RawClient.connect(url, `${head}${'a:b\r\n'.repeat(254)}\r\n`)
  t.is((await many.answered())[0]?.status, 200)
  await assertUnharmed(t, running)
})

test.serial('many requests in one write are answered in their order', async (t) => {
  const running = await startAttacked(t)
  const REQUESTS = 200
  const client = await RawClient.connect(
    running.url,
    Array.from({ length: REQUESTS }, (_, i) =>
      // Some are answered without the queue, and must keep their order.
      i % 10 === 9 ? 'GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n' : post(bodyWith(`${i}`, i + 1)),
    ).join(''),
  )
  const answers = await client.answered(REQUESTS)
  for (const [i, { status, body }] of answers.entries()) {
    t.is(status, 200)
    const parsed = JSON.parse(body) as { id?: string; live?: boolean; outputs?: { data: number[] }[] }
    if (i % 10 === 9) t.deepEqual(parsed, { live: true } as object)
    else t.deepEqual([parsed.id, parsed.outputs?.[0]?.data], [`${i}`, [-1 - i]])
  }
  await assertUnharmed(t, running)
})

test.serial(
  'invalid bytes after requests are answered after them, and no request gets two responses',
  async (t) => {
    const running = await startAttacked(t)
    const client = await RawClient.connect(
      running.url,
      `${post(bodyWith('1'))}${post(bodyWith('2'))}\0\0nonsense\r\n\r\n${post(bodyWith('3'))}`,
    )
    const answers = await client.ended()
    t.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 400],
    )
    assertRefused(t, answers[2], { status: 400, code: 'REQUEST_MALFORMED' })
    const answered = await RawClient.connect(running.url, CHUNKED_HEAD.replace('negate', 'none'))
    t.is((await answered.answered())[0]?.status, 404)
    answered.socket.write('nonsense\r\n')
    t.is((await answered.ended()).length, 1)
    await assertUnharmed(t, running)
  },
)

test.serial('invalid requests get 400 with a message, also requests without a Host', async (t) => {
  const running = await startAttacked(t)
  const { url } = running
  const noise = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 197 + (i >> 3) * 31 + 1) & 0xff)
  for (const bytes of [
    noise,
    // A TLS client on the plain port.
    Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03),
    'GET\r\n\r\n',
    'GET /v2 HTTP/9.9\r\nHost: x\r\n\r\n',
    'GET /v2 HTTP/1.1\r\nBad Header: x\r\n\r\n',
    'GET /v2 HTTP/1.1\r\n\r\n',
    `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n`,
    `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef`,
    `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    `${CHUNKED_HEAD}zz\r\n`,
    `${CHUNKED_HEAD}fffffffffffffffff\r\n`,
    `${CHUNKED_HEAD}${chunk('{"inputs"')}nonsense`,
  ]) {
    const client = await RawClient.connect(url, bytes)
    const answers = await client.ended()
    t.is(answers.length, 1, String(bytes))
    assertRefused(t, answers[0], { status: 400, code: 'REQUEST_MALFORMED' })
  }
  const odd = await RawClient.connect(url, 'GET /v2/health/live HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n')
  t.is((await odd.answered())[0]?.body, '{"live":true}')
  await assertUnharmed(t, running)
})

test.serial('a wrong Content-Length affects only its own connection', async (t) => {
  const running = await startAttacked(t, '--request-timeout', '1s')
  const body = bodyWith('short')
  const tooLong = await RawClient.connect(
    running.url,
    `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length + 5}\r\n\r\n${body}`,
  )
  // Missing bytes never arrive; surplus bytes begin another request.
  const tooShort = await RawClient.connect(
    running.url,
    `POST ${PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length - 5}\r\n\r\n${body}\r\n\r\n`,
  )
  const answers = await tooShort.ended()
  t.deepEqual(
    answers.map(({ status, headers }) => [status, headers['x-error-code']]),
    [
      [400, 'BODY_MALFORMED'],
      [400, 'REQUEST_MALFORMED'],
    ],
  )
  assertRefused(t, (await tooLong.ended())[0], { status: 408, code: 'REQUEST_TIMEOUT' })
  const huge = await RawClient.connect(running.url, post('').replace('Length: 0', 'Length: 999999999999'))
  assertRefused(t, (await huge.ended())[0], { status: 413, code: 'BODY_TOO_LARGE' })
  await assertUnharmed(t, running)
})

test.serial(
  'connections above the limit are closed immediately, and accepted again after others close',
  async (t) => {
    const LIMIT = 5
    const { server, url } = await startAttacked(t, '--max-connections', String(LIMIT))
    const live = 'GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n'
    const clients = await Promise.all(
      Array.from({ length: 3 * LIMIT * WORKERS }, () => RawClient.connect(url, live)),
    )
    const held: RawClient[] = []
    await Promise.all(
      clients.map(async (client) => {
        await Promise.race([client.answered().catch(() => {}), client.closed])
        if (client.answers().length === 1) held.push(client)
      }),
    )
    // A burst is not distributed evenly: a worker may be full while another is not.
    t.true(held.length >= LIMIT && held.length <= LIMIT * WORKERS, `${held.length}`)
    await server.logged((line) => line.level === 'warn' && line.maxConnections === LIMIT)
    for (const client of held) {
      client.socket.write(live)
      t.is((await client.answered(2))[1]?.status, 200, 'the first connections are still served')
    }
    await Promise.all(held.map((client) => client.reset()))
    await until('room', async () => {
      const next = await RawClient.connect(url, live)
      const served = await next.answered().then(
        () => true,
        () => false,
      )
      next.socket.destroy()
      return served
    })
    t.is(server.log.filter((line) => line.msg === 'worker ready').length, WORKERS)
    t.false(server.log.some((line) => line.level === 'error' || line.level === 'fatal'))
    await stopCleanly(t, server)
  },
)

test.serial('the admin port has the same limits', async (t) => {
  const running = await startAttacked(t)
  const { adminUrl } = running
  const garbage = await RawClient.connect(adminUrl, 'nonsense\r\n\r\n')
  assertRefused(t, (await garbage.ended())[0], { status: 400, code: 'REQUEST_MALFORMED' })
  const huge = await RawClient.connect(adminUrl, `GET /metrics HTTP/1.1\r\nX-Huge: ${'a'.repeat(100_000)}`)
  assertRefused(t, (await huge.ended())[0], { status: 431, code: 'HEADERS_TOO_LARGE' })
  const slow = await RawClient.connect(adminUrl, 'GET /metrics HTTP/1.1\r\n')
  assertRefused(t, (await slow.ended())[0], { status: 408, code: 'REQUEST_TIMEOUT' })
  t.is((await fetch(`${adminUrl}/metrics`)).status, 200)
  await assertUnharmed(t, running)
})
