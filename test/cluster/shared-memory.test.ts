/** Tensors in POSIX shared memory, with a server of several workers. */
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { addModel, ELEMENT, graph, modelBytes, node, value, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'
import { until } from '../helpers/waiting.js'

const SHM = '/dev/shm'
const ON = ['--system-shared-memory', 'on', '--log-level', 'debug']

const TEXTS = modelBytes(
  graph({
    input: [value('x', ELEMENT.string, ['n'])],
    output: [value('y', ELEMENT.string, ['n'])],
    node: [node('Identity', ['x'], ['y'])],
  }),
)

/** A name in /dev/shm that is removed after the test. */
function objectName(t: ExecutionContext): string {
  const folder = mkdtempSync(join(SHM, TEMPORARY_PREFIX))
  const name = `object-${basename(folder)}`
  rmSync(folder, { recursive: true })
  t.teardown(() => rmSync(join(SHM, name), { recursive: true, force: true }))
  return name
}

/** An object of the given size, filled with zeros. */
function makeObject(t: ExecutionContext, bytes: number): { key: string; path: string } {
  const name = objectName(t)
  writeFileSync(join(SHM, name), new Uint8Array(bytes))
  return { key: `/${name}`, path: join(SHM, name) }
}

class Client {
  readonly #url: string

  constructor(url: string) {
    this.#url = url
  }

  /** On a new connection, so that another worker answers. */
  async post(path: string, body: object | string): Promise<{ status: number; text: string }> {
    const response = await fetch(`${this.#url}/v2/${path}`, {
      method: 'POST',
      headers: { connection: 'close' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
    return { status: response.status, text: await response.text() }
  }

  register(region: string, body: object) {
    return this.post(`systemsharedmemory/region/${encodeURIComponent(region)}/register`, body)
  }

  async status(region?: string): Promise<unknown> {
    const path = region === undefined ? '' : `/region/${encodeURIComponent(region)}`
    const response = await fetch(`${this.#url}/v2/systemsharedmemory${path}/status`, {
      headers: { connection: 'close' },
    })
    return response.status === 200 ? await response.json() : response.status
  }

  /**
   * Two input numbers at the start of a region, two output numbers at byte 8, unless overridden.
   */
  add(region: string, input: object = {}, output: object = {}) {
    return this.post('models/add/infer', {
      inputs: [
        {
          name: 'x',
          shape: [1, 2],
          datatype: 'FP32',
          parameters: { shared_memory_region: region, shared_memory_byte_size: 8, ...input },
        },
      ],
      outputs: [
        {
          name: 'y',
          parameters: {
            shared_memory_region: region,
            shared_memory_byte_size: 8,
            shared_memory_offset: 8,
            ...output,
          },
        },
      ],
    })
  }
}

test('inputs and outputs in shared memory work with every worker and with its replacement', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '3', ...ON] })
  const client = new Client(url)
  const { key, path } = makeObject(t, 4096)
  t.deepEqual(await client.register('data', { key, offset: 64, byte_size: 16, unknown: 1 }), {
    status: 200,
    text: '',
  })
  const known = { name: 'data', key, offset: 64, byte_size: 16 }
  const ask = async (numbers: [number, number]) => {
    const file = readFileSync(path)
    file.set(new Uint8Array(Float32Array.from(numbers).buffer), 64)
    writeFileSync(path, file)
    const { status, text } = await client.add('data')
    t.is(status, 200, text)
    t.deepEqual(JSON.parse(text).outputs, [{ name: 'y', shape: [1, 2], datatype: 'FP32' }])
    const after = readFileSync(path)
    t.is(after.length, 4096)
    t.deepEqual([after.readFloatLE(72), after.readFloatLE(76)], [numbers[0] + 1, numbers[1] + 2])
  }
  for (let i = 0; i < 6; i++) {
    t.deepEqual(await client.status(), [known])
    t.deepEqual(await client.status('data'), [known])
    await ask([i, 10 * i])
  }
  const pids = () => server.log.filter((line) => line.msg === 'worker ready').map((line) => line.workerPid)
  process.kill(pids()[0] as number, 'SIGKILL')
  await until('a ready replacement', () => pids().length === 4)
  server.process.kill('SIGHUP')
  await server.logged((line) => line.msg === 'every worker was replaced')
  for (let i = 0; i < 6; i++) await ask([i, -i])

  t.is((await client.register('data', { key, offset: 0, byte_size: 8 })).status, 400, 'the name is taken')
  t.is((await client.register('a/ä "', { key, offset: 0, byte_size: 8 })).status, 200)
  t.is(((await client.status()) as unknown[]).length, 2)
  t.is((await client.post('systemsharedmemory/region/data/unregister', '')).status, 200)
  t.is((await client.post('systemsharedmemory/region/data/unregister', '')).status, 200)
  t.is(await client.status('data'), 404)
  t.is((await client.add('data')).status, 400)
  t.is((await client.post('systemsharedmemory/unregister', '')).status, 200)
  for (let i = 0; i < 4; i++) t.deepEqual(await client.status(), [])
  await stopCleanly(t, server)
  t.true(existsSync(path), 'the object belongs to the client')
})

test('a truncated object is a client error, and bounds of region, object and tensor are checked', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  writeModel(models, 'texts', TEXTS)
  const { server, url } = await startServer(t, {
    models,
    args: ['--workers', '1', '--max-body', '1KiB', ...ON],
  })
  const client = new Client(url)
  const { key, path } = makeObject(t, 4096)
  const refused = async (answer: Promise<{ status: number; text: string }>, says: RegExp, status = 400) => {
    const { status: got, text } = await answer
    t.is(got, status, text)
    t.regex((JSON.parse(text) as { error: string }).error, says)
  }
  await refused(client.register('r', { key, offset: 4096, byte_size: 1 }), /at least 4097 bytes/)
  await refused(client.register('r', { key, offset: 2 ** 53 - 1, byte_size: 2 ** 53 - 1 }), /too large/)
  for (const body of [
    { key },
    { key, byte_size: 0 },
    { key, byte_size: 1.5 },
    { key, byte_size: 8, offset: -1 },
  ])
    await refused(client.register('r', body), /byte_size|offset/)
  t.is((await client.register('r', { key, offset: 0, byte_size: 16 })).status, 200)
  t.is((await client.register('large', { key, offset: 0, byte_size: 4096 })).status, 200)
  t.is((await client.add('r')).status, 200)

  await refused(client.add('none'), /"none" is not registered/)
  await refused(client.add('r', { shared_memory_offset: 12 }), /has 16 bytes/)
  await refused(client.add('r', {}, { shared_memory_offset: 12 }), /has 16 bytes/)
  await refused(client.add('r', {}, { shared_memory_byte_size: 4 }), /"y".*at least 8/)
  await refused(client.add('r', { shared_memory_byte_size: 12 }), /"x".*8 bytes.*12/)

  // Texts have no fixed size, so the body limit applies to them too.
  const texts = (bytes: number) =>
    client.post('models/texts/infer', {
      inputs: [
        {
          name: 'x',
          shape: [1],
          datatype: 'BYTES',
          parameters: { shared_memory_region: 'large', shared_memory_byte_size: bytes },
        },
      ],
    })
  writeFileSync(path, Buffer.concat([Buffer.from('\x02\0\0\0hi'), Buffer.alloc(4090)]))
  t.deepEqual(JSON.parse((await texts(6)).text).outputs[0].data, ['hi'])
  await refused(texts(7), /left over/)
  writeFileSync(path, Buffer.concat([Buffer.from('\x03\0\0\0h\0i'), Buffer.alloc(4089)]))
  await refused(texts(7), /"x".*element 0: a NUL at character 1/)
  await refused(texts(2000), /at most \d+ bytes/, 413)

  for (const bytes of [12, 0]) {
    truncateSync(path, bytes)
    await refused(client.add('r'), /at least (8|16) bytes, the object has/)
  }
  rmSync(path)
  await refused(client.add('r'), /no such shared memory object/)
  t.is(server.log.filter((line) => line.msg === 'worker ready').length, 1, 'no worker died')
  await stopCleanly(t, server)
})

test('keys refer to shared memory objects only, and never to segments', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '1', ...ON] })
  const client = new Client(url)
  const [folder = ''] = readdirSync(server.segmentDir)
  const segment = join(server.segmentDir, folder, 'add@1', 'model.segment')
  const relative = segment.slice(SHM.length)
  const link = objectName(t)
  symlinkSync(segment, join(SHM, link))
  const hardLink = objectName(t)
  linkSync(segment, join(SHM, hardLink))
  const directory = objectName(t)
  mkdirSync(join(SHM, directory))
  const pipe = objectName(t)
  spawnSync('mkfifo', [join(SHM, pipe)])
  const own = `onecopy-${objectName(t)}`
  const semaphore = `sem.${objectName(t)}`
  for (const name of [own, semaphore]) {
    writeFileSync(join(SHM, name), new Uint8Array(64))
    t.teardown(() => rmSync(join(SHM, name), { force: true }))
  }
  const keys = [
    ...['', '/', '.', '..', '/..', 'a/b', '//a', '../etc/passwd', 'a\0b', 'x'.repeat(256)],
    ...[
      relative,
      segment,
      `.${relative}`,
      link,
      hardLink,
      directory,
      pipe,
      own,
      `/${semaphore}`,
      'no-such-object',
    ],
  ]
  for (const key of keys) {
    const { status, text } = await client.register('r', { key, offset: 0, byte_size: 8 })
    t.is(status, 400, `${key}: ${text}`)
  }
  rmSync(join(SHM, hardLink))
  t.deepEqual(await client.status(), [])
  t.is((await client.register('r', { key: 5, byte_size: 8 })).status, 400)

  // A registered object that was replaced is opened again.
  const { key, path } = makeObject(t, 64)
  t.is((await client.register('r', { key, offset: 0, byte_size: 16 })).status, 200)
  rmSync(path)
  symlinkSync(segment, path)
  t.is((await client.add('r')).status, 400)
  await stopCleanly(t, server)
})

test('of many concurrent registrations of a name, one succeeds', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '3', ...ON] })
  const client = new Client(url)
  const { key } = makeObject(t, 4096)
  const answers = await Promise.all(
    Array.from({ length: 24 }, (_, i) => client.register('r', { key, offset: i, byte_size: 8 })),
  )
  t.is(answers.filter(({ status }) => status === 200).length, 1)
  t.is(((await client.status()) as unknown[]).length, 1)
  await stopCleanly(t, server)
})

test('without the option the extension does not exist', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  const client = new Client(url)
  const { key } = makeObject(t, 64)
  t.is((await client.register('r', { key, offset: 0, byte_size: 16 })).status, 404)
  t.is(await client.status(), 404)
  const { status, text } = await client.add('r')
  t.is(status, 400)
  t.regex(text, /--system-shared-memory/)
  await stopCleanly(t, server)
})
