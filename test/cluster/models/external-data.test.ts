import {
  copyFileSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { POINT } from '../../helpers/model-inputs.js'
import { addModel, addModelWithExternalData, constantBytes, writeModel } from '../../helpers/onnx-builder.js'
import { type RunningServer, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { inferOutputs } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

async function answer(url: string, model = 'm'): Promise<string> {
  const [output] = await inferOutputs({ url, model, inputs: [POINT] })
  return String([...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)])
}

function write(path: string, constant: readonly [number, number]): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, constantBytes(constant))
}

async function watched(t: ExecutionContext, models: string): Promise<RunningServer> {
  return await startServer(t, { models, args: ['--workers', '1', '--watch'] })
}

/** A model `m` with its constant in a file of this name below its folder. */
function modelWith(t: ExecutionContext, location: string): { models: string; data: string } {
  const models = writeModel(temporaryFolder(t), 'm', addModelWithExternalData(location))
  const data = join(models, 'm', '1', location)
  write(data, [1, 2])
  return { models, data }
}

for (const location of ['w.bin', 'weights/w.bin', 'a/b/c/d/e/w.bin', '..weights/w.bin']) {
  test.serial(`a change of only ${location} is served`, async (t) => {
    const { models, data } = modelWith(t, location)
    const { server, url } = await watched(t, models)
    t.is(await answer(url), '11,22')
    write(data, [3, 3])
    await until('its new weights to be served', async () => (await answer(url)) === '13,23')
    await stopCleanly(t, server)
  })
}

test.serial('weights replaced with the same size and time are served', async (t) => {
  const { models, data } = modelWith(t, 'weights/w.bin')
  const { server, url } = await watched(t, models)
  const { atime, mtime } = statSync(data)
  write(`${data}.new`, [4, 4])
  utimesSync(`${data}.new`, atime, mtime)
  renameSync(`${data}.new`, data)
  await until('the weights to be served', async () => (await answer(url)) === '14,24')
  // Overwritten in place, with its old timestamp.
  write(data, [5, 5])
  utimesSync(data, atime, mtime)
  await until('the overwritten weights to be served', async () => (await answer(url)) === '15,25')
  // Replaces the whole folder.
  const folder = dirname(data)
  write(join(`${folder}.new`, 'w.bin'), [6, 6])
  rmSync(folder, { recursive: true })
  renameSync(`${folder}.new`, folder)
  await until('the weights of the new folder to be served', async () => (await answer(url)) === '16,26')
  await stopCleanly(t, server)
})

test.serial('a volume replaced through its link ..data is detected', async (t) => {
  const models = temporaryFolder(t)
  const folder = join(models, 'm', '1')
  const publish = (name: string, constant: readonly [number, number]) => {
    write(join(folder, name, 'weights', 'w.bin'), constant)
    writeFileSync(join(folder, name, 'model.onnx'), addModelWithExternalData('weights/w.bin'))
    symlinkSync(name, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), join(folder, '..data'))
  }
  publish('..2026_11_26', [1, 2])
  for (const name of ['model.onnx', 'weights']) symlinkSync(join('..data', name), join(folder, name))
  const { server, url } = await watched(t, models)
  t.is(await answer(url), '11,22')
  publish('..2026_11_27', [7, 7])
  rmSync(join(folder, '..2026_11_26'), { recursive: true })
  await until('the new volume to be served', async () => (await answer(url)) === '17,27')
  await stopCleanly(t, server)
})

test.serial('a model waits for weights that arrive later', async (t) => {
  const models = temporaryFolder(t)
  const { server, url } = await watched(t, models)
  writeModel(models, 'm', addModelWithExternalData('weights/w.bin'))
  await server.logged(({ msg, reason }) => msg === 'the model is not served' && /w\.bin/.test(String(reason)))
  write(join(models, 'm', '1', 'weights', 'w.bin'), [2, 2])
  await until('the model to be served', async () => (await answer(url).catch(() => '')) === '12,22')
  await stopCleanly(t, server)
})

test.serial('a change of a weights file affects only the model that refers to it', async (t) => {
  const models = temporaryFolder(t)
  for (const name of ['a', 'b']) {
    writeFileSync(join(models, `${name}.onnx`), addModelWithExternalData(`weights/${name}.bin`))
    write(join(models, 'weights', `${name}.bin`), [1, 2])
  }
  const { server, url } = await watched(t, models)
  copyFileSync(join(models, 'a.onnx'), join(models, 'unrelated.bin'))
  write(join(models, 'weights', 'b.bin'), [8, 8])
  await until('the new weights of b to be served', async () => (await answer(url, 'b')) === '18,28')
  t.is(await answer(url, 'a'), '11,22')
  writeModel(models, 'later', addModel())
  await server.logged(({ msg, model }) => msg === 'model loaded' && model === 'later')
  t.deepEqual(
    server.log.filter(({ msg }) => msg === 'model loaded').map(({ model }) => model),
    ['b', 'later'],
  )
  await stopCleanly(t, server)
})

test.serial('a second start serves weights changed since the first', async (t) => {
  const { models, data } = modelWith(t, 'weights/w.bin')
  const cacheDir = temporaryFolder(t)
  for (const constant of [
    [1, 2],
    [9, 9],
  ] as const) {
    const { atime, mtime } = statSync(data)
    write(data, constant)
    utimesSync(data, atime, mtime)
    const { server, url } = await startServer(t, { models, cacheDir, args: ['--workers', '1'] })
    t.is(await answer(url), `${10 + constant[0]},${20 + constant[1]}`)
    await stopCleanly(t, server)
  }
})
