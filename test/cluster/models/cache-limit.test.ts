/** The limit of the compile cache, with real servers that share a cache. */
import { readdirSync, rmSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { until } from '../../helpers/waiting.js'

const TINY = ['--workers', '1', '--cache-max-size', '1KiB']

function imagesIn(cacheDir: string): string[] {
  return readdirSync(cacheDir)
    .filter((name) => name.endsWith('.segment'))
    .sort()
}

/** Makes all images look unused for a while. */
function age(cacheDir: string): void {
  for (const name of imagesIn(cacheDir)) utimesSync(join(cacheDir, name), 1000, 1000)
}

async function answerOf(url: string, model: string): Promise<unknown> {
  const body = JSON.stringify({ inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [10, 20] }] })
  const response = await fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body })
  return ((await response.json()) as { outputs: { data: unknown }[] }).outputs[0]?.data
}

async function change(
  { adminUrl }: RunningServer,
  model: string,
  action: 'load' | 'unload',
): Promise<number> {
  const path = `/v2/repository/models/${model}/${action}`
  return (await fetch(`${adminUrl}${path}`, { method: 'POST', body: '{}' })).status
}

test.serial('images of served models stay in the cache; those of removed models are evicted', async (t) => {
  const models = writeModel(temporaryFolder(t), 'stays', addModel([1, 1]))
  for (const i of [2, 3, 4]) writeModel(models, `m${i}`, addModel([i, i]))
  const cacheDir = temporaryFolder(t)
  const args = [...TINY, '--model-control', 'explicit', '--load-model', 'stays']
  const running = await startServer(t, { models, cacheDir, args })
  const { server, url } = running
  const [first] = imagesIn(cacheDir)
  for (const i of [2, 3, 4]) {
    age(cacheDir)
    t.is(await change(running, `m${i}`, 'load'), 200)
    t.deepEqual(await answerOf(url, `m${i}`), [10 + i, 20 + i])
    t.is(imagesIn(cacheDir).length, 2, 'only images of served models')
    t.true(imagesIn(cacheDir).includes(first as string))
    t.is(await change(running, `m${i}`, 'unload'), 200)
  }
  await server.logged(
    ({ msg, removed }) => msg === 'evicted unused models from the compile cache' && removed === 1,
  )
  // A later worker loads from the kept image.
  process.kill(Number((await server.logged(({ role }) => role === 'primary')).pid), 'SIGHUP')
  await server.logged(({ msg }) => msg === 'every worker was replaced')
  t.deepEqual(await answerOf(url, 'stays'), [11, 21])
  await stopCleanly(t, server)
  const { ino } = statSync(join(cacheDir, first as string))
  const again = await startServer(t, { models, cacheDir, args })
  t.deepEqual(await answerOf(again.url, 'stays'), [11, 21])
  t.is(statSync(join(cacheDir, first as string)).ino, ino, 'nothing was compiled again')
  await stopCleanly(t, again.server)
})

test.serial(
  'a server evicts an image used by another server only after that server has stopped',
  async (t) => {
    const cacheDir = temporaryFolder(t)
    const theirs = writeModel(temporaryFolder(t), 'theirs', addModel([5, 5]))
    const other = await startServer(t, { models: theirs, cacheDir, args: ['--workers', '1'] })
    const [image] = imagesIn(cacheDir)
    const mine = writeModel(temporaryFolder(t), 'mine', addModel([6, 6]))
    const serve = async () => {
      age(cacheDir)
      const { server, url } = await startServer(t, { models: mine, cacheDir, args: TINY })
      t.deepEqual(await answerOf(url, 'mine'), [16, 26])
      await stopCleanly(t, server)
    }
    await serve()
    t.true(imagesIn(cacheDir).includes(image as string))
    await stopCleanly(t, other.server)
    await serve()
    t.is(imagesIn(cacheDir).length, 1)
    t.false(imagesIn(cacheDir).includes(image as string))
  },
)

test.serial('an image that is removed between lookup and use is compiled again', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel([1, 1]))
  const cacheDir = temporaryFolder(t)
  const first = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  await stopCleanly(t, first.server)
  // Removes every image as soon as it appears, for a while.
  let rounds = 0
  const timer = setInterval(() => {
    if (rounds < 2)
      for (const name of imagesIn(cacheDir)) {
        rmSync(join(cacheDir, name))
        rounds++
      }
  }, 1)
  t.teardown(() => clearInterval(timer))
  const { server, url } = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
  t.deepEqual(await answerOf(url, 'add'), [11, 21])
  await until('images to be removed', () => rounds >= 2)
  await stopCleanly(t, server)
})
