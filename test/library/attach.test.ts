import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import { attach } from '../../cluster/index.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'
import {
  memoryOf,
  releases,
  serveAdd,
  served,
  serveWide,
  sizeOf,
  untilReleased,
  WIDE_INPUTS,
  wideRow,
} from './owner.js'
import { Runner } from './runner.js'

const SHAPE = [1, WIDE_INPUTS]

test.serial('another process answers as the workers do, without weights of its own', async (t) => {
  const { server, url } = await serveWide(t)
  await untilReleased(server)
  const { segmentDir } = server
  const runner = new Runner(t)
  t.is(await runner.attach('wide', { segmentDir }), '1')
  t.deepEqual(await runner.run(wideRow(), SHAPE), await served(url, wideRow()))
  // The lease has ended while the model is attached: one copy again.
  await untilReleased(server, 2)
  t.deepEqual(await runner.run(wideRow(7), SHAPE), await served(url, wideRow(7)))
  await runner.close()
  await stopCleanly(t, server)
})

test.serial('a model that is not resident is rejected with the command that loads it', async (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const error = await t.throwsAsync(attach('missing', { segmentDir }))
  t.like(error, { code: 'MODEL_NOT_RESIDENT' })
  t.regex(error?.message ?? '', /onecopy load MODEL\.onnx --name missing --segment-dir \/dev\/shm/)
  await t.throwsAsync(attach('x', { segmentDir: '/no/such' }), { code: 'SEGMENT_FOLDER_INVALID' })
  // @ts-expect-error: as a caller in JavaScript may write it.
  await t.throwsAsync(attach('x', { segmentdir: '/dev/shm' }), { code: 'CONFIG_INVALID' })
  await t.throwsAsync(attach('x', { version: 'latest' }), { code: 'CONFIG_INVALID' })
  await t.throwsAsync(attach(''), { code: 'CONFIG_INVALID' })
})

test.serial('runs are checked, batched, cancelled and limited in time', async (t) => {
  const { server } = await serveWide(t)
  const { segmentDir } = server
  await t.throwsAsync(attach('wide', { segmentDir, version: 2 }), { code: 'MODEL_NOT_RESIDENT' })
  await using model = await attach('wide', { segmentDir })
  t.deepEqual(model.inputs, [{ name: 'x', datatype: 'FP32', shape: [-1, WIDE_INPUTS] }])
  const executions: number[] = []
  model.onExecution((rows) => executions.push(rows))
  const rows = Array.from({ length: 16 }, (_, i) => Float32Array.from(wideRow(i)))
  const [output = ''] = model.outputs.map(({ name }) => name)
  const alone = []
  for (const row of rows) alone.push(await model.run({ x: row }))
  t.is(executions.length, 16)
  executions.length = 0
  const together = await Promise.all(rows.map((row) => model.run({ x: row }, { outputs: [output] })))
  t.true(executions.length < 16, `${executions}`)
  for (const [i, one] of together.entries()) {
    const [a, b] = [one[output]?.data as Float32Array, alone[i]?.[output]?.data as Float32Array]
    t.true(a.every((number, at) => Math.abs(number - (b[at] as number)) < 1e-4))
    t.is(a.byteLength, a.buffer.byteLength, 'memory of its own')
  }
  t.is(rows[0]?.length, WIDE_INPUTS, 'inputs belong to the caller')

  const x = Float32Array.from(wideRow())
  await t.throwsAsync(model.run({}), { code: 'TENSOR_INVALID', message: /input "x": missing/ })
  await t.throwsAsync(model.run({ x, y: x }), { code: 'TENSOR_INVALID', message: /no such input/ })
  await t.throwsAsync(model.run({ x: [...x] as never }), { code: 'TENSOR_INVALID', message: /Float32Array/ })
  await t.throwsAsync(model.run({ x: x.subarray(1) }), { code: 'TENSOR_INVALID' })
  await t.throwsAsync(model.run({ x: { data: x, shape: [2, 512] } }), { code: 'TENSOR_INVALID' })
  await t.throwsAsync(model.run({ x }, { outputs: ['z'] }), { code: 'REQUEST_INVALID' })
  await t.throwsAsync(model.run({ x }, { outputs: [] }), { code: 'REQUEST_INVALID' })
  await t.throwsAsync(model.run({ x }, { timeoutMs: -1 }), { code: 'REQUEST_INVALID' })
  await t.throwsAsync(model.run({ x }, { signal: AbortSignal.abort() }), { code: 'REQUEST_CANCELLED' })
  const many = Array.from({ length: 32 }, () => model.run({ x: rows[0] as Float32Array }))
  const abort = new AbortController()
  const given = model.run({ x }, { signal: abort.signal })
  abort.abort()
  await t.throwsAsync(given, { code: 'REQUEST_CANCELLED' })
  await t.throwsAsync(model.run({ x }, { timeoutMs: 0.001 }), { code: 'DEADLINE_EXCEEDED' })
  await Promise.all(many)
  const last = model.run({ x })
  await model.close()
  t.is(Object.keys(await last).length, 1, 'a run before it is answered')
  await t.throwsAsync(model.run({ x }), { code: 'SHUTTING_DOWN' })
  await stopCleanly(t, server)
})

test.serial('a model that is replaced: one process stays, another follows', async (t) => {
  const { server, replace, unload } = await serveAdd(t, [1, 1])
  const { segmentDir } = server
  const [staying, following] = [new Runner(t), new Runner(t)]
  await staying.attach('add', { segmentDir })
  await following.attach('add', { segmentDir, onSwap: 'follow' })
  for (let constant = 2; constant < 6; constant++) {
    following.events.length = 0
    await replace([constant, constant])
    await following.emitted('swapped')
    t.deepEqual(await following.run([10, 20], [1, 2]), [10 + constant, 20 + constant])
    t.deepEqual(await staying.run([10, 20], [1, 2]), [11, 21])
  }
  await staying.emitted('outdated')
  const late = new Runner(t)
  await late.attach('add', { segmentDir })
  t.deepEqual(await late.run([10, 20], [1, 2]), [15, 25])
  await unload()
  await following.emitted('outdated')
  t.deepEqual(await following.run([10, 20], [1, 2]), [15, 25])
  for (const runner of [staying, following, late]) await runner.close()
  await t.throwsAsync(attach('add', { segmentDir }), { code: 'MODEL_NOT_RESIDENT' })
  await stopCleanly(t, server)
})

test.serial('an owner that stops or is killed leaves attached processes answering', async (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const first = await serveWide(t, { segmentDir })
  const [staying, following] = [new Runner(t), new Runner(t)]
  await staying.attach('wide', { segmentDir })
  await following.attach('wide', { segmentDir, onSwap: 'follow' })
  const expected = await staying.run(wideRow(), SHAPE)
  await first.server.stop('SIGKILL')
  await staying.emitted('ownerGone')
  await following.emitted('ownerGone')
  t.deepEqual(await staying.run(wideRow(), SHAPE), expected)
  t.deepEqual(await following.run(wideRow(), SHAPE), expected)
  // The same model, perhaps out of what the first has left.
  const second = await startServer(t, { models: first.models, segmentDir, args: ['--workers', '1'] })
  await following.emitted('swapped')
  t.deepEqual(await following.run(wideRow(), SHAPE), expected)
  t.deepEqual(await staying.run(wideRow(), SHAPE), expected)
  await stopCleanly(t, second.server)
  t.deepEqual(await following.run(wideRow(), SHAPE), expected)
  t.deepEqual(await staying.run(wideRow(), SHAPE), expected)
  await staying.close()
  await following.close()
})

test.serial('the lease of a process ends when the process dies', async (t) => {
  const { server, url } = await serveWide(t)
  await untilReleased(server)
  const [folder = ''] = readdirSync(server.segmentDir)
  for (let round = 0; round < 3; round++) {
    const before = releases(server)
    const socket = connect(join(server.segmentDir, folder, 'attach.sock'))
    socket.write('{"type":"attach","name":"wide","version":null}\n')
    const [line] = (await once(socket.setEncoding('utf8'), 'data')) as [string]
    t.is(JSON.parse(line).type, 'offer')
    // The process ends without a message.
    socket.destroy()
    await untilReleased(server, before + 1)
  }
  for (let round = 0; round < 3; round++) {
    const before = releases(server)
    const runner = new Runner(t)
    runner.send({ type: 'attach', name: 'wide', options: { segmentDir: server.segmentDir } })
    // It loads when its weights are restored.
    await until('the raw weights to be back', () => memoryOf(server) >= sizeOf(server))
    await runner.kill()
    await untilReleased(server, before + 1)
  }
  const before = releases(server)
  const runner = new Runner(t)
  await runner.attach('wide', { segmentDir: server.segmentDir })
  t.deepEqual(await runner.run(wideRow(), SHAPE), await served(url, wideRow()))
  await runner.kill()
  await untilReleased(server, before + 1)
  await stopCleanly(t, server)
})

test.serial('an invalid message on the socket ends that connection and nothing else', async (t) => {
  const { server } = await serveAdd(t, [1, 1])
  const [folder = ''] = readdirSync(server.segmentDir)
  for (const line of ['no JSON\n', '{"type":"attach"}\n', '{"type":"offer"}\n']) {
    const socket = connect(join(server.segmentDir, folder, 'attach.sock'))
    socket.write(line)
    await once(socket, 'close')
  }
  await using model = await attach('add', { segmentDir: server.segmentDir })
  t.is(model.version, '1')
  await stopCleanly(t, server)
})
