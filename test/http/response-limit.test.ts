/** Responses that are too large, from the real server. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { readProcessMemory } from '../../src/process/memory.js'
import { makeBundle } from '../ersilia/helpers.js'
import {
  addModel,
  ELEMENT,
  floats,
  graph,
  modelBytes,
  node,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'
import { until } from '../helpers/waiting.js'

const MIB = 1024 * 1024

/** As many zeros as requested. */
const FILL = modelBytes(
  graph({
    input: [value('shape', ELEMENT.int64, ['r'])],
    output: [value('y', ELEMENT.float, null)],
    node: [node('ConstantOfShape', ['shape'], ['y'])],
  }),
)

/** `long` is many times as long as its row; rows are independent. */
const WIDE = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, ['batch', 1])],
    output: [value('long', ELEMENT.float, ['batch', 1000])],
    node: [node('Add', ['x', 'ramp'], ['long'])],
    initializer: [
      floats(
        'ramp',
        [1000],
        Array.from({ length: 1000 }, (_, i) => i / 7),
      ),
    ],
  }),
)

const TEXTS = modelBytes(
  graph({
    input: [value('x', ELEMENT.string, ['n']), value('shape', ELEMENT.int64, ['r'])],
    output: [value('y', ELEMENT.string, null)],
    node: [node('Expand', ['x', 'shape'], ['y'])],
  }),
)

function serve(t: ExecutionContext, args: readonly string[]): Promise<RunningServer> {
  const models = writeModel(temporaryFolder(t), 'fill', FILL)
  writeModel(models, 'wide', WIDE)
  writeModel(models, 'texts', TEXTS)
  writeModel(models, 'add', addModel())
  return startServer(t, { models, args: ['--workers', '1', ...args] })
}

function ask(
  url: string,
  model: string,
  request: object,
  headers: Record<string, string> = {},
): Promise<Response> {
  const body = JSON.stringify(request)
  return fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body, headers })
}

function fill(count: number, more: object = {}): object {
  return { inputs: [{ name: 'shape', shape: [1], datatype: 'INT64', data: [count] }], ...more }
}

async function workerPid(adminUrl: string, pid: number): Promise<number> {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean)
  for (const child of children)
    if (readFileSync(`/proc/${child}/cmdline`, 'latin1').includes('worker')) return Number(child)
  throw new Error(`expected a worker behind ${adminUrl}`)
}

async function isRefused(t: ExecutionContext, response: Response, sizes: RegExp): Promise<void> {
  t.is(response.status, 400)
  t.is(response.headers.get('X-Error-Code'), 'RESPONSE_TOO_LARGE')
  t.is(response.headers.get('Retry-After'), null)
  t.regex(((await response.json()) as { error: string }).error, sizes)
}

test('a response above --max-response is rejected with both sizes, in every form, and counts as one failure', async (t) => {
  const { server, url, adminUrl } = await serve(t, ['--max-response', '1MiB'])
  // Two bytes per element as JSON, four as binary: known before anything is encoded.
  await isRefused(
    t,
    await ask(url, 'fill', fill(1_000_000)),
    /at most 1048576 bytes \(--max-response\), got at least 1999999: output "y" is FP32 \[1000000\]/,
  )
  const binary = { parameters: { binary_data_output: true } }
  await isRefused(t, await ask(url, 'fill', fill(300_000, binary)), /got at least 1199999/)
  await isRefused(
    t,
    await ask(url, 'fill', fill(1_000_000), { 'Accept-Encoding': 'gzip' }),
    /got at least 1999999/,
  )
  // Numbers with many digits: detected during encoding.
  const rows = { name: 'x', shape: [200, 1], datatype: 'FP32', data: new Array(200).fill(0.1) }
  await isRefused(
    t,
    await ask(url, 'wide', { inputs: [rows] }),
    /at most 1048576 .*got at least \d{7}: output "long" is FP32 \[200, 1000\]/,
  )
  const texts = (count: number, text: string) => ({
    inputs: [
      { name: 'x', shape: [1], datatype: 'BYTES', data: [text] },
      { name: 'shape', shape: [1], datatype: 'INT64', data: [count] },
    ],
  })
  await isRefused(t, await ask(url, 'texts', texts(20, 'é'.repeat(50_000))), /got at least/)
  await isRefused(t, await ask(url, 'texts', { ...texts(20, 'é'.repeat(50_000)), ...binary }), /got at least/)
  const raw = await fetch(`${url}/v2/models/fill/infer`, {
    method: 'POST',
    headers: { 'Inference-Header-Content-Length': '0' },
    body: new Uint8Array(BigInt64Array.from([300_000n]).buffer),
  })
  await isRefused(t, raw, /got at least 1199999/)

  // Responses up to the limit are sent, exact to the byte.
  for (const [count, more] of [
    [500_000, {}],
    [260_000, binary],
  ] as const) {
    const response = await ask(url, 'fill', fill(count, more), { 'Accept-Encoding': 'identity' })
    t.is(response.status, 200)
    t.is((await response.arrayBuffer()).byteLength, Number(response.headers.get('Content-Length')))
  }
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  t.regex(metrics, /onecopy_requests_total\{model="fill",version="1",outcome="client_error"\} 4/)
  t.regex(metrics, /onecopy_requests_total\{model="wide",version="1",outcome="client_error"\} 1/)
  t.notRegex(metrics, /outcome="server_error"/)
  await stopCleanly(t, server)
})

test('the limit does not apply to classes of a large output and to outputs in shared memory', async (t) => {
  const { server, url } = await serve(t, ['--max-response', '64KiB', '--system-shared-memory', 'on'])
  const classes = { outputs: [{ name: 'y', parameters: { classification: 2 } }] }
  t.is((await ask(url, 'fill', fill(1_000_000, classes))).status, 200)

  const probe = mkdtempSync(join('/dev/shm', TEMPORARY_PREFIX))
  rmSync(probe, { recursive: true })
  const name = `object-${basename(probe)}`
  t.teardown(() => rmSync(join('/dev/shm', name), { force: true }))
  writeFileSync(join('/dev/shm', name), new Uint8Array(4_000_000))
  const register = await fetch(`${url}/v2/systemsharedmemory/region/out/register`, {
    method: 'POST',
    body: JSON.stringify({ key: `/${name}`, offset: 0, byte_size: 4_000_000 }),
  })
  t.is(register.status, 200)
  const place = { shared_memory_region: 'out', shared_memory_byte_size: 4_000_000 }
  t.is((await ask(url, 'fill', fill(1_000_000, { outputs: [{ name: 'y', parameters: place }] }))).status, 200)
  await stopCleanly(t, server)
})

test('a worker releases the memory of large responses, rejected or not', async (t) => {
  const { server, url, adminUrl } = await serve(t, ['--max-response', '64MiB'])
  const pid = await workerPid(adminUrl, server.process.pid as number)
  const privateBytes = async () => (await readProcessMemory(pid))?.privateBytes ?? 0
  await (await ask(url, 'fill', fill(10))).arrayBuffer()
  const before = await privateBytes()
  for (const [count, status] of [
    [100_000_000, 400],
    [30_000_000, 200],
    [100_000_000, 400],
  ] as const) {
    const response = await ask(url, 'fill', fill(count))
    t.is(response.status, status)
    await response.arrayBuffer()
  }
  // The worker processed 400 MB of numbers and 60 MB of text.
  await until(
    'the worker to be almost as small as before',
    async () => (await privateBytes()) < before + 48 * MIB,
  )
  t.is(await workerPid(adminUrl, server.process.pid as number), pid)
  await stopCleanly(t, server)
})

test('an allocation failure in the runtime fails the request and not the worker', async (t) => {
  const { server, url, adminUrl } = await serve(t, [])
  const pid = await workerPid(adminUrl, server.process.pid as number)
  for (const count of [1e12, 1e15, 4e18]) {
    const response = await ask(url, 'fill', fill(count))
    t.is(response.status, 500)
    t.is(response.headers.get('X-Error-Code'), 'MODEL_RUN_FAILED')
    t.regex(((await response.json()) as { error: string }).error, /memory/)
  }
  t.is((await ask(url, 'fill', fill(10))).status, 200)
  t.is(await workerPid(adminUrl, server.process.pid as number), pid)
  // A worker cannot allocate more than the machine has: otherwise the kernel would kill a process.
  await until(
    'the limit of the worker',
    () => !/Max data size\s+unlimited/.test(readFileSync(`/proc/${pid}/limits`, 'latin1')),
  )
  await stopCleanly(t, server)
})

test('the limit applies to POST /run and its jobs', async (t) => {
  const bundle = makeBundle(t)
  const { server, url } = await startServer(t, {
    args: ['--bundle', bundle, '--workers', '1', '--max-response', '1KiB'],
  })
  const molecules = new Array(200).fill('CCO')
  const run = (query: string, path = 'run') =>
    fetch(`${url}/${path}?${query}`, { method: 'POST', body: JSON.stringify(molecules) })
  for (const query of ['orient=records', 'orient=split', 'orient=values']) {
    const response = await run(query)
    t.is(response.status, 400, query)
    t.is(response.headers.get('X-Error-Code'), 'RESPONSE_TOO_LARGE')
    t.regex(
      ((await response.json()) as { detail: string }).detail,
      /at most 1024 bytes.*got at least \d+: 200 rows of 1 columns/,
    )
  }
  const heavy = await run('output_type=heavy')
  t.is(heavy.status, 200)
  t.true((await heavy.arrayBuffer()).byteLength <= 1024)
  const { job_id } = (await (await run('', 'job/submit')).json()) as { job_id: string }
  await until('the job to end', async () => {
    const { status } = (await (await fetch(`${url}/job/status/${job_id}`)).json()) as { status: string }
    return status === 'failed'
  })
  t.true(existsSync(bundle))
  await stopCleanly(t, server)
})
