/** A version that cannot be loaded next to one that can, in the first and in later workers. */

import { chmodSync, openSync, readFileSync, utimesSync, writeFileSync, writeSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { END_MESSAGES } from '../../../cluster/workers/worker-end.js'
import { updateHeader } from '../../../src/compile/image-header.js'
import { decodeHeader, type SegmentHeader } from '../../../src/segment/layout.js'
import { addModel, wideModel, writeModel } from '../../helpers/onnx-builder.js'
import { indexOf } from '../../helpers/repository-index.js'
import {
  type RunningServer,
  type ServerUnderTest,
  spawnServer,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { keepAsking } from '../../helpers/steady-clients.js'
import { encodeRequest, inferOutputs, type WireTensor } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

const WEIGHTS_BYTES = 4 * 1024 * 1024
const RELEASED = 'released raw weights'
const GOOD: WireTensor = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 2],
  bytes: new Uint8Array(Float32Array.of(10, 20).buffer),
}
const WIDE: WireTensor = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 1024],
  bytes: new Uint8Array(new Float32Array(1024).fill(1).buffer),
}

async function ask(url: string, model: string, input: WireTensor): Promise<Response> {
  const { body, headers } = encodeRequest([input], 'json')
  return await fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body, headers })
}

async function isWellServed(t: ExecutionContext, url: string): Promise<void> {
  const [output] = await inferOutputs({ url, model: 'good', inputs: [GOOD] })
  t.deepEqual([...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)], [11, 22])
}

async function indexed(
  adminUrl: string,
  name: string,
): Promise<{ state: string; reason: string } | undefined> {
  return (await indexOf(adminUrl)).find((entry) => entry.name === name)
}

async function outMetric(adminUrl: string): Promise<string[]> {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  const lines = text.split('\n').filter((line) => line.startsWith('onecopy_model_out_of_service{'))
  // Every served version has a line, healthy ones with 0.
  return lines.filter((line) => !line.endsWith('code=""} 0'))
}

function ready(server: ServerUnderTest): number[] {
  return server.log.filter(({ msg }) => msg === 'worker ready').map(({ workerPid }) => workerPid as number)
}

/** Kills all workers, one after the other, each after the previous replacement is ready. */
async function replaceWorkers(server: ServerUnderTest, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const pids = ready(server)
    process.kill(pids.at(-2) as number, 'SIGKILL')
    await until('another worker', () => ready(server).length > pids.length)
  }
}

function segmentOf(server: ServerUnderTest, name: string): string {
  const path = server.segments().find((one) => one.endsWith('.segment') && one.includes(`${name}@`))
  return join(server.segmentDir, path ?? '')
}

/** Corrupts a segment in shared memory. */
function damage(path: string, atByte: number, bytes: Uint8Array): void {
  chmodSync(path, 0o600)
  const file = openSync(path, 'r+')
  writeSync(file, bytes, 0, bytes.length, atByte)
  chmodSync(path, 0o400)
}

function models(t: ExecutionContext): string {
  return writeModel(writeModel(temporaryFolder(t), 'good', addModel()), 'wide', wideModel(WEIGHTS_BYTES))
}

async function start(
  t: ExecutionContext,
  args: readonly string[] = [],
  options: { readonly models?: string; readonly cacheDir?: string } = {},
): Promise<RunningServer> {
  return await startServer(t, {
    models: models(t),
    ...options,
    args: ['--workers', '2', '--log-level', 'debug', ...args],
  })
}

/** Checks that all interfaces report the version as out of service with this code. */
async function isOut(
  t: ExecutionContext,
  { server, url, adminUrl }: RunningServer,
  { name, code, input }: { readonly name: string; readonly code: string; readonly input: WireTensor },
): Promise<void> {
  for (let i = 0; i < 4; i++) {
    const answer = await ask(url, name, input)
    t.is(answer.status, 503)
    t.is(answer.headers.get('x-error-code'), 'MODEL_OUT_OF_SERVICE')
    t.regex(answer.headers.get('retry-after') ?? '', /^[1-9]\d*$/)
    t.regex(((await answer.json()) as { error: string }).error, new RegExp(`${name} version 1 .*${code}`))
  }
  const modelReady = await fetch(`${url}/v2/models/${name}/ready`)
  t.is(modelReady.status, 503)
  t.regex(((await modelReady.json()) as { error: string }).error, new RegExp(code))
  t.is((await fetch(`${url}/v2/models/good/ready`)).status, 200)
  // One failed model does not make the server unready.
  t.is((await fetch(`${url}/v2/health/ready`)).status, 200)
  t.is((await fetch(`${adminUrl}/v2/health/ready`)).status, 200)
  const entry = await indexed(adminUrl, name)
  t.is(entry?.state, 'UNAVAILABLE')
  t.regex(entry?.reason ?? '', new RegExp(`^out of service \\(${code}\\): .`))
  t.is((await indexed(adminUrl, 'good'))?.state, 'READY')
  t.deepEqual(await outMetric(adminUrl), [
    `onecopy_model_out_of_service{model="${name}",version="1",code="${code}"} 2`,
  ])
  const line = await server.logged(({ msg }) => /^the model is out of service/.test(msg))
  t.is(line.model, name)
  t.is(line.code, code)
}

test.serial(
  'a version with a failing self-check is out of service alone, through repeated worker kills',
  async (t) => {
    const running = await start(t)
    const { server, url, adminUrl } = running
    t.is((await ask(url, 'wide', WIDE)).status, 200)
    await server.logged(({ msg }) => msg === RELEASED)
    // Corrupts the packed weights, which are never released. Releasing and restoring raw weights changes the
    // file time anyway.
    const path = segmentOf(server, 'wide')
    const { data, rawRanges } = decodeHeader(readFileSync(path)) as SegmentHeader
    const [raw] = rawRanges
    const isRawFirst = (raw?.offsetBytes ?? 0) < data.bytes / 2
    const packedAt = data.offsetBytes + (isRawFirst ? (raw?.offsetBytes ?? 0) + (raw?.bytes ?? 0) + 65536 : 0)
    damage(path, packedAt, new Uint8Array(1024 * 1024).fill(0x3f))

    const failures: string[] = []
    const clients = keepAsking({
      ...{ url, model: 'good', input: GOOD, count: 4 },
      onAnswer: (status, text) => {
        if (status !== 200) failures.push(`${status} ${text}`)
      },
      // A killed worker loses its requests in flight.
      onFailure: () => {},
    })
    await replaceWorkers(server, 4)
    await clients.stop()
    t.deepEqual(failures, [])
    await isOut(t, running, { name: 'wide', code: 'SELF_CHECK_FAILED', input: WIDE })
    await isWellServed(t, url)
    t.false(
      server.log.some(({ msg }) => msg === END_MESSAGES['failed to start']),
      'every worker has started',
    )
    t.is((await fetch(`${adminUrl}/metrics`)).status, 200)
    await stopCleanly(t, server)
  },
)

test.serial('a corrupted segment is rebuilt, without affecting other versions', async (t) => {
  const { server, url, adminUrl } = await start(t, ['--raw-weights', 'keep'])
  const expected = await (await ask(url, 'wide', WIDE)).json()
  const before = segmentOf(server, 'wide')
  utimesSync(before, 1, 1)
  await replaceWorkers(server, 1)
  await server.logged(({ msg, model }) => msg === 'the segment was rebuilt' && model === 'wide')
  t.not(segmentOf(server, 'wide'), before)
  t.deepEqual(await outMetric(adminUrl), [])
  t.is((await indexed(adminUrl, 'wide'))?.state, 'READY')
  await replaceWorkers(server, 2)
  for (let i = 0; i < 4; i++) {
    t.deepEqual(await (await ask(url, 'wide', WIDE)).json(), expected)
    await isWellServed(t, url)
  }
  await stopCleanly(t, server)
})

/** A compile cache in which the known output of `wide` is wrong. */
async function cacheWithWrongAnswer(t: ExecutionContext): Promise<{ models: string; cacheDir: string }> {
  const found = { models: models(t), cacheDir: temporaryFolder(t) }
  const { server } = await start(t, [], found)
  const { key } = decodeHeader(readFileSync(segmentOf(server, 'wide')))
  await stopCleanly(t, server)
  const path = join(found.cacheDir, `${key}.segment`)
  chmodSync(path, 0o600)
  await using file = await open(path, 'r+')
  const { selfCheck } = decodeHeader(readFileSync(path))
  const [output] = selfCheck?.outputs ?? []
  if (selfCheck === null || output === undefined) throw new Error('expected a known answer')
  const outputs = [{ ...output, elements: output.elements.map((value) => Number(value) + 100) }]
  await updateHeader(file, { selfCheck: { ...selfCheck, outputs } })
  chmodSync(path, 0o400)
  return found
}

test.serial(
  'a failing self-check in the first workers fails the start only if all models are required',
  async (t) => {
    const found = await cacheWithWrongAnswer(t)
    const refused = spawnServer(t, { ...found, args: ['--workers', '2'] })
    t.deepEqual(await refused.exited, { code: 1, signal: null })
    const fatal = refused.log.find(({ level }) => level === 'fatal')
    t.is(fatal?.code, 'SELF_CHECK_FAILED', refused.stderr)
    t.regex(fatal?.msg ?? '', /model wide version 1: output "y" of the self-check/)
    t.deepEqual(refused.segments(), [])

    const running = await start(t, ['--exit-on-error', 'off'], found)
    await isOut(t, running, { name: 'wide', code: 'SELF_CHECK_FAILED', input: WIDE })
    await isWellServed(t, running.url)
    await replaceWorkers(running.server, 2)
    await isOut(t, running, { name: 'wide', code: 'SELF_CHECK_FAILED', input: WIDE })
    await stopCleanly(t, running.server)
  },
)

test.serial('a version returns to service after a successful load', async (t) => {
  const found = await cacheWithWrongAnswer(t)
  const { server, url, adminUrl } = await start(
    t,
    ['--model-control', 'explicit', '--load-model', '*', '--exit-on-error', 'off'],
    found,
  )
  t.is((await ask(url, 'wide', WIDE)).status, 503)
  const again = await fetch(`${adminUrl}/v2/repository/models/wide/load`, { method: 'POST' })
  t.is(again.headers.get('x-error-code'), 'SELF_CHECK_FAILED', 'the same image fails again')
  t.is((await ask(url, 'wide', WIDE)).status, 503)
  writeModel(found.models, 'wide', wideModel(WEIGHTS_BYTES), '1')
  const file = join(found.models, 'wide', '1', 'model.onnx')
  // The same interface with other weights.
  const bytes = readFileSync(file)
  bytes.writeFloatLE(0.25, bytes.length - 4096)
  writeFileSync(file, bytes)
  const loaded = await fetch(`${adminUrl}/v2/repository/models/wide/load`, { method: 'POST' })
  t.is(loaded.status, 200, await loaded.text())
  for (let i = 0; i < 4; i++) t.is((await ask(url, 'wide', WIDE)).status, 200)
  t.deepEqual(await outMetric(adminUrl), [])
  t.is((await indexed(adminUrl, 'wide'))?.state, 'READY')
  await stopCleanly(t, server)
})

test.serial('an outdated warm-up sample takes only its version out of service in a worker', async (t) => {
  const found = { models: models(t), cacheDir: temporaryFolder(t) }
  const folder = join(found.models, 'wide')
  const sample = join(folder, 'sample.json')
  const { body } = encodeRequest([WIDE], 'json')
  writeFileSync(sample, body)
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ warm_up: ['sample.json'] }))
  const { server, url, adminUrl } = await start(t, [], found)
  writeFileSync(sample, '{}')
  await replaceWorkers(server, 2)
  for (let i = 0; i < 4; i++) await isWellServed(t, url)
  t.is((await ask(url, 'wide', WIDE)).status, 503)
  t.regex((await indexed(adminUrl, 'wide'))?.reason ?? '', /sample\.json/)
  // The sample is valid again: workers load the model after all.
  writeFileSync(sample, body)
  await until('the model to return in both workers', async () => (await outMetric(adminUrl)).length === 0)
  for (let i = 0; i < 4; i++) t.is((await ask(url, 'wide', WIDE)).status, 200)
  await stopCleanly(t, server)
})
