import { mkdtempSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { spawnServer, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'

/** Starts one worker with this config; resolves with its number of threads and the served versions. */
async function serveWith(t: ExecutionContext, config: unknown) {
  const models = temporaryFolder(t)
  for (const version of ['1', '2', '3']) writeModel(models, 'add', addModel(), version)
  writeFileSync(join(models, 'add', 'config.json'), JSON.stringify(config))
  const tmp = mkdtempSync(join(models, '.tmp-'))
  const { server, url } = await startServer(t, {
    models,
    args: ['--workers', '1', '--threads', '1', '--log-level', 'debug'],
    env: { TMPDIR: tmp },
  })
  const pid = server.log.find((line) => line.msg === 'worker ready')?.workerPid
  const threads = readdirSync(`/proc/${pid}/task`).length
  const answers = await Promise.all(
    ['1', '2', '3'].map(async (version) => (await fetch(`${url}/v2/models/add/versions/${version}`)).status),
  )
  await stopCleanly(t, server)
  t.deepEqual(readdirSync(tmp), [], 'the folder for temporary files is empty')
  return { threads, answers }
}

test('a config sets the threads of a model and the served versions', async (t) => {
  const plain = await serveWith(t, { version_policy: { latest: 1 } })
  t.deepEqual(plain.answers, [404, 404, 200])
  const threaded = await serveWith(t, { version_policy: { specific: ['2'] }, threads: 4 })
  t.deepEqual(threaded.answers, [404, 200, 404])
  t.is(threaded.threads, plain.threads + 3)
  t.deepEqual((await serveWith(t, {})).answers, [200, 200, 200])
})

test('a warm-up sample runs before the model serves, and a failing sample fails the start', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const sample = (data: number[]) =>
    JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, data.length], data }] })
  writeFileSync(join(models, 'add', 'good.json'), sample([1, 2]))
  writeFileSync(join(models, 'add', 'bad.json'), sample([1, 2, 3]))
  const configure = (file: string) =>
    writeFileSync(join(models, 'add', 'config.json'), JSON.stringify({ warm_up: [{ file, runs: 3 }] }))
  configure('good.json')
  const { server, adminUrl } = await startServer(t, { models, args: ['--workers', '1'] })
  t.notRegex(
    await (await fetch(`${adminUrl}/metrics`)).text(),
    /onecopy_requests_total/,
    'a warm-up does not count as a request',
  )
  await stopCleanly(t, server)
  configure('bad.json')
  const refused = spawnServer(t, { models, args: ['--workers', '1'] })
  t.deepEqual(await refused.exited, { code: 1, signal: null })
  const fatal = refused.log.find((line) => line.level === 'fatal')
  t.is(fatal?.code, 'TENSOR_INVALID')
  t.regex(fatal?.msg ?? '', /warm-up with bad\.json: .*expected shape/)
  t.deepEqual(refused.segments(), [])
})
