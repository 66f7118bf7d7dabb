import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import test from 'ava'
import { answerProblem, type CheckedAnswer } from '../helpers/api-check.js'
import { watchAnswers } from '../helpers/api-watch.js'

function answer(
  path: string,
  body: unknown,
  {
    status = 200,
    method = 'GET',
    headers = {},
  }: Partial<Pick<CheckedAnswer, 'status' | 'method' | 'headers'>> = {},
): CheckedAnswer {
  const all = { 'content-type': 'application/json', ...headers }
  return { method, path, status, headers: all, body: Buffer.from(JSON.stringify(body)) }
}

function inferred(output: object): CheckedAnswer {
  return answer(
    '/v2/models/m/infer',
    { model_name: 'm', model_version: '1', outputs: [{ name: 'y', shape: [1], ...output }] },
    { method: 'POST' },
  )
}

test('valid responses have no problem', (t) => {
  for (const right of [
    answer('/v2/', { name: 'onecopy', version: '1', extensions: ['parameters'] }),
    answer('/v2/models/m/versions/1/ready?x=1', { name: 'm', ready: true }),
    inferred({ datatype: 'INT64', data: [2 ** 60] }),
    inferred({ datatype: 'FP32', data: ['NaN'] }),
    // It stands in shared memory.
    inferred({ datatype: 'FP32' }),
    answer('/nothing', { error: 'no' }, { status: 404, headers: { 'x-error-code': 'ROUTE_NOT_FOUND' } }),
    answer(
      '/v2',
      { error: 'no' },
      {
        status: 405,
        method: 'DELETE',
        headers: { allow: 'GET', 'x-error-code': 'METHOD_NOT_ALLOWED' },
      },
    ),
  ])
    t.is(answerProblem(right, 'public'), null)
})

test('invalid responses have a problem that describes the error', (t) => {
  const coded = (code: string) => ({ 'x-error-code': code })
  const wrong: [CheckedAnswer, RegExp][] = [
    [answer('/v2/health/live', { live: false }), /constant/],
    [answer('/v2/models', { models: [], more: 1 }), /additional/],
    [answer('/v2/models/m/ready', { name: 'm', ready: false, error: 'no' }), /ready/],
    [answer('/v2/models/m', { name: 'm' }), /versions/],
    [answer('/v2/health/live', { live: true }, { status: 201 }), /expected one of 200/],
    [answer('/v2/health/live', { live: true }, { headers: { 'content-type': 'text/plain' } }), /text\/plain/],
    [answer('/nothing', {}), /catalogue/],
    [
      answer('/v2', { error: 'no' }, { status: 404, headers: coded('MODEL_NOT_FOUND') }),
      /expected one of 200/,
    ],
    [answer('/v2/models/m', { error: 'no' }, { status: 404, headers: coded('QUEUE_FULL') }), /X-Error-Code/],
    [answer('/v2/models/m', { error: 'no' }, { status: 404 }), /X-Error-Code is missing/],
    [
      answer('/v2/models/m', { error: '' }, { status: 404, headers: coded('MODEL_NOT_FOUND') }),
      /fewer than 1/,
    ],
    [answer('/metrics', {}), /catalogue/],
    [inferred({ datatype: 'INT8', data: [128] }), /127/],
    [inferred({ datatype: 'BOOL', data: [1] }), /boolean/],
    [inferred({ datatype: 'FP16', data: [1] }), /binary_data_size|parameters/],
    [inferred({ datatype: 'FP32', data: [1], parameters: { binary_data_size: 4 } }), /additional/],
  ]
  for (const [one, says] of wrong) t.regex(answerProblem(one, 'public') ?? 'no problem', says)
})

test('binary responses must match their JSON header and its byte counts', (t) => {
  const head = JSON.stringify({
    model_name: 'm',
    model_version: '1',
    outputs: [{ name: 'y', shape: [1], datatype: 'FP32', parameters: { binary_data_size: 4 } }],
  })
  const binary = (tail: number, text = head): CheckedAnswer => ({
    method: 'POST',
    path: '/v2/models/m/infer',
    status: 200,
    headers: {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': String(Buffer.byteLength(text)),
    },
    body: Buffer.concat([Buffer.from(text), Buffer.alloc(tail)]),
  })
  t.is(answerProblem(binary(4), 'public'), null)
  t.regex(answerProblem(binary(5), 'public') ?? '', /4 bytes of tensors declared, 5 present/)
  t.regex(answerProblem(binary(4, head.replace('"FP32"', '"FP31"')), 'public') ?? '', /FP31|allowed values/)
})

test("a wrong answer of a server that is watched fails the client's fetch", async (t) => {
  const server = createServer((_, response) => response.end('{"live": 1}'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  t.is((await fetch(`${origin}/v2/health/live`)).status, 200)
  const end = watchAnswers(origin, 'public')
  await t.throwsAsync(fetch(`${origin}/v2/health/live`), {
    message: /GET \/v2\/health\/live on the public port returned 200/,
  })
  // Another program may get the port of a server that has exited.
  end()
  t.is((await fetch(`${origin}/v2/health/live`)).status, 200)
})
