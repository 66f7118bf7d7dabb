/** Authentication, limits, CORS and security headers. */
import test, { type ExecutionContext } from 'ava'
import { createKey, formatKey, type Scope } from '../../src/access/api-keys.js'
import { ask } from '../helpers/certificates.js'
import { addModel, slowModel, writeModel } from '../helpers/onnx-builder.js'
import { RawClient } from '../helpers/raw-client.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

const BODY = JSON.stringify({ inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [1, 2] }] })
const PAGE = 'https://app.example'

function newKey(name: string, scopes: readonly Scope[]) {
  const { key, entry } = createKey({ name, scopes })
  return { key, headers: { authorization: `Bearer ${key}` }, line: formatKey(entry) }
}

async function start(t: ExecutionContext, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  writeModel(models, 'slow', slowModel())
  return await startServer(t, { models, args: ['--workers', '1', ...args], env })
}

test.serial(
  'every response of both ports has the security headers, also errors below the routes',
  async (t) => {
    const { server, url, adminUrl } = await start(t, [])
    const garbage = await RawClient.connect(url, 'nonsense\r\n\r\n')
    const [malformed] = await garbage.ended()
    const answers = [
      await ask(`${url}/v2/health/live`),
      await ask(`${url}/v2/models/add/infer`, { body: BODY }),
      await ask(`${url}/none`),
      await ask(`${adminUrl}/metrics`),
      await ask(`${adminUrl}/none`),
      malformed,
    ]
    for (const answer of answers) {
      t.like(answer?.headers, {
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-store',
        'content-security-policy': "default-src 'none';frame-ancestors 'none'",
      })
      t.false('strict-transport-security' in (answer?.headers ?? {}), 'only with TLS')
      t.false('x-powered-by' in (answer?.headers ?? {}))
    }
    await stopCleanly(t, server)
  },
)

test.serial('a key allows exactly its scopes; probes need none', async (t) => {
  const infer = newKey('infer', ['infer'])
  const metrics = newKey('metrics', ['metrics'])
  const admin = newKey('admin', ['admin'])
  const token = 'the-token-of-before'
  const keys = [infer, metrics, admin].map(({ line }) => line).join(';')
  const { server, url, adminUrl } = await start(t, ['--admin-token', token], { ONECOPY_API_KEYS: keys })
  const everybody = { infer, metrics, admin, token: { headers: { authorization: `Bearer ${token}` } } }
  for (const [route, isPost, opener] of [
    [`${url}/v2`, false, ['infer']],
    [`${url}/v2/models`, false, ['infer']],
    [`${url}/v2/models/add`, false, ['infer']],
    [`${url}/v2/models/add/ready`, false, ['infer']],
    [`${url}/v2/models/add/infer`, true, ['infer']],
    [`${adminUrl}/metrics`, false, ['metrics']],
    [`${adminUrl}/v2/repository/index`, true, ['admin', 'token']],
  ] as const) {
    const body = isPost ? (route.endsWith('infer') ? BODY : '{}') : undefined
    const none = await ask(route, { body })
    t.is(none.status, 401, route)
    t.is(none.headers['www-authenticate'], 'Bearer')
    t.is(none.headers['x-error-code'], 'UNAUTHORIZED')
    const wrong = await ask(route, { body, headers: { 'x-api-key': `${infer.key}x` } })
    t.is(wrong.status, 401, route)
    t.regex(String(wrong.headers['www-authenticate']), /invalid_token/)
    for (const [name, { headers }] of Object.entries(everybody)) {
      const { status } = await ask(route, { body, headers })
      t.is(status, (opener as readonly string[]).includes(name) ? 200 : 403, `${route} ${name}`)
    }
  }
  for (const base of [url, adminUrl])
    for (const probe of ['live', 'ready']) t.is((await ask(`${base}/v2/health/${probe}`)).status, 200)
  t.is((await ask(`${url}/v2/models`, { headers: { 'X-API-Key': infer.key } })).status, 200)
  const basic = { authorization: 'Basic eDp5', 'x-api-key': infer.key }
  t.is(
    (await ask(`${url}/v2/models`, { headers: basic })).status,
    200,
    'another scheme may be meant for a proxy',
  )
  t.is((await ask(`${url}/none`)).status, 401, 'which routes exist is not disclosed')
  t.is((await ask(`${url}/V2/Models`)).status, 401)
  const counted = (await ask(`${adminUrl}/metrics`, { headers: metrics.headers })).body
  t.regex(counted, /requests_total\{model="\(unknown\)",version="",outcome="client_error"\} [1-9]/)
  t.false(server.stderr.includes(infer.key))
  await stopCleanly(t, server)
})

test.serial('requests above the rate get 429 until the time in Retry-After', async (t) => {
  const key = newKey('alice', ['infer'])
  const second = newKey('alice', ['infer'])
  const { server, url, adminUrl } = await start(t, ['--rate-limit', '3/2s'], {
    ONECOPY_API_KEYS: `${key.line};${second.line};${newKey('m', ['metrics']).line}`,
  })
  const send = (headers: Record<string, string>) => ask(`${url}/v2/models/add/infer`, { body: BODY, headers })
  for (let i = 0; i < 3; i++) t.is((await send(key.headers)).status, 200)
  const refused = await send(second.headers)
  t.is(refused.status, 429, 'keys with one name are one client')
  t.is(refused.headers['x-error-code'], 'RATE_LIMITED')
  const waitSeconds = Number(refused.headers['retry-after'])
  t.true(Number.isInteger(waitSeconds) && waitSeconds >= 1 && waitSeconds <= 4, String(waitSeconds))
  const askedMs = performance.now()
  t.is((await ask(`${url}/v2/health/ready`)).status, 200)
  await until('the limit to allow a request', async () => (await send(key.headers)).status === 200)
  t.true(performance.now() - askedMs < waitSeconds * 1000 + 500)
  t.is((await ask(`${adminUrl}/v2/health/ready`)).status, 200)
  await stopCleanly(t, server)
})

test.serial(
  'a client is limited to a number of concurrent requests, and may continue after each response',
  async (t) => {
    const { server, url, adminUrl } = await start(t, ['--max-client-requests', '1', '--trusted-proxies', '2'])
    const from = (address: string) => ({ 'x-forwarded-for': `8.8.8.8, ${address}, 10.0.0.1` })
    const slow = (iterations: number, address: string) =>
      ask(`${url}/v2/models/slow/infer`, {
        body: JSON.stringify({
          inputs: [{ name: 'iterations', shape: [], datatype: 'INT64', data: [iterations] }],
        }),
        headers: from(address),
      })
    const first = slow(20_000, '1.2.3.4')
    await until('the second to be refused', async () => (await slow(1, '1.2.3.4')).status === 429)
    const [refused, other] = await Promise.all([
      slow(1, '1.2.3.4'),
      ask(`${url}/v2/models`, { headers: from('1.2.3.5') }),
    ])
    t.is(refused.headers['x-error-code'], 'CONCURRENCY_LIMITED')
    t.is(refused.headers['retry-after'], '1')
    t.is(other.status, 200)
    t.is((await first).status, 200)
    t.is((await slow(1, '1.2.3.4')).status, 200)
    t.regex((await ask(`${adminUrl}/metrics`)).body, /outcome="rejected"\} [1-9]/)

    const left = await RawClient.connect(
      url,
      'POST /v2/models/add/infer HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 5.5.5.5, 6.6.6.6\r\nContent-Length: 99\r\n\r\n{',
    )
    await until(
      'the request to be in flight',
      async () => (await slow(1, '5.5.5.5').catch(() => null)) !== null,
    )
    await left.reset()
    await until(
      'the disconnected request to be released',
      async () => (await slow(1, '5.5.5.5')).status === 200,
    )
    await stopCleanly(t, server)
  },
)

test.serial("forged addresses and addresses of one network do not raise a client's limit", async (t) => {
  const { server, url } = await start(t, ['--rate-limit', '2/1h', '--trusted-proxies', '1'])
  const send = async (forwarded: string | null) =>
    (await ask(`${url}/v2/models`, forwarded === null ? {} : { headers: { 'x-forwarded-for': forwarded } }))
      .status
  t.deepEqual(
    [await send('1.1.1.1, 9.9.9.9'), await send('2.2.2.2, 9.9.9.9'), await send('9.9.9.9')],
    [200, 200, 429],
  )
  t.deepEqual(
    [await send('2001:db8::1'), await send('2001:db8:0:0:1:2:3:4'), await send('2001:DB8::ffff')],
    [200, 200, 429],
    'an IPv6 network is one client',
  )
  t.is(await send('2001:db8:0:1::1'), 200)
  t.deepEqual(
    [await send('nonsense'), await send(null), await send('')],
    [200, 200, 429],
    'the address of the connection counts',
  )
  await stopCleanly(t, server)
})

test.serial('pages of listed origins may send requests and read the headers of the protocol', async (t) => {
  const key = newKey('page', ['infer'])
  const { server, url } = await start(t, ['--cors-origin', PAGE, '--cors-origin', 'http://localhost:3000'], {
    ONECOPY_API_KEYS: key.line,
  })
  const preflight = (origin: string) =>
    ask(`${url}/v2/models/add/infer`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,inference-header-content-length',
      },
    })
  for (const origin of [PAGE, 'http://localhost:3000']) {
    const { status, headers } = await preflight(origin)
    t.is(status, 204, 'a preflight needs no key: browsers send none')
    t.is(headers['access-control-allow-origin'], origin)
    t.regex(String(headers['access-control-allow-headers']), /inference-header-content-length/)
    t.regex(String(headers['access-control-allow-methods']), /POST/)
    t.is(headers.vary, 'Origin')
  }
  t.false('access-control-allow-origin' in (await preflight('https://other.example')).headers)
  for (const headers of [{ origin: PAGE }, { origin: PAGE, ...key.headers }]) {
    const answer = await ask(`${url}/v2/models/add/infer`, { body: BODY, headers })
    t.is(answer.status, 'authorization' in headers ? 200 : 401)
    t.is(answer.headers['access-control-allow-origin'], PAGE)
    t.regex(String(answer.headers['access-control-expose-headers']), /Inference-Header-Content-Length/)
  }
  await stopCleanly(t, server)
})
