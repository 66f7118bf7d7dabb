import { mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { childrenOf, isWorker } from '../../bench/harness/processes.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { spawnServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

const BODY = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], data: [1, 1] }] })

test('a server keeps running after its start folder is removed', async (t) => {
  const started = join(temporaryFolder(t), 'started-here')
  mkdirSync(started)
  // Relative paths refer to the folder in which the server was started.
  const models = writeModel(join(dirname(started), 'models'), 'm', addModel([1, 2]))
  const server = spawnServer(t, {
    models: '../models',
    args: ['--workers', '2', '--watch'],
    wrap: (command) => ['env', '-C', started, ...command],
  })
  const { url, adminUrl } = await server.ready()
  const answer = async () => {
    // A connection to a killed worker has no response.
    const response = await fetch(`${url}/v2/models/m/infer`, { method: 'POST', body: BODY }).catch(() => null)
    if (response === null) return undefined
    const { outputs } = (await response.json()) as { outputs?: { data: number[] }[] }
    return outputs?.[0]?.data
  }
  t.deepEqual(await answer(), [2, 3])
  rmSync(started, { recursive: true })

  // A dead worker is replaced.
  const pid = server.process.pid as number
  const workers = () =>
    childrenOf(pid)
      .filter(isWorker)
      .map((child) => child.pid)
  const [victim] = workers()
  process.kill(victim as number, 'SIGKILL')
  await until('another worker', async () => {
    const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
    return !workers().includes(victim as number) && /^onecopy_workers_ready 2$/m.test(metrics)
  })
  await until('an answer', async () => (await answer())?.[0] === 2)

  // A changed model is compiled and loaded.
  writeModel(models, 'm', addModel([10, 20]))
  await until('the new model to answer', async () => (await answer())?.[0] === 11)

  // A restart replaces every worker.
  const restart = await fetch(`${adminUrl}/restart`, { method: 'POST' })
  t.is(restart.status, 202)
  await server.logged(({ msg }) => msg === 'every worker was replaced')
  await until('an answer', async () => (await answer())?.[1] === 21)
  await stopCleanly(t, server)
})
