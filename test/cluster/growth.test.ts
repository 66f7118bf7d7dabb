/** Models that are loaded and unloaded, and workers that are replaced, leave nothing behind. */

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { indexOf } from '../helpers/repository-index.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

async function post(url: string, path: string, body: object = {}): Promise<Response> {
  return await fetch(`${url}${path}`, { method: 'POST', body: JSON.stringify(body) })
}

async function infer(url: string, model: string): Promise<number> {
  const inputs = [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [1, 2] }]
  return (await post(url, `/v2/models/${model}/infer`, { inputs })).status
}

function processesOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ').filter(Boolean)
  return [pid, ...children.map(Number)]
}

/** Resources that can be counted from outside. */
interface Size {
  readonly metricsLines: number
  readonly indexEntries: number
  readonly folderFiles: string[]
  readonly openFiles: number
}

async function sizeOf({ server, adminUrl }: RunningServer): Promise<Size> {
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  const pids = processesOf(server.process.pid as number)
  return {
    metricsLines: metrics.split('\n').length,
    indexEntries: (await indexOf(adminUrl)).length,
    folderFiles: server
      .segments()
      .map((path) => path.split('/').slice(1).join('/'))
      .filter((path) => path !== '')
      .sort(),
    openFiles: pids.reduce((sum, pid) => sum + readdirSync(`/proc/${pid}/fd`).length, 0),
  }
}

async function isNoLarger(t: ExecutionContext, running: RunningServer, before: Size): Promise<void> {
  const after = await sizeOf(running)
  t.is(after.metricsLines, before.metricsLines)
  t.is(after.indexEntries, before.indexEntries)
  t.deepEqual(after.folderFiles, before.folderFiles)
  // The connections of this test count too.
  t.true(after.openFiles <= before.openFiles + 8, `${after.openFiles} open files, before ${before.openFiles}`)
}

test.serial('loading, using and unloading sixty models leaves nothing behind', async (t) => {
  const models = writeModel(temporaryFolder(t), 'stays', addModel())
  const args = ['--workers', '2', '--model-control', 'explicit', '--load-model', 'stays']
  const running = await startServer(t, { models, args })
  const { server, url, adminUrl } = running
  let before: Size | undefined
  for (let i = 1; i <= 60; i++) {
    const name = `passing-${i}`
    writeModel(models, name, addModel([i % 7, 2]))
    t.is((await post(adminUrl, `/v2/repository/models/${name}/load`)).status, 200)
    t.is(await infer(url, name), 200)
    if (i % 20 === 0) {
      const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
      t.true(metrics.includes(`onecopy_requests_total{model="${name}"`))
    }
    t.is((await post(adminUrl, `/v2/repository/models/${name}/unload`)).status, 200)
    // The index has it as long as it is in the repository.
    if (i % 20 === 0)
      t.like(
        (await indexOf(adminUrl)).find((one) => one.name === name),
        { state: 'UNAVAILABLE', reason: 'unloaded' },
      )
    rmSync(join(models, name), { recursive: true })
    if (i === 20) before = await sizeOf(running)
  }
  await isNoLarger(t, running, before as Size)
  t.deepEqual(
    (await indexOf(adminUrl)).map(({ name }) => name),
    ['stays'],
  )
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  t.false(metrics.includes('passing-'))
  t.regex(metrics, /onecopy_model_changes_total\{outcome="unloaded"\} 60/)
  t.is(await infer(url, 'stays'), 200)
  await stopCleanly(t, server)
})

test.serial('a model that returns counts from zero; a model that stays keeps its counts', async (t) => {
  const models = writeModel(temporaryFolder(t), 'stays', addModel())
  writeModel(models, 'goes', addModel([3, 4]))
  const args = ['--workers', '2', '--model-control', 'explicit', '--load-model', '*']
  const { server, url, adminUrl } = await startServer(t, { models, args })
  for (let i = 0; i < 6; i++) {
    t.is(await infer(url, 'stays'), 200)
    t.is(await infer(url, 'goes'), 200)
  }
  const count = async (name: string) => {
    const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
    return metrics.match(new RegExp(`onecopy_requests_total\\{model="${name}".* (\\d+)`))?.[1] ?? null
  }
  t.deepEqual([await count('stays'), await count('goes')], ['6', '6'])
  t.is((await post(adminUrl, '/v2/repository/models/goes/unload')).status, 200)
  t.deepEqual([await count('stays'), await count('goes')], ['6', null])
  // A worker that was killed after it had counted requests of a removed model.
  const [, worker] = processesOf(server.process.pid as number)
  process.kill(worker as number, 'SIGKILL')
  await server.logged(({ workerPid, how }) => workerPid === worker && how === 'SIGKILL')
  t.is((await post(adminUrl, '/v2/repository/models/goes/load')).status, 200)
  t.is(await infer(url, 'goes'), 200)
  t.deepEqual([await count('stays'), await count('goes')], ['6', '1'])
  await stopCleanly(t, server)
})

test.serial('a model that failed to load leaves the index when it leaves the repository', async (t) => {
  const models = writeModel(temporaryFolder(t), 'stays', addModel())
  const { server, adminUrl } = await startServer(t, { models, args: ['--workers', '1', '--watch'] })
  writeModel(models, 'broken', new TextEncoder().encode('no model'))
  await until('the broken model in the index', async () =>
    (await indexOf(adminUrl)).some(({ name, reason }) => name === 'broken' && reason.includes('ONNX model')),
  )
  rmSync(join(models, 'broken'), { recursive: true })
  t.deepEqual(
    (await indexOf(adminUrl)).map(({ name }) => name),
    ['stays'],
  )
  // It is loaded again when it returns.
  writeModel(models, 'broken', addModel([5, 5]))
  await until('the fixed model to be served', async () =>
    (await indexOf(adminUrl)).some(({ name, state }) => name === 'broken' && state === 'READY'),
  )
  rmSync(join(models, 'broken'), { recursive: true })
  await until('the model to leave the index', async () => (await indexOf(adminUrl)).length === 1)
  writeFileSync(join(models, 'note.txt'), 'no model')
  await stopCleanly(t, server)
})
