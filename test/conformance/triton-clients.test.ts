/**
 * Where clients written for Triton and KServe go beyond plain inference: shared memory, model control, settings, and the
 * texts and types that they compare. Each test sends what the client sends. Sources: as in client-transcripts.test.ts.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { exchange, floats, tritonGet, tritonPost, type Wire } from '../helpers/wire.js'

interface Scene {
  readonly url: string
  readonly adminUrl: string
  readonly models: string
}

async function withServer(
  t: ExecutionContext,
  args: readonly string[],
  use: (scene: Scene) => Promise<void>,
): Promise<void> {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel())
  const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '2', ...args] })
  await use({ url, adminUrl, models })
  await stopCleanly(t, server)
}

const EXPLICIT = ['--model-control', 'explicit', '--load-model', '*']

async function get(url: string, path: string): Promise<Wire> {
  return await exchange(url, tritonGet(path))
}

async function post(url: string, path: string, text = '{}'): Promise<Wire> {
  const body = Buffer.from(text)
  return await exchange(url, tritonPost(path, body), body)
}

function json<T = Record<string, unknown>>({ body }: Wire): T {
  return JSON.parse(body.toString()) as T
}

function errorOf(wire: Wire): string {
  return json<{ error: string }>(wire).error
}

/** A shared memory object of the test's own; it goes away with it. */
function sharedObject(t: ExecutionContext, bytes: number): { key: string; path: string } {
  const path = join('/dev/shm', `object-${basename(temporaryFolder(t))}`)
  writeFileSync(path, Buffer.alloc(bytes))
  t.teardown(() => rmSync(path, { force: true }))
  return { key: `/${basename(path)}`, path }
}

test.serial(
  'the C++ client and perf_analyzer find no parameters on an output that stands in shared memory',
  async (t) => {
    await withServer(t, ['--system-shared-memory', 'on'], async ({ url }) => {
      const { key } = sharedObject(t, 64)
      const register = JSON.stringify({ key, offset: 0, byte_size: 64 })
      t.is((await post(url, '/v2/systemsharedmemory/region/out/register', register)).status, 200)
      const head = Buffer.from(
        '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],' +
          '"outputs":[{"name":"y","parameters":{"shared_memory_region":"out","shared_memory_byte_size":8}}]}',
      )
      const body = Buffer.concat([head, floats(10, 20)])
      const lines = tritonPost('/v2/models/add/infer', body, [
        `Inference-Header-Content-Length: ${head.length}`,
      ])
      const answer = await exchange(url, lines, body)
      t.is(answer.status, 200)
      t.deepEqual(json(answer).outputs, [{ name: 'y', shape: [1, 2], datatype: 'FP32' }])
    })
  },
)

test.serial('the shared memory examples begin by unregistering CUDA regions', async (t) => {
  await withServer(t, ['--system-shared-memory', 'on'], async ({ url }) => {
    t.is((await post(url, '/v2/systemsharedmemory/unregister', '')).status, 200)
    t.is((await post(url, '/v2/cudasharedmemory/unregister', '')).status, 200)
    t.is((await post(url, '/v2/cudasharedmemory/region/a/unregister', '')).status, 200)
    t.deepEqual(json(await get(url, '/v2/cudasharedmemory/status')), [])
    t.is((await get(url, '/v2/cudasharedmemory/region/a/status')).status, 404)
    const handle = '{"raw_handle":{"b64":"AAAA"},"device_id":0,"byte_size":64}'
    const refused = await post(url, '/v2/cudasharedmemory/region/a/register', handle)
    t.is(refused.status, 400)
    t.regex(errorOf(refused), /not supported on this server/)
  })
  await withServer(t, [], async ({ url }) => {
    const off = await post(url, '/v2/cudasharedmemory/unregister', '')
    t.is(off.status, 404)
    t.regex(errorOf(off), /--system-shared-memory/)
  })
})

test.serial(
  "KServe's InferenceRESTClient compares the content type: application/json, without a charset, errors included",
  async (t) => {
    await withServer(t, [], async ({ url, adminUrl }) => {
      const answers = await Promise.all([
        get(url, '/v2'),
        get(url, '/v2/models/add'),
        get(url, '/v2/models/none'),
        get(url, '/nothing'),
        post(url, '/v2/health/live'),
        post(url, '/v2/models/add/infer', '{"inputs":[]}'),
        post(url, '/v2/models/add/infer', 'nonsense'),
        get(url, '/openapi.json'),
        get(adminUrl, '/v2/health/ready'),
        get(adminUrl, '/nothing'),
        post(adminUrl, '/v2/repository/index'),
      ])
      // Below the routes: no request at all, and one without a Host.
      answers.push(await exchange(url, ['NONSENSE']), await exchange(url, ['GET /v2 HTTP/1.1']))
      for (const { status, headers } of answers)
        t.is(headers['content-type'], 'application/json', `${status}`)
      t.true(answers.some(({ status }) => status === 404) && answers.some(({ status }) => status === 405))
    })
  },
)

test.serial(
  'a client with one URL finds models and model control on either port, as --repository-api says',
  async (t) => {
    await withServer(t, [...EXPLICIT, '--repository-api', 'public'], async ({ url, adminUrl }) => {
      for (const base of [url, adminUrl]) {
        t.is((await post(base, '/v2/repository/models/add/unload')).status, 200)
        t.is((await get(base, '/v2/models/add/ready')).status, 404)
        t.is((await post(base, '/v2/repository/models/add/load')).status, 200)
        t.is((await get(base, '/v2/models/add/ready')).status, 200)
        const [entry] = json<{ name: string; state: string }[]>(await post(base, '/v2/repository/index', ''))
        t.like(entry, { name: 'add', version: '1', state: 'READY', reason: '' })
      }
      t.true(json<{ extensions: string[] }>(await get(url, '/v2')).extensions.includes('model_repository'))
    })
  },
)

test.serial('the admin port answers questions about models as the public one does', async (t) => {
  await withServer(t, EXPLICIT, async ({ url, adminUrl }) => {
    for (const path of [
      '/v2/models',
      '/v2/models/add',
      '/v2/models/add/versions/1',
      '/v2/models/add/ready',
      '/v2/models/add/config',
      '/v2/models/add/stats',
      '/v2/models/stats',
    ])
      t.deepEqual(json(await get(adminUrl, path)), json(await get(url, path)), path)
    t.is((await get(adminUrl, '/v2/models/none')).status, 404)
    t.is((await get(adminUrl, '/v2/models/add/versions/7/ready')).status, 404)

    const control = await post(url, '/v2/repository/index', '')
    t.is(control.status, 404)
    t.regex(errorOf(control), new RegExp(`admin port, ${new URL(adminUrl).port} .*--repository-api public`))
    const infer = await post(adminUrl, '/v2/models/add/infer')
    t.is(infer.status, 404)
    t.regex(errorOf(infer), new RegExp(`public port, ${new URL(url).port}`))
  })
  await withServer(t, ['--repository-api', 'off'], async ({ url, adminUrl }) => {
    for (const base of [url, adminUrl]) {
      const answer = await post(base, '/v2/repository/index', '')
      t.is(answer.status, 404)
      t.regex(errorOf(answer), /--repository-api/)
    }
  })
})

test.serial('load_model with a config takes it instead of config.json, until the next load', async (t) => {
  await withServer(t, [...EXPLICIT, '--repository-api', 'public'], async ({ url }) => {
    const path = '/v2/repository/models/add/load'
    const load = (config: unknown) =>
      post(
        url,
        path,
        JSON.stringify({
          parameters: { config: typeof config === 'string' ? config : JSON.stringify(config) },
        }),
      )
    const configuration = async () => json(await get(url, '/v2/models/add/config'))
    const before = await configuration()
    t.is((await load({ max_batch_size: 3 })).status, 200)
    t.is((await configuration()).max_batch_size, 3)
    // What a client received, sent back with a change, in Triton's format.
    const changed = {
      ...(await configuration()),
      max_batch_size: 5,
      version_policy: { latest: { num_versions: 1 } },
      dynamic_batching: { preferred_batch_size: [2, 4], max_queue_delay_microseconds: 2000 },
    }
    t.is((await load(changed)).status, 200)
    t.like(await configuration(), {
      max_batch_size: 5,
      version_policy: { latest: { num_versions: 1 } },
      dynamic_batching: { preferred_batch_size: [2, 4], max_queue_delay_microseconds: 2000 },
    })
    for (const [config, says] of [
      ['{', /parameters\.config: expected JSON/],
      [[], /expected a JSON object/],
      [{ max_batch_size: 'many' }, /max_batch_size/],
      [{ instance_group: [{ count: 2 }] }, /instance_group.*its keys are batching/s],
      [{ name: 'other' }, /name: expected "add", got "other"/],
    ] as const) {
      const refused = await load(config)
      t.is(refused.status, 400, JSON.stringify(config))
      t.regex(errorOf(refused), says)
      t.is((await configuration()).max_batch_size, 5)
    }
    t.is((await post(url, path)).status, 200)
    t.deepEqual(await configuration(), before)
  })
})

test.serial('load_model with files is refused, however large they are', async (t) => {
  await withServer(t, [...EXPLICIT, '--repository-api', 'public'], async ({ url }) => {
    for (const bytes of [30, 3_000_000]) {
      const file = Buffer.alloc(bytes).toString('base64')
      const parameters = { config: '{}', 'file:1/model.onnx': file }
      const refused = await post(url, '/v2/repository/models/add/load', JSON.stringify({ parameters }))
      t.is(refused.status, 400)
      t.regex(errorOf(refused), /models are loaded from the repository/)
    }
  })
})

test.serial(
  'trace and log settings are readable; the log level can be set, other changes are rejected',
  async (t) => {
    await withServer(
      t,
      [...EXPLICIT, '--repository-api', 'public', '--log-level', 'info'],
      async ({ url, adminUrl }) => {
        const trace = {
          trace_level: ['OFF'],
          trace_rate: '1',
          trace_count: '-1',
          log_frequency: '0',
          trace_file: '',
          trace_mode: 'opentelemetry',
        }
        for (const path of ['/v2/trace/setting', '/v2/models/add/trace/setting']) {
          t.deepEqual(json(await get(url, path)), trace)
          t.is((await post(url, path, '{"trace_level":["OFF"],"trace_rate":null}')).status, 200)
          // perf_analyzer --trace-level TIMESTAMPS
          const refused = await post(url, path, '{"trace_level":["TIMESTAMPS"]}')
          t.is(refused.status, 400)
          t.regex(errorOf(refused), /trace_level \["OFF"\], got \["TIMESTAMPS"\].*--otlp-endpoint/)
        }
        t.is((await get(url, '/v2/models/none/trace/setting')).status, 404)
        const log = {
          log_file: '',
          log_info: true,
          log_warning: true,
          log_error: true,
          log_verbose_level: 0,
          log_format: 'default',
        }
        t.deepEqual(json(await get(url, '/v2/logging')), log)
        const verbose = await post(url, '/v2/logging', '{"log_verbose_level":1}')
        t.deepEqual([verbose.status, json(verbose).log_verbose_level], [200, 1])
        for (const base of [url, url, url, url, adminUrl])
          t.is(json(await get(base, '/v2/logging')).log_verbose_level, 1, 'in every process')
        t.is((await post(adminUrl, '/v2/logging', '{"log_verbose_level":0}')).status, 200)
        t.deepEqual(json(await get(url, '/v2/logging')), log)
        const file = await post(url, '/v2/logging', '{"log_file":"/tmp/x"}')
        t.is(file.status, 400)
        t.regex(errorOf(file), /log_file "", got "\/tmp\/x"/)
      },
    )
    await withServer(t, [], async ({ url }) => {
      const refused = await post(url, '/v2/logging', '{"log_verbose_level":1}')
      t.is(refused.status, 400)
      t.regex(errorOf(refused), /admin port/)
    })
  },
)

test.serial("Triton's examples find the beginning of the errors that they look for", async (t) => {
  await withServer(t, [...EXPLICIT, '--repository-api', 'public'], async ({ url }) => {
    const metadata = await get(url, '/v2/models/wrong_model_name')
    t.is(metadata.status, 404)
    t.regex(errorOf(metadata), /^Request for unknown model/)
    t.regex(errorOf(await get(url, '/v2/models/add/versions/9/ready')), /^Request for unknown model/)
    const load = await post(url, '/v2/repository/models/wrong_model_name/load')
    t.is(load.status, 404)
    t.regex(errorOf(load), /^failed to load 'wrong_model_name'/)
  })
})
