import { mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { differenceBetween, runInProcess } from '../helpers/in-process.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { sharedPath, testWithShared } from '../helpers/shared.js'
import { readTensorFile } from '../helpers/tensor-file.js'
import { decodeResponse, infer, type WireTensor } from '../helpers/v2-client.js'

const WORKERS = 2

function inputsOf(folder: string): WireTensor[] {
  const dataSet = join(folder, 'test_data_set_0')
  const files = readdirSync(dataSet).filter((name) => /^input_\d+\.pb$/.test(name))
  return files
    .sort((a, b) => Number(a.match(/\d+/)?.[0]) - Number(b.match(/\d+/)?.[0]))
    .map((name) => readTensorFile(join(dataSet, name)))
    .filter((tensor) => tensor !== null)
}

testWithShared(
  'outputs of real models equal those of the runtime in-process, bit for bit, from every worker',
  ['models'],
  async (t) => {
    t.timeout(240_000)
    const root = sharedPath('models')
    const names = readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name)
    const models = temporaryFolder(t)
    for (const name of names) {
      mkdirSync(join(models, name))
      symlinkSync(join(root, name), join(models, name, '1'))
    }
    const { server, url } = await startServer(t, {
      models,
      args: ['--workers', String(WORKERS), '--log-level', 'debug'],
    })
    let compared = 0
    for (const name of names) {
      const folder = join(root, name)
      const { inputs, outputs } = await runInProcess(join(folder, 'model.onnx'), inputsOf(folder))
      for (const encoding of ['json', 'binary'] as const) {
        const answeredBy = new Set<number>()
        for (let attempt = 1; answeredBy.size < WORKERS; attempt++) {
          t.true(attempt <= 20, `${name}: expected every worker to answer within 20 connections`)
          const response = await infer({ url, model: name, inputs, encoding })
          t.is(
            response.status,
            200,
            `${name} ${encoding}: ${response.status === 200 ? '' : await response.clone().text()}`,
          )
          t.is(differenceBetween(outputs, await decodeResponse(response)), null, `${name} ${encoding}`)
          const requestId = response.headers.get('X-Request-Id')
          const line = await server.logged((one) => one.msg === 'request' && one.requestId === requestId)
          answeredBy.add(line.pid)
          compared++
        }
      }
    }
    t.log(
      `${names.length} models, ${WORKERS} workers, JSON and binary: ${compared} responses compared, all identical`,
    )
    t.is(names.length, 14)
    await stopCleanly(t, server)
  },
)
