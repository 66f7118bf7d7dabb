import { request } from 'node:http'
import { hostname } from 'node:os'
import test from 'ava'
import { isLoopbackHost } from '../../src/config/host-names.js'
import { startServer, stopCleanly } from '../helpers/server.js'

interface Answer {
  readonly status: number
  readonly code: string | undefined
}

/** Sends exactly these headers, Host included. */
function send(url: string, method: string, path: string, headers: Record<string, string>): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asking = request(`${url}${path}`, { method, headers, setHost: false }, (response) => {
      response.resume()
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          code: response.headers['x-error-code'] as string | undefined,
        }),
      )
    })
    asking.on('error', reject)
    asking.end()
  })
}

const REFUSED = { status: 403, code: 'CROSS_ORIGIN' }

test('a web page cannot change anything on the admin port, and programs can', async (t) => {
  const { server, adminUrl } = await startServer(t, {
    args: ['--workers', '1', '--model-control', 'explicit'],
  })
  const { host, port } = new URL(adminUrl)
  const change = (headers: Record<string, string>) => send(adminUrl, 'POST', '/restart', { host, ...headers })
  const rebound = `evil.example:${port}`
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { origin: `http://${host}0` },
    { origin: `http://localhost:${port}` },
    { origin: `http://127.0.0.1:1` },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'cross-site', origin: `http://${host}` },
    { referer: 'https://evil.example/page' },
    { origin: `http://${host}`, 'content-type': 'text/plain' },
    { origin: `http://${host}`, 'content-type': 'multipart/form-data; boundary=x' },
    { 'sec-fetch-site': 'same-origin', 'content-type': 'application/x-www-form-urlencoded' },
    { host: rebound, origin: `http://${rebound}` },
    { host: rebound, 'sec-fetch-site': 'same-origin' },
    { host: rebound },
  ])
    t.deepEqual(await change(headers), REFUSED, JSON.stringify(headers))
  for (const path of [
    '/v2/repository/index',
    '/v2/repository/models/logp/unload',
    '/v2/repository/models/logp/load',
  ])
    t.deepEqual(await send(adminUrl, 'POST', path, { host, origin: 'https://evil.example' }), REFUSED, path)
  t.false(server.log.some(({ msg }) => msg === 'replacing every worker'))

  const index = (headers: Record<string, string>) => send(adminUrl, 'POST', '/v2/repository/index', headers)
  for (const headers of [
    { host },
    { host: `localhost:${port}` },
    { host: `[::1]:${port}` },
    { host: `${hostname()}:${port}` },
    // A health check of HTTP/1.0.
    { host: '' },
    // A service's name in a container network.
    { host: `onecopy:${port}` },
    { host, origin: `http://${host}` },
    { host, origin: `http://${host}`, 'sec-fetch-site': 'same-origin', 'content-type': 'application/json' },
    // curl -d and Node's fetch.
    { host, 'content-type': 'application/x-www-form-urlencoded' },
    { host, 'content-type': 'text/plain;charset=UTF-8', 'sec-fetch-mode': 'cors' },
    // Typed into the address bar, or from a browser extension.
    { host, 'sec-fetch-site': 'none' },
  ])
    t.is((await index(headers)).status, 200, JSON.stringify(headers))
  await stopCleanly(t, server)
})

test('on loopback a page under another name that resolves to this machine is rejected', async (t) => {
  const { server, adminUrl } = await startServer(t, { args: ['--workers', '1'] })
  for (const path of ['/metrics', '/v2', '/v2/health/ready', '/docs/'])
    t.deepEqual(await send(adminUrl, 'GET', path, { host: 'evil.example' }), REFUSED, path)
  t.is((await send(adminUrl, 'GET', '/metrics', { host: 'localhost' })).status, 200)
  await stopCleanly(t, server)
})

test('on other addresses probes and scrapers may use any name, but a page that changes something may not', async (t) => {
  const args = ['--workers', '1', '--admin-host', '0.0.0.0', '--admin-insecure', 'on']
  const { server, adminUrl } = await startServer(t, {
    args: [...args, '--admin-allowed-hosts', 'onecopy.internal'],
  })
  const name = 'onecopy.models.svc'
  t.is((await send(adminUrl, 'GET', '/metrics', { host: name })).status, 200)
  t.is((await send(adminUrl, 'POST', '/v2/repository/index', { host: name })).status, 200)
  const page = (host: string) =>
    send(adminUrl, 'POST', '/v2/repository/index', { host, origin: `http://${host}` })
  t.deepEqual(await page(name), REFUSED)
  t.is((await page('onecopy.internal')).status, 200)
  await stopCleanly(t, server)
})

test('a page cannot register shared memory on the public port unless its origin is allowed', async (t) => {
  const { server, url } = await startServer(t, {
    args: ['--workers', '1', '--system-shared-memory', 'on', '--cors-origin', 'https://app.example'],
  })
  const { host } = new URL(url)
  const unregister = (origin?: string) =>
    send(url, 'POST', '/v2/systemsharedmemory/unregister', { host, ...(origin && { origin }) })
  t.deepEqual(await unregister('https://evil.example'), REFUSED)
  t.is((await unregister('https://app.example')).status, 200)
  t.is((await unregister()).status, 200)
  await stopCleanly(t, server)
})

test('loopback addresses are those that only this machine can reach', (t) => {
  for (const host of ['127.0.0.1', '127.255.0.3', '::1', '[::1]', '0:0:0:0:0:0:0:1', '::ffff:127.0.0.1'])
    t.true(isLoopbackHost(host), host)
  for (const host of ['localhost', 'LOCALHOST.', 'a.localhost']) t.true(isLoopbackHost(host), host)
  for (const host of [
    '0.0.0.0',
    '::',
    '10.0.0.1',
    '127.0.0.1.evil.example',
    'localhost.evil.example',
    '::ffff:10.0.0.1',
    '::ffff:7f0:1',
    '',
  ])
    t.false(isLoopbackHost(host), host)
})
