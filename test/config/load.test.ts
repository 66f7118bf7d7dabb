import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { environmentName, loadConfig } from '../../src/config/load.js'
import { OnecopyError } from '../../src/errors.js'
import { formatBytes, parseBytes, parseDurationMs } from '../../src/units.js'
import { temporaryFolder } from '../helpers/server.js'

test('flags win over the environment, which wins over the file, which wins over defaults', (t) => {
  const path = join(temporaryFolder(t), 'config.json')
  writeFileSync(path, JSON.stringify({ port: 1, workers: 1, drainTimeout: '1s' }))
  const config = loadConfig(['--config', path, '--port', '3'], { ONECOPY_PORT: '2', ONECOPY_WORKERS: '2' })
  t.is(config.port, 3)
  t.is(config.workers, 2)
  t.is(config.drainTimeoutMs, 1000)
  t.is(config.adminPort, 9090)
  t.true(Object.isFrozen(config))
})

test('the admin port listens on loopback, regardless of --host', (t) => {
  t.is(loadConfig(['--host', '0.0.0.0'], {}).adminHost, '127.0.0.1')
  for (const host of ['127.0.0.1', '127.8.9.1', '::1', '[::1]', 'localhost', '::ffff:127.0.0.1'])
    t.is(loadConfig(['--admin-host', host], {}).adminHost, host.replace(/[[\]]/g, ''))
})

test('a host is an address or a name, without a port or a scheme', (t) => {
  for (const flag of ['--host', '--admin-host', '--admin-allowed-hosts'])
    for (const host of [
      'localhost:8080',
      '[::1]:8080',
      '[localhost]',
      'http://localhost',
      '1.2.3.4:80',
      'a b',
    ])
      t.throws(() => loadConfig([flag, host], {}), { message: /expected an address .* without a port/ }, host)
  t.is(loadConfig(['--host', '[fe80::1%eth0]'], {}).host, 'fe80::1%eth0')
})

test('spaces around the names of a list do not belong to them', (t) => {
  t.deepEqual(loadConfig(['--load-model', ' a, b ,,c'], {}).loadModels, ['a', 'b', 'c'])
  t.deepEqual(loadConfig(['--admin-allowed-hosts', 'a.example, [::1]'], {}).adminAllowedHosts, [
    'a.example',
    '::1',
  ])
  t.deepEqual(loadConfig(['--cors-origin', 'https://a.example, *'], {}).corsOrigins, [
    'https://a.example',
    '*',
  ])
})

test('a public admin address needs keys, client certificates, or an explicit option', (t) => {
  for (const host of [
    '0.0.0.0',
    '::',
    '192.168.1.4',
    'onecopy.example',
    '::ffff:10.0.0.1',
    '127.example.org',
  ]) {
    const flags = ['--admin-host', host]
    t.throws(() => loadConfig(flags, {}), { message: /--admin-insecure/ }, host)
    t.is(loadConfig([...flags, '--admin-insecure', 'on'], {}).adminHost, host)
    t.is(loadConfig([...flags, '--admin-token', 'a'.repeat(16)], {}).adminHost, host)
    t.is(loadConfig([...flags, '--api-keys-file', 'keys'], {}).adminHost, host)
  }
})

test('the default response limit is twice the body limit', (t) => {
  t.is(loadConfig([], {}).maxResponseBytes, 128 * 1024 * 1024)
  t.is(loadConfig(['--max-body', '1MiB'], {}).maxResponseBytes, 2 * 1024 * 1024)
  t.is(loadConfig(['--max-body', '1MiB', '--max-response', '7KiB'], {}).maxResponseBytes, 7 * 1024)
  t.throws(() => loadConfig(['--max-response', '0'], {}), { message: /--max-response: .*such as 64KiB/ })
})

test('the default limit of incomplete messages is eight times the body limit, and it is at least twice', (t) => {
  t.is(loadConfig([], {}).maxReceivingBytes, 512 * 1024 * 1024)
  t.is(loadConfig(['--max-body', '1MiB', '--max-receiving', '2MiB'], {}).maxReceivingBytes, 2 * 1024 * 1024)
  t.throws(() => loadConfig(['--max-receiving', '64MiB'], {}), {
    message: /--max-receiving: expected at least 134217728 bytes, twice --max-body, got 67108864/,
  })
})

test('one error lists every invalid value with its source', (t) => {
  const error = t.throws(
    () => loadConfig(['--port', 'x', '--drain-timeout', '30'], { ONECOPY_WORKERS: '0' }),
    {
      instanceOf: OnecopyError,
    },
  )
  t.is(error?.code, 'CONFIG_INVALID')
  for (const part of ['--port', '"x"', '--drain-timeout', '"30"', 'ONECOPY_WORKERS', '"0"']) {
    t.true(error?.message.includes(part), `${part} in ${error?.message}`)
  }
})

test('unknown flags and unknown keys in the file are rejected', (t) => {
  t.throws(() => loadConfig(['--prot', '1'], {}), { message: /--prot/ })
  const path = join(temporaryFolder(t), 'config.json')
  writeFileSync(path, '{"prot": 1}')
  t.throws(() => loadConfig(['--config', path], {}), { message: /unknown keys prot/ })
  writeFileSync(path, '[]')
  t.throws(() => loadConfig(['--config', path], {}), { message: /expected a JSON object/ })
})

test('switches need no value, list flags can be repeated, and rates need a unit of time', (t) => {
  const config = loadConfig(
    [
      '--access-log',
      '--cors-origin',
      'https://a.example',
      '--cors-origin',
      'http://b:1,*',
      '--rate-limit',
      '5/2s',
    ],
    { ONECOPY_SERVER_TIMING: 'on' },
  )
  t.true(config.isAccessLogOn)
  t.true(config.isServerTimingOn)
  t.deepEqual(config.corsOrigins, ['https://a.example', 'http://b:1', '*'])
  t.deepEqual(config.rateLimit, { requests: 5, windowMs: 2000 })
  t.deepEqual(loadConfig(['--rate-limit', '5/m'], {}).rateLimit, { requests: 5, windowMs: 60_000 })
  t.is(loadConfig([], {}).rateLimit, null)
  t.false(loadConfig(['--no-access-log'], { ONECOPY_ACCESS_LOG: 'on' }).isAccessLogOn)
  const path = join(temporaryFolder(t), 'config.json')
  writeFileSync(path, JSON.stringify({ accessLog: true, corsOrigin: ['https://a.example'], rateLimit: 0 }))
  const fromFile = loadConfig(['--config', path], {})
  t.true(fromFile.isAccessLogOn)
  t.deepEqual([fromFile.corsOrigins, fromFile.rateLimit], [['https://a.example'], null])
  for (const wrong of [
    ['--rate-limit', '5'],
    ['--rate-limit', '0/1s'],
    ['--rate-limit', '5/0s'],
    ['--cors-origin', 'https://a.example/'],
    ['--cors-origin', 'a.example'],
    ['--otlp-endpoint', 'localhost:4318'],
    ['--trusted-proxies', '-1'],
    ['--tls-ca', 'x'],
    ['--tls-cert', 'x', '--tls-key', 'y', '--admin-tls', 'mutual'],
  ])
    t.throws(() => loadConfig(wrong, {}), { instanceOf: OnecopyError }, wrong.join(' '))
})

test('every option has an environment variable that matches its flag', (t) => {
  t.is(environmentName('drainTimeout'), 'ONECOPY_DRAIN_TIMEOUT')
})

test('an unknown option or file key gets a suggestion', (t) => {
  t.throws(() => loadConfig(['--model', 'x'], {}), {
    message: /unknown option --model \(did you mean --models\?\)/,
  })
  t.throws(() => loadConfig(['--prot=1'], {}), { message: /did you mean --port\?/ })
  t.throws(() => loadConfig(['--entirely-different'], {}), {
    message: /^unknown option --entirely-different \(see/,
  })
})

test('durations and sizes require valid units', (t) => {
  t.is(parseDurationMs('500ms'), 500)
  t.is(parseDurationMs('1.5s'), 1500)
  t.is(parseDurationMs('2m'), 120_000)
  for (const text of ['', '30', 's', '-1s', '1 s', '1d']) t.is(parseDurationMs(text), null, text)
  t.is(parseBytes('64KiB'), 65_536)
  t.is(parseBytes('1048576'), 1_048_576)
  for (const text of ['', 'KiB', '-1', '1 MiB', '1MB']) t.is(parseBytes(text), null, text)
  t.is(formatBytes(201_326_592), '201.3 MB')
})
