/** Keys and certificates are renewed while real clients are connected to several workers. */
import { chmodSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { Agent } from 'node:https'
import { join } from 'node:path'
import { type ConnectionOptions, connect } from 'node:tls'
import test, { type ExecutionContext } from 'ava'
import { createKey, formatKey, type Scope } from '../../../src/access/api-keys.js'
import { ask, type Certificate, makeCertificate } from '../../helpers/certificates.js'
import { RawClient } from '../../helpers/raw-client.js'
import {
  runCommand,
  type ServerUnderTest,
  spawnServer,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { until, untilSome } from '../../helpers/waiting.js'

const WORKERS = 2
/** Each goes to the next worker in turn, so every worker gets more than one. */
const ROUND = Array.from({ length: 3 * WORKERS }, (_, i) => i)

function newKey(name: string, scopes: readonly Scope[]) {
  const { key, entry } = createKey({ name, scopes })
  return { headers: { authorization: `Bearer ${key}` }, line: formatKey(entry) }
}

/** Like a secret mounted by an orchestrator: `NAME` links to `..data/NAME`, and `..data` is replaced. */
class MountedSecret {
  readonly folder: string
  #generation = 0

  constructor(folder: string, files: Record<string, string>) {
    this.folder = folder
    this.replace(files)
    for (const name of Object.keys(files)) symlinkSync(join('..data', name), this.path(name))
  }

  path(name: string): string {
    return join(this.folder, name)
  }

  replace(files: Record<string, string>): void {
    const generation = `..generation-${++this.#generation}`
    mkdirSync(this.path(generation))
    for (const [name, text] of Object.entries(files))
      writeFileSync(join(this.folder, generation, name), text, { mode: 0o600 })
    symlinkSync(generation, this.path('..data-new'))
    renameSync(this.path('..data-new'), this.path('..data'))
  }
}

function tlsFiles({ cert, key }: Certificate): Record<string, string> {
  return { 'tls.crt': cert, 'tls.key': key }
}

async function statuses(url: string, headers: Record<string, string>): Promise<number[]> {
  return await Promise.all(ROUND.map(async () => (await ask(`${url}/v2/models`, { headers })).status))
}

function everyWorker(status: number): number[] {
  return ROUND.map(() => status)
}

async function startWithTls(t: ExecutionContext, mounted: MountedSecret, args: readonly string[] = []) {
  const server = spawnServer(t, {
    args: [
      ...['--workers', String(WORKERS), '--log-level', 'debug'],
      ...['--tls-cert', mounted.path('tls.crt'), '--tls-key', mounted.path('tls.key'), ...args],
    ],
  })
  const { url, adminUrl } = await server.ready()
  return { server, url: url.replace('http:', 'https:'), adminUrl }
}

/** A session issued by the server. */
function sessionOf(url: string, options: ConnectionOptions): Promise<Buffer> {
  const { port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port: Number(port), ...options })
    socket.on('error', reject).on('session', (session) => {
      resolve(session)
      socket.destroy()
    })
    socket.write('GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n')
  })
}

async function serials(url: string, ca: readonly string[]): Promise<Set<string | undefined>> {
  const answers = await Promise.all(ROUND.map(() => ask(`${url}/v2/health/live`, { ca: [...ca] })))
  return new Set(answers.map(({ serial }) => serial))
}

function workerPids(server: ServerUnderTest): number[] {
  return server.log.filter(({ msg }) => msg === 'worker ready').map(({ workerPid }) => workerPid as number)
}

test.serial('every worker applies a renewed certificate without losing a connection', async (t) => {
  const [first, second] = [await makeCertificate(), await makeCertificate({ days: 5 })]
  const mounted = new MountedSecret(temporaryFolder(t), tlsFiles(first))
  const { server, url, adminUrl } = await startWithTls(t, mounted)
  await until('the readable address line', () => /inference on https:.*probes on http:/.test(server.stdout))
  const ca = [first.cert, second.cert]
  const before = await serials(url, ca)
  t.is(before.size, 1)
  const expiry = async () =>
    Number(/expiry_timestamp_seconds (\d+)/.exec((await ask(`${adminUrl}/metrics`)).body)?.[1])
  t.true(Math.abs((await expiry()) * 1000 - Date.now() - 2 * 86_400_000) < 3_600_000)

  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const kept = () => ask(`${url}/v2/health/live`, { ca, agent })
  t.is((await kept()).status, 200)
  const lost: unknown[] = []
  let isOver = false
  t.teardown(() => {
    isOver = true
  })
  const load = (async () => {
    while (!isOver)
      await ask(`${url}/v2/models`, { ca }).then(
        ({ status }) => status === 200 || lost.push(status),
        (thrown) => lost.push(thrown),
      )
  })()

  mounted.replace(tlsFiles(second))
  await until('the new certificate at every worker', async () => {
    const now = await serials(url, ca)
    return now.size === 1 && !now.has([...before][0])
  })
  isOver = true
  await load
  t.deepEqual(lost, [])
  t.is((await kept()).serial, [...before][0], 'the existing connection stays open')
  await until('the new expiry', async () => (await expiry()) * 1000 > Date.now() + 4 * 86_400_000)
  t.is(server.log.filter(({ msg }) => /^renewed/.test(msg)).length, 1)
  t.is(workerPids(server).length, WORKERS, 'no worker was replaced')
  await stopCleanly(t, server)
})

test.serial('an invalid renewed file is logged once and changes nothing, also for new workers', async (t) => {
  const [good, other] = [await makeCertificate(), await makeCertificate()]
  const mounted = new MountedSecret(temporaryFolder(t), tlsFiles(good))
  const { server, url } = await startWithTls(t, mounted)
  const ca = [good.cert, other.cert]
  const before = await serials(url, ca)
  mounted.replace({ 'tls.crt': other.cert, 'tls.key': good.key })
  const line = await server.logged(({ msg, level }) => level === 'error' && /not renewed/.test(msg))
  t.regex(String(line.reason), /matching PEM files/)
  t.deepEqual(await serials(url, ca), before)

  process.kill(workerPids(server)[0] as number, 'SIGKILL')
  await until('a replacement', () => workerPids(server).length === WORKERS + 1)
  t.deepEqual(await serials(url, ca), before)
  t.is(server.log.filter(({ msg }) => /not renewed/.test(msg)).length, 1)

  mounted.replace(tlsFiles(other))
  await until('the valid file', async () => {
    const now = await serials(url, ca)
    return now.size === 1 && !now.has([...before][0])
  })
  await stopCleanly(t, server)
})

test.serial('TLS older than 1.2 is rejected, and plain clients do not affect others', async (t) => {
  const certificate = await makeCertificate()
  const mounted = new MountedSecret(temporaryFolder(t), tlsFiles(certificate))
  const { server, url } = await startWithTls(t, mounted, ['--headers-timeout', '500ms'])
  const { port } = new URL(url)
  const protocolOf = (maxVersion: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') =>
    new Promise<string | null>((resolve, reject) => {
      const socket = connect(
        {
          host: '127.0.0.1',
          port: Number(port),
          ca: certificate.cert,
          minVersion: 'TLSv1',
          maxVersion,
          ciphers: 'DEFAULT@SECLEVEL=0',
        },
        () => {
          resolve(socket.getProtocol())
          socket.destroy()
        },
      ).on('error', reject)
    })
  t.is(await protocolOf('TLSv1.3'), 'TLSv1.3')
  t.is(await protocolOf('TLSv1.2'), 'TLSv1.2')
  await t.throwsAsync(protocolOf('TLSv1.1'))

  const plain = url.replace('https:', 'http:')
  for (const bytes of ['', 'GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n', '\x16\x03\x01']) {
    const client = await RawClient.connect(plain, bytes)
    await client.closed
    t.notRegex(client.text, /HTTP\/1.1 200/, 'closed within the handshake timeout')
  }
  // A client that is silent after the handshake is disconnected, as in plain HTTP.
  const silent = await new Promise<string>((resolve, reject) => {
    let text = ''
    connect({ host: '127.0.0.1', port: Number(port), ca: certificate.cert })
      .on('data', (bytes) => {
        text += bytes
      })
      .on('error', reject)
      .on('close', () => resolve(text))
  })
  t.is(silent, '')
  t.is((await ask(`${url}/v2/health/live`, { ca: certificate.cert })).status, 200)
  t.false(server.log.some(({ level }) => ['warn', 'error', 'fatal'].includes(level)))
  await stopCleanly(t, server)
})

test.serial(
  'with a client CA, clients need a certificate, and on the admin port only if configured',
  async (t) => {
    const authority = await makeCertificate({ name: 'clients', isCa: true })
    const client = await makeCertificate({ name: 'client', issuer: authority })
    const stranger = await makeCertificate({ name: 'stranger' })
    const certificate = await makeCertificate()
    const mounted = new MountedSecret(temporaryFolder(t), {
      ...tlsFiles(certificate),
      'ca.crt': authority.cert,
    })
    const { server, url, adminUrl } = await startWithTls(t, mounted, [
      '--tls-ca',
      mounted.path('ca.crt'),
      '--admin-tls',
      'on',
    ])
    const ca = certificate.cert
    t.is((await ask(`${url}/v2/models`, { ca, ...client })).status, 200)
    await t.throwsAsync(ask(`${url}/v2/models`, { ca }))
    await t.throwsAsync(ask(`${url}/v2/models`, { ca, ...stranger }))
    t.is((await ask(`${adminUrl.replace('http:', 'https:')}/v2/health/ready`, { ca })).status, 200)
    await t.throwsAsync(ask(`${adminUrl}/v2/health/ready`), undefined, 'not in plain HTTP')
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const session = await sessionOf(adminUrl, { ca, maxVersion })
      await t.throwsAsync(
        ask(`${url}/v2/models`, { ca, maxVersion, session }),
        undefined,
        'a session does not replace a certificate',
      )
      const own = await sessionOf(url, { ca, maxVersion, ...client })
      const resumed = await Promise.all(
        ROUND.map(() => ask(`${url}/v2/models`, { ca, maxVersion, session: own, ...client })),
      )
      t.true(resumed.every(({ status }) => status === 200))
      t.true(
        resumed.every(({ isResumed }) => isResumed),
        'every worker resumes a session',
      )
    }
    await stopCleanly(t, server)
  },
)

test.serial('every worker and the admin port apply changed keys', async (t) => {
  const [alice, bob, admin] = [
    newKey('alice', ['infer']),
    newKey('bob', ['infer']),
    newKey('admin', ['admin', 'metrics']),
  ]
  const mounted = new MountedSecret(temporaryFolder(t), { keys: `# clients\n${alice.line}\n` })
  const { server, url, adminUrl } = await startServer(t, {
    args: ['--workers', String(WORKERS), '--log-level', 'debug', '--api-keys-file', mounted.path('keys')],
    env: { ONECOPY_API_KEYS: admin.line },
  })
  t.deepEqual(await statuses(url, alice.headers), everyWorker(200))
  t.deepEqual(await statuses(url, bob.headers), everyWorker(401))
  mounted.replace({ keys: bob.line })
  await until('bob everywhere', async () =>
    (await statuses(url, bob.headers)).every((status) => status === 200),
  )
  t.deepEqual(await statuses(url, alice.headers), everyWorker(401))

  mounted.replace({ keys: 'alice:not-a-digest:infer' })
  const line = await server.logged(({ msg, level }) => level === 'error' && /not renewed/.test(msg))
  t.regex(String(line.reason), /entry 1: expected a SHA-256/)
  t.notRegex(String(line.reason), /not-a-digest/)
  process.kill(workerPids(server)[0] as number, 'SIGKILL')
  await until('a replacement', () => workerPids(server).length === WORKERS + 1)
  t.deepEqual(await statuses(url, bob.headers), everyWorker(200))

  mounted.replace({ keys: '' })
  await until('both keys to be rejected', async () =>
    (await statuses(url, bob.headers)).every((status) => status === 401),
  )
  t.deepEqual(await statuses(url, {}), everyWorker(401), 'no keys does not mean open access')
  t.is((await ask(`${adminUrl}/metrics`)).status, 401)
  t.is((await ask(`${adminUrl}/metrics`, { headers: bob.headers })).status, 401)
  t.is((await ask(`${adminUrl}/metrics`, { headers: admin.headers })).status, 200)
  await stopCleanly(t, server)
})

test.serial('SIGHUP reloads the keys, also in the replacement workers', async (t) => {
  const [alice, bob] = [newKey('alice', ['infer']), newKey('bob', ['infer'])]
  const path = join(temporaryFolder(t), 'keys')
  writeFileSync(path, alice.line, { mode: 0o600 })
  const { server, url } = await startServer(t, {
    args: ['--workers', String(WORKERS), '--api-keys-file', path],
  })
  writeFileSync(path, bob.line)
  server.process.kill('SIGHUP')
  await server.logged(({ msg }) => msg === 'every worker was replaced')
  t.deepEqual(await statuses(url, bob.headers), everyWorker(200))
  t.deepEqual(await statuses(url, alice.headers), everyWorker(401))
  await stopCleanly(t, server)
})

test.serial('insecure or unreadable files fail the start with the reason', async (t) => {
  const folder = temporaryFolder(t)
  const file = (name: string, text: string, mode = 0o600) => {
    writeFileSync(join(folder, name), text)
    chmodSync(join(folder, name), mode)
    return join(folder, name)
  }
  const { cert, key } = await makeCertificate()
  const other = await makeCertificate()
  const [certPath, keyPath] = [file('cert', cert), file('key', key)]
  for (const [args, says] of [
    [
      ['--api-keys-file', file('writable', newKey('a', ['infer']).line, 0o622)],
      /writable only by its owner.*0622/,
    ],
    [['--api-keys-file', join(folder, 'none')], /ENOENT/],
    [['--api-keys-file', folder], /regular file/],
    [['--api-keys', 'a:b'], /entry 1: expected NAME:SHA256:SCOPES/],
    [['--tls-cert', certPath], /--tls-cert and --tls-key/],
    [['--tls-cert', certPath, '--tls-key', file('other', other.key)], /matching PEM files/],
    [['--tls-cert', file('empty', ''), '--tls-key', keyPath], /matching PEM files/],
    [['--tls-cert', certPath, '--tls-key', keyPath, '--tls-ca', file('no-ca', 'x')], /matching PEM files/],
    [['--admin-tls', 'on'], /--tls-cert/],
  ] as const) {
    const server = spawnServer(t, { args })
    t.not((await server.exited).code, 0)
    t.regex(server.stderr, says)
    t.regex(server.stderr, /CONFIG_INVALID/)
    t.deepEqual(server.segments(), [])
  }
})

test.serial('onecopy key creates a key that the server accepts, and stores nothing', async (t) => {
  const { code, stdout, stderr } = runCommand(['key', 'alice', '--scopes', 'infer,metrics'])
  t.is(code, 0)
  const key = stdout.trim()
  t.regex(key, /^onecopy_[\w-]{43}$/)
  t.regex(stderr, /^alice:[0-9a-f]{64}:infer,metrics\n$/)
  t.false(stderr.includes(key.slice(8)))
  const { server, url, adminUrl } = await startServer(t, {
    args: ['--workers', '1'],
    env: { ONECOPY_API_KEYS: stderr.trim() },
  })
  t.is((await ask(`${url}/v2/models`, { headers: { 'x-api-key': key } })).status, 200)
  t.is((await ask(`${adminUrl}/metrics`, { headers: { authorization: `bearer ${key}` } })).status, 200)
  await stopCleanly(t, server)
  for (const wrong of [['key'], ['key', 'a', 'b'], ['key', 'a:b'], ['key', 'a', '--scopes', 'root']]) {
    const refused = runCommand(wrong)
    t.is(refused.code, 2)
    t.is(refused.stdout, '')
  }
})

test.serial('a limit applies over all workers, and a dead worker leaves no requests in flight', async (t) => {
  const { server, url } = await startServer(t, {
    args: [
      '--workers',
      String(WORKERS),
      '--log-level',
      'debug',
      '--rate-limit',
      '20/1h',
      '--trusted-proxies',
      '1',
    ],
  })
  const as = (address: string) =>
    ask(`${url}/v2/models`, { headers: { 'x-forwarded-for': `1.1.1.1, ${address}` } })
  const got = await untilSome('all answers', async () => {
    const answers = await Promise.all(Array.from({ length: 40 }, () => as('10.0.0.1')))
    return answers.map(({ status }) => status)
  })
  const admitted = got.filter((status) => status === 200).length
  t.true(admitted >= 20 && admitted < 20 + WORKERS, `${admitted}`)
  process.kill(workerPids(server)[0] as number, 'SIGKILL')
  await until('a replacement', () => workerPids(server).length === WORKERS + 1)
  for (const _ of ROUND) {
    const refused = await as('10.0.0.1')
    t.is(refused.status, 429, 'requests accepted by a dead worker still count')
    t.true(Number(refused.headers['retry-after']) > 60)
  }
  t.is((await as('10.0.0.2')).status, 200, 'another client has a separate limit')
  t.is((await ask(`${url}/v2/health/live`)).status, 200)
  await stopCleanly(t, server)
})
