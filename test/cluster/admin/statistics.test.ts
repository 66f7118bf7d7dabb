import test from 'ava'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { infer, inferOutputs } from '../../helpers/v2-client.js'
import { until } from '../../helpers/waiting.js'

const POINT = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 2],
  bytes: new Uint8Array(Float32Array.of(1, 2).buffer),
}
const PAIR = { ...POINT, shape: [2, 2], bytes: new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer) }
const UNFIT = { ...POINT, shape: [1, 1] }

interface Duration {
  readonly count: number
  readonly ns: number
}

interface Statistics {
  readonly name: string
  readonly version: string
  readonly last_inference: number
  readonly inference_count: number
  readonly execution_count: number
  readonly inference_stats: Record<string, Duration>
  readonly response_stats: object
  readonly batch_stats: ({ readonly batch_size: number } & Record<string, Duration>)[]
  readonly memory_usage: { readonly type: string; readonly id: number; readonly byte_size: number }[]
}

/** On a new connection: any worker can answer. */
async function statistics(url: string, path: string): Promise<Statistics[]> {
  const response = await fetch(`${url}/v2/models${path}/stats`, { headers: { connection: 'close' } })
  if (response.status !== 200) throw new Error(`status ${response.status}: ${await response.text()}`)
  return ((await response.json()) as { model_stats: Statistics[] }).model_stats
}

function integersIn(value: unknown): number[] {
  if (typeof value === 'number') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(integersIn) : []
}

test('any worker reports the statistics of all workers, including killed ones', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, {
    models,
    args: ['--workers', '3', '--log-level', 'debug'],
  })
  const pids = () => server.log.filter((line) => line.msg === 'worker ready').map((line) => line.workerPid)
  const beganMs = Date.now()
  for (let i = 0; i < 9; i++) await inferOutputs({ url, model: 'add', inputs: [i % 3 === 0 ? PAIR : POINT] })
  for (let i = 0; i < 3; i++) t.is((await infer({ url, model: 'add', inputs: [UNFIT] })).status, 400)

  for (let worker = 0; worker < 3; worker++) {
    process.kill(pids()[worker] as number, 'SIGKILL')
    await until('a ready replacement', () => pids().length === 4 + worker)
    for (let i = 0; i < 4; i++) {
      const [counted] = (await statistics(url, '/add')) as [Statistics]
      t.like(counted, {
        name: 'add',
        version: '1',
        inference_count: 12,
        execution_count: 9,
        response_stats: {},
      })
      const { success, fail, queue, compute_infer, cache_hit, cache_miss } = counted.inference_stats
      t.deepEqual(
        [success, fail, queue, compute_infer, cache_hit, cache_miss].map((stat) => stat?.count),
        [9, 3, 9, 9, 0, 0],
      )
      t.deepEqual(
        counted.batch_stats.map(({ batch_size, compute_infer }) => [batch_size, compute_infer?.count]),
        [
          [1, 6],
          [2, 3],
        ],
      )
      t.true(counted.last_inference >= beganMs && counted.last_inference <= Date.now())
    }
  }
  t.is(new Set(pids()).size, 6, 'all workers that counted are replaced')
  await stopCleanly(t, server)
})

test('every field is an integer, for all models, one model or one version', async (t) => {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel(), '1')
  writeModel(models, 'add', addModel(), '2')
  writeModel(models, 'b', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '2'] })
  await inferOutputs({ url, model: 'add', inputs: [POINT] })
  const names = (all: Statistics[]) => all.map(({ name, version }) => `${name}@${version}`)
  const all = await statistics(url, '')
  t.deepEqual(names(all), ['add@1', 'add@2', 'b@1'])
  t.deepEqual(names(await statistics(url, '/add')), ['add@1', 'add@2'])
  t.deepEqual(names(await statistics(url, '/add/versions/1')), ['add@1'])
  t.is((await fetch(`${url}/v2/models/none/stats`)).status, 404)
  t.is((await fetch(`${url}/v2/models/add/versions/3/stats`)).status, 404)

  const durations = ['success', 'fail', 'queue', 'compute_input', 'compute_infer', 'compute_output']
  for (const model of all) {
    const { name: _n, version: _v, ...numbers } = model
    t.true(integersIn(numbers).every(Number.isInteger), JSON.stringify(model))
    t.deepEqual(Object.keys(model.inference_stats), [...durations, 'cache_hit', 'cache_miss'])
    for (const { count, ns } of Object.values(model.inference_stats)) t.is(ns > 0, count > 0)
    const [memory] = model.memory_usage
    t.like(memory, { type: 'CPU', id: 0 })
    t.true((memory?.byte_size ?? 0) > 0)
  }
  const used = all[1] as Statistics
  t.is(used.inference_stats.success?.count, 1, 'the newest version answered')
  t.deepEqual(Object.keys(used.batch_stats[0] ?? {}), ['batch_size', ...durations.slice(3)])
  const spent = ['queue', 'compute_input', 'compute_infer', 'compute_output'].map(
    (part) => used.inference_stats[part]?.ns ?? 0,
  )
  t.true(
    spent.reduce((sum, ns) => sum + ns) <= (used.inference_stats.success?.ns ?? 0),
    'the phases of a request do not exceed the total',
  )
  await stopCleanly(t, server)
})
