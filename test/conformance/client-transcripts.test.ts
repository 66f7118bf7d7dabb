/**
 * What existing clients send, byte by byte, and what they read from the response. Sources: tritonclient[http]
 * (Python and C++), perf_analyzer and KServe's InferenceRESTClient, as published.
 */
import { deflateSync, gunzipSync, gzipSync } from 'node:zlib'
import test, { type ExecutionContext } from 'ava'
import { addModel, ELEMENT, graph, modelBytes, node, value, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { bytesElements, exchange, floats, int64s, takeApart, tritonGet, tritonPost } from '../helpers/wire.js'

const STRING = 8

/** Returns `s` BYTES [batch] and `i` INT64 [batch] unchanged. */
function echoModel(): Uint8Array {
  return modelBytes(
    graph({
      input: [value('s', STRING, ['batch']), value('i', ELEMENT.int64, ['batch'])],
      output: [value('t', STRING, ['batch']), value('j', ELEMENT.int64, ['batch'])],
      node: [node('Identity', ['s'], ['t']), node('Identity', ['i'], ['j'])],
    }),
  )
}

interface Scene {
  readonly url: string
  readonly adminUrl: string
}

/** Both are used for all transcripts of a client. */
async function withServer(t: ExecutionContext, use: (scene: Scene) => Promise<void>): Promise<void> {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel())
  writeModel(models, 'echo', echoModel())
  const args = ['--workers', '2', '--model-control', 'explicit', '--load-model', '*']
  const { server, url, adminUrl } = await startServer(t, { models, args })
  await use({ url, adminUrl })
  await stopCleanly(t, server)
}

test('tritonclient in Python', async (t) => {
  await withServer(t, async ({ url, adminUrl }) => {
    for (const path of [
      'v2/health/live',
      'v2/health/ready',
      'v2/models/add/ready',
      'v2/models/add/versions/1/ready',
    ])
      t.is((await exchange(url, tritonGet(`/${path}`))).status, 200, path)
    t.is((await exchange(url, tritonGet('/v2/models/none/ready'))).status, 404)

    // InferInput(binary_data=True), no outputs requested.
    const head = Buffer.from(
      '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}',
    )
    const body = Buffer.concat([head, floats(10, 20)])
    const withLength = [`Inference-Header-Content-Length: ${head.length}`]
    const plain = await exchange(url, tritonPost('/v2/models/add/infer', body, withLength), body)
    t.is(plain.status, 200)
    t.deepEqual(takeApart(plain), {
      json: {
        model_name: 'add',
        model_version: '1',
        outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 2], parameters: { binary_data_size: 8 } }],
      },
      binary: floats(11, 22),
    })

    // request_compression_algorithm and response_compression_algorithm: the length refers to the uncompressed
    // JSON.
    for (const [encoding, compress] of [
      ['gzip', gzipSync],
      ['deflate', deflateSync],
    ] as const) {
      const small = compress(body)
      const lines = [...withLength, `Content-Encoding: ${encoding}`]
      const answer = await exchange(url, tritonPost('/v2/models/add/infer', small, lines), small)
      t.deepEqual(takeApart(answer).binary, floats(11, 22), encoding)
    }

    // Requested outputs, an id, a priority and a timeout, with BYTES and INT64 together.
    const text = bytesElements('phenol', 'é')
    const numbers = int64s(2n ** 53n + 1n, -(2n ** 63n))
    const both = Buffer.from(
      `{"id":"7","inputs":[{"name":"s","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":${text.length}}},` +
        '{"name":"i","shape":[2],"datatype":"INT64","parameters":{"binary_data_size":16}}],' +
        '"outputs":[{"name":"j","parameters":{"binary_data":true}},{"name":"t","parameters":{"binary_data":true}}],' +
        '"parameters":{"priority":1,"timeout":20000000}}',
    )
    const mixed = Buffer.concat([both, text, numbers])
    const lines = [`Inference-Header-Content-Length: ${both.length}`]
    const answered = takeApart(
      await exchange(url, tritonPost('/v2/models/echo/versions/1/infer', mixed, lines), mixed),
    )
    t.is(answered.json.id, '7')
    t.deepEqual(answered.binary, Buffer.concat([numbers, text]), 'in the order of the outputs asked for')

    // InferInput(binary_data=False) and InferRequestedOutput(binary_data=False): JSON without a length
    // header.
    const allJson = Buffer.from(
      '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.5,-2]}],"outputs":[{"name":"y","parameters":{"binary_data":false}}]}',
    )
    const wire = await exchange(url, tritonPost('/v2/models/add/infer', allJson), allJson)
    t.is(wire.headers['inference-header-content-length'], undefined)
    t.deepEqual((JSON.parse(wire.body.toString()) as { outputs: unknown }).outputs, [
      { name: 'y', datatype: 'FP32', shape: [1, 2], data: [2.5, 0] },
    ])

    // Every failure has a body with a text, which the client puts into its exception.
    const wrong = Buffer.from('{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}')
    const refused = await exchange(url, tritonPost('/v2/models/add/infer', wrong), wrong)
    t.is(refused.status, 400)
    t.regex(
      (JSON.parse(refused.body.toString()) as { error: string }).error,
      /"x": expected shape \[-1, 2\], got \[1, 3\]/,
    )

    // The repository API: the client sends an empty body and expects 200 without a body.
    const index = await exchange(adminUrl, tritonPost('/v2/repository/index', Buffer.from('')))
    t.deepEqual(
      (JSON.parse(index.body.toString()) as { name: string; state: string }[]).map(({ name, state }) => [
        name,
        state,
      ]),
      [
        ['add', 'READY'],
        ['echo', 'READY'],
      ],
    )
    const empty = Buffer.from('{}')
    const unload = Buffer.from('{"parameters":{"unload_dependents":false}}')
    t.is(
      (await exchange(adminUrl, tritonPost('/v2/repository/models/echo/unload', unload), unload)).status,
      200,
    )
    const loaded = await exchange(adminUrl, tritonPost('/v2/repository/models/echo/load', empty), empty)
    t.deepEqual([loaded.status, loaded.body.length], [200, 0])
  })
})

test('tritonclient in C++ and perf_analyzer', async (t) => {
  await withServer(t, async ({ url }) => {
    // perf_analyzer sends the JSON length even if nothing follows, and an Accept-Encoding of curl.
    const body = Buffer.from(
      '{"id":"0","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}',
    )
    const wire = await exchange(
      url,
      [
        'POST /v2/models/add/infer HTTP/1.1',
        'Host: localhost:8000',
        'Accept: */*',
        `Inference-Header-Content-Length: ${body.length}`,
        'Content-Type: application/octet-stream',
        `Content-Length: ${body.length}`,
      ],
      body,
    )
    t.deepEqual(takeApart(wire).binary, floats(2, 4, 4, 6))
    t.is(wire.headers['content-type'], 'application/octet-stream')

    // Responses that it reads before it starts, without checking for missing members.
    const get = async (path: string) => {
      const answer = await exchange(url, tritonGet(path))
      t.is(answer.status, 200, path)
      return JSON.parse(answer.body.toString()) as Record<string, never>
    }
    const metadata = (await get('/v2/models/add')) as unknown as {
      inputs: { shape: number[] }[]
      platform: string
    }
    t.is(metadata.platform, 'onnx_onnxv1')
    const config = (await get('/v2/models/add/config')) as unknown as {
      name: string
      max_batch_size: number
      input: { name: string; dims: number[]; data_type: string }[]
      output: unknown[]
    }
    t.is(config.name, 'add')
    const [input] = config.input
    t.is(input?.data_type, 'TYPE_FP32')
    // With a batch size it drops the first dimension of the shape in the metadata; the rest are the dims.
    const shape = metadata.inputs[0]?.shape ?? []
    t.deepEqual(config.max_batch_size > 0 ? shape.slice(1) : shape, input?.dims)

    const stats = (await get('/v2/models/add/versions/1/stats')) as unknown as {
      model_stats: Record<string, unknown>[]
    }
    const [one] = stats.model_stats as [Record<string, Record<string, { count: number; ns: number }>>]
    t.is(one.inference_count as unknown as number, 2, 'two rows')
    t.is(one.execution_count as unknown as number, 1)
    for (const name of [
      'success',
      'fail',
      'queue',
      'compute_input',
      'compute_infer',
      'compute_output',
      'cache_hit',
      'cache_miss',
    ]) {
      const duration = one.inference_stats?.[name]
      t.true(Number.isSafeInteger(duration?.count) && Number.isSafeInteger(duration?.ns), name)
    }
    t.is(one.inference_stats?.success?.count, 1)
    t.true(Array.isArray(one.batch_stats))
  })
})

test("KServe's InferenceRESTClient", async (t) => {
  await withServer(t, async ({ url }) => {
    const lower = (path: string, body: Uint8Array, more: readonly string[] = []) => [
      `POST ${path} HTTP/1.1`,
      'host: 127.0.0.1:8080',
      'accept: */*',
      'accept-encoding: gzip, deflate',
      'connection: keep-alive',
      'user-agent: python-httpx/0.27.2',
      ...more,
      `content-length: ${body.byteLength}`,
    ]
    // JSON with keys that only this client sends.
    const body = Buffer.from(
      '{"id": "a-b", "model_name": "add", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[10.0, 20.0]]}]}',
    )
    const type = ['content-type: application/json']
    const wire = await exchange(url, lower('/v2/models/add/infer', body, type), body)
    t.is(wire.status, 200)
    const text = wire.headers['content-encoding'] === 'gzip' ? gunzipSync(wire.body) : wire.body
    t.deepEqual(JSON.parse(text.toString()), {
      model_name: 'add',
      model_version: '1',
      id: 'a-b',
      outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 2], data: [11, 22] }],
    })

    const head = Buffer.from(
      '{"id": "a-b", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}], "outputs": [{"name": "y", "parameters": {"binary_data": true}}]}',
    )
    const binary = Buffer.concat([head, floats(1, 2)])
    const lines = [
      'content-type: application/octet-stream',
      `inference-header-content-length: ${head.length}`,
    ]
    t.deepEqual(
      takeApart(await exchange(url, lower('/v2/models/add/infer', binary, lines), binary)).binary,
      floats(2, 4),
    )

    const get = async (path: string) =>
      JSON.parse(
        (
          await exchange(url, [`GET ${path} HTTP/1.1`, 'host: 127.0.0.1:8080', 'accept: */*'])
        ).body.toString(),
      ) as unknown
    t.deepEqual(await get('/v2/health/live'), { live: true })
    t.like(await get('/v2/health/ready'), { ready: true })
    t.deepEqual(await get('/v2/models/add/ready'), { name: 'add', ready: true })
  })
})
