import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import test, { type ExecutionContext } from 'ava'
import { attach, serve } from '../../cluster/index.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { until } from '../helpers/waiting.js'

const ENTRY = join(PROJECT_ROOT, 'dist', 'cluster', 'index.js')

function optionsOf(t: ExecutionContext) {
  return {
    models: writeModel(temporaryFolder(t), 'add', addModel([1, 2])),
    ...{ segmentDir: temporaryFolder(t, '/dev/shm'), cacheDir: temporaryFolder(t) },
    ...{ port: 0, adminPort: 0, workers: 2, logLevel: 'fatal' },
  }
}

async function ask(port: number): Promise<unknown> {
  const inputs = [{ name: 'x', datatype: 'FP32', shape: [1, 2], data: [10, 20] }]
  const url = `http://127.0.0.1:${port}/v2/models/add/infer`
  const response = await fetch(url, { method: 'POST', body: JSON.stringify({ inputs }) })
  return ((await response.json()) as { outputs: { data: unknown }[] }).outputs[0]?.data
}

test.serial('a script serves, restarts its workers, and leaves nothing', async (t) => {
  const options = optionsOf(t)
  const listeners = () => process.eventNames().map((name) => [name, process.listenerCount(name)])
  const before = listeners()
  const server = await serve(options)
  t.teardown(() => server.close())
  t.deepEqual(await ask(server.port), [11, 22])
  t.is((await fetch(`http://127.0.0.1:${server.adminPort}/metrics`)).status, 200)
  await t.throwsAsync(serve(options), {
    code: 'CONFIG_INVALID',
    message: /a server already runs in this process/,
  })
  const children = () => readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1').trim().split(' ')
  const first = children()
  await server.restart()
  await until('the workers before to end', () => first.every((pid) => !children().includes(pid)))
  t.is(children().length, 2)
  t.deepEqual(await ask(server.port), [11, 22])
  // In the same process, too.
  const model = await attach('add', { segmentDir: options.segmentDir })
  await Promise.all([server.close(), server.close()])
  t.deepEqual((await model.run({ x: Float32Array.of(1, 1) })).y?.data, Float32Array.of(2, 3))
  await model.close()
  await t.throwsAsync(server.restart(), { code: 'SHUTTING_DOWN' })
  t.deepEqual(readdirSync(options.segmentDir), [])
  t.deepEqual(
    listeners().filter(([name]) => String(name).startsWith('SIG')),
    before.filter(([name]) => String(name).startsWith('SIG')),
  )
  // And again.
  await using second = await serve({ ...options, workers: 1, docs: false })
  t.deepEqual(await ask(second.port), [11, 22])
  t.is((await fetch(`http://127.0.0.1:${second.port}/docs`)).status, 404)
})

test.serial('a start that fails reports the reason and leaves nothing', async (t) => {
  const options = optionsOf(t)
  const failing = { ...options, workers: 0 }
  await t.throwsAsync(serve(failing), {
    code: 'CONFIG_INVALID',
    message: /serve: workers: expected an integer/,
  })
  const unknown = { ...options, worker: 1 } as object
  await t.throwsAsync(serve(unknown), { code: 'CONFIG_INVALID', message: /unknown keys worker \(.*workers/ })
  await t.throwsAsync(serve({ ...options, models: '/no/such' }), { code: 'REPOSITORY_INVALID' })
  t.deepEqual(readdirSync(options.segmentDir), [])
  const thread = new Worker(
    `import(${JSON.stringify(ENTRY)}).then(({ serve }) => serve()).catch((thrown) => require('node:worker_threads').parentPort.postMessage(thrown.message))`,
    { eval: true },
  )
  const [message] = (await once(thread, 'message')) as [string]
  t.regex(message, /expected the main thread/)
})

/** A team's own cluster, in whose primary the server runs. */
const OWN_CLUSTER = `
import cluster from 'node:cluster'
import { once } from 'node:events'
import { attach, serve } from ${JSON.stringify(ENTRY)}
const options = JSON.parse(process.env.OPTIONS)
if (cluster.isPrimary) {
  cluster.setupPrimary({ args: ['mine'] })
  const server = await serve(options)
  const worker = cluster.fork()
  const [answer] = await once(worker, 'message')
  console.log(JSON.stringify({ answer, port: server.port, settings: cluster.settings.args }))
  if (process.argv[2] === 'die') process.kill(process.pid, 'SIGKILL')
  worker.kill()
  await server.close()
} else {
  const model = await attach('add', { segmentDir: options.segmentDir })
  const { y } = await model.run({ x: Float32Array.of(10, 20) })
  const refused = await serve(options).catch((thrown) => thrown.message)
  process.send({ y: [...y.data], args: process.argv.slice(2), refused })
  setInterval(() => {}, 1000)
}
`

test.serial('it runs in the primary of a cluster with workers of its own, and dies with it', async (t) => {
  for (const how of ['end', 'die']) {
    const options = optionsOf(t)
    const script = join(temporaryFolder(t), 'own.mjs')
    writeFileSync(script, OWN_CLUSTER)
    const child = spawn(process.execPath, [script, how], {
      env: { ...process.env, OPTIONS: JSON.stringify(options) },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    t.teardown(() => child.kill('SIGKILL'))
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    const [code] = (await once(child, 'exit')) as [number | null]
    t.is(code, how === 'end' ? 0 : null)
    const { answer, settings } = JSON.parse(output)
    t.deepEqual(answer.y, [11, 22])
    t.deepEqual(answer.args, ['mine'])
    t.deepEqual(settings, ['mine'])
    t.regex(answer.refused, /other than a cluster worker/)
    await until('nothing to be left', () => readdirSync(options.segmentDir).length === 0)
  }
})
