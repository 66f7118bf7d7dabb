/** A model whose run never returns: outcome of other requests and of every connection. */

import { request } from 'node:http'
import test, { type ExecutionContext } from 'ava'
import { END_MESSAGES } from '../../../cluster/workers/worker-end.js'
import { FaultServer } from '../../faults/fault-server.js'
import { iterations, POINT } from '../../helpers/model-inputs.js'
import { addModel, slowModel, writeModel } from '../../helpers/onnx-builder.js'
import { RawClient } from '../../helpers/raw-client.js'
import {
  type LogLine,
  type RunningServer,
  startServer,
  stopCleanly,
  temporaryFolder,
} from '../../helpers/server.js'
import { keepAsking } from '../../helpers/steady-clients.js'
import { encodeRequest, infer, inferOutputs, type WireTensor } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

const STALL = 'the inference thread of a worker is stalled: the worker answers 503 and is replaced'

/** Hours of compute. */
const ENDLESS = iterations(1_000_000_000)

function writeModels(t: ExecutionContext): string {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  return writeModel(models, 'slow', slowModel())
}

async function serve(t: ExecutionContext, args: readonly string[]): Promise<RunningServer> {
  return await startServer(t, {
    models: writeModels(t),
    args: ['--log-level', 'debug', '--stall-timeout', '1s', ...args],
  })
}

function linesOf({ server }: RunningServer, msg: string): LogLine[] {
  return server.log.filter((line) => line.msg === msg)
}

function isStallAnswer(response: Response): boolean {
  const { status, headers } = response
  return (
    status === 503 &&
    headers.get('x-error-code') === 'WORKER_STALLED' &&
    Number(headers.get('retry-after')) >= 1
  )
}

async function metricsOf({ adminUrl }: RunningServer): Promise<string> {
  return await (await fetch(`${adminUrl}/metrics`)).text()
}

for (const workers of [1, 2]) {
  test.serial(
    `with ${workers} workers, a run that never returns closes no connection: every request gets 200 or 503`,
    async (t) => {
      const running = await serve(t, ['--workers', String(workers)])
      const { server, url } = running
      const answers = new Map<string, number>()
      const note = (what: string) => answers.set(what, (answers.get(what) ?? 0) + 1)
      const right = () => answers.get('right') ?? 0
      const clients = keepAsking({
        ...{ url, model: 'add', input: POINT, count: 8 },
        onAnswer: (status, text, headers) => {
          const isStalled =
            status === 503 &&
            headers['x-error-code'] === 'WORKER_STALLED' &&
            Number(headers['retry-after']) >= 1
          note(
            status === 200 && text.includes('[11,22]')
              ? 'right'
              : isStalled
                ? 'stalled'
                : `${status} ${text}`,
          )
        },
        onFailure: note,
      })
      await until('responses to the clients', () => right() > 100)
      const endless = await infer({ url, model: 'slow', inputs: [ENDLESS] })
      t.true(isStallAnswer(endless), `${endless.status} ${await endless.text()}`)
      t.is(endless.headers.get('connection'), 'close')
      const report = await server.logged(({ msg }) => msg === STALL)
      t.is(report.code, 'WORKER_STALLED')
      t.is(report.model, 'slow')
      t.is(report.version, '1')
      const ended = await server.logged(({ msg }) => msg === 'worker replaced')
      t.is(ended.workerPid, report.workerPid)
      t.is(ended.how, 'SIGKILL')
      await until('a new worker to be ready', () => linesOf(running, 'worker ready').length === workers + 1)
      const before = right()
      await until('responses to the clients again', () => right() > before + 100)
      await clients.stop()
      t.true((answers.get('stalled') ?? 0) > 0, 'requests queued behind the stalled thread get 503')
      t.deepEqual([...answers.keys()].sort(), ['right', 'stalled'])
      const metrics = await metricsOf(running)
      t.regex(metrics, /^onecopy_worker_exits_total\{reason="WORKER_STALLED"\} 1$/m)
      t.regex(metrics, new RegExp(`^onecopy_workers_ready ${workers}$`, 'm'))
      t.is(linesOf(running, STALL).length, 1)
      for (const message of Object.values(END_MESSAGES)) t.deepEqual(linesOf(running, message), [])
      await stopCleanly(t, server)
    },
  )
}

test.serial('a long run that returns is not a stall', async (t) => {
  const running = await serve(t, ['--workers', '1', '--stall-timeout', '60s'])
  const { server, url } = running
  await inferOutputs({ url, model: 'slow', inputs: [iterations(20_000)] })
  t.deepEqual(linesOf(running, STALL), [])
  await stopCleanly(t, server)
})

test.serial('a body still arriving when the thread stalls is read completely and answered', async (t) => {
  const running = await serve(t, ['--workers', '1'])
  const { server, url } = running
  const { body } = encodeRequest([POINT], 'json')
  const head = `POST /v2/models/add/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n`
  const uploads = await Promise.all(
    [1, 2, 3].map(() => RawClient.connect(url, Buffer.concat([Buffer.from(head), body.subarray(0, 20)]))),
  )
  const endless = infer({ url, model: 'slow', inputs: [ENDLESS] })
  await server.logged(({ msg }) => msg === STALL)
  await until('a new worker to be ready', () => linesOf(running, 'worker ready').length === 2)
  t.true(isStallAnswer(await endless))
  for (const upload of uploads) {
    upload.socket.write(body.subarray(20))
    const [answer] = await upload.ended()
    t.is(answer?.status, 503)
    t.is(answer?.headers['x-error-code'], 'WORKER_STALLED')
  }
  await server.logged(({ msg }) => msg === 'worker replaced')
  await inferOutputs({ url, model: 'add', inputs: [POINT] })
  await stopCleanly(t, server)
})

test.serial('a response being written when the thread stalls is completed', async (t) => {
  const running = await serve(t, ['--workers', '1'])
  const { server, url } = running
  const rows = 1_000_000
  const values = Float32Array.from({ length: rows * 2 }, (_, i) => i)
  const many: WireTensor = { ...POINT, shape: [rows, 2], bytes: new Uint8Array(values.buffer) }
  const { body, headers } = encodeRequest([many], 'binary')
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    const call = request(`${url}/v2/models/add/infer`, { method: 'POST', headers }, resolve)
    call.on('error', reject)
    call.end(body)
  })
  t.is(response.statusCode, 200)
  // The client does not read, so the rest of the response stays in the worker.
  const endless = infer({ url, model: 'slow', inputs: [ENDLESS] })
  await server.logged(({ msg }) => msg === STALL)
  await until('a new worker to be ready', () => linesOf(running, 'worker ready').length === 2)
  t.true(isStallAnswer(await endless))
  let bytes = 0
  for await (const chunk of response) bytes += (chunk as Buffer).length
  t.is(bytes, Number(response.headers['content-length']))
  await server.logged(({ msg }) => msg === 'worker replaced')
  await stopCleanly(t, server)
})

test.serial('during shutdown a run that never returns gets 503, and the server exits cleanly', async (t) => {
  const running = await serve(t, ['--workers', '2'])
  const { server, url } = running
  const endless = infer({ url, model: 'slow', inputs: [ENDLESS] })
  await until('the request to run', async () => {
    const statistics = await (await fetch(`${url}/v2/health/live`)).json()
    return statistics !== null
  })
  server.process.kill('SIGTERM')
  t.true(isStallAnswer(await endless))
  t.deepEqual(await server.exited, { code: 0, signal: null })
  t.deepEqual(server.segments(), [])
})

test.serial('a server suspended for longer than the timeout has not stalled', async (t) => {
  const scene = new FaultServer(t, {
    models: writeModels(t),
    args: ['--workers', '2', '--stall-timeout', '500ms', '--log-level', 'debug'],
  })
  const { server } = scene
  const { url } = await server.ready()
  scene.signalEverything('SIGSTOP')
  await new Promise((resolve) => setTimeout(resolve, 1500))
  scene.signalEverything('SIGCONT')
  for (let i = 0; i < 200; i++) await inferOutputs({ url, model: 'add', inputs: [POINT] })
  t.deepEqual(
    server.log.filter(({ code }) => code === 'WORKER_STALLED'),
    [],
  )
  await stopCleanly(t, server)
})
