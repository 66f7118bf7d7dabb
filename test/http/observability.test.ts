/**
 * Observability of requests: spans at a real collector, the access log and Server-Timing, each only
 * if enabled.
 */
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import { ask } from '../helpers/certificates.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'

const BODY = JSON.stringify({
  inputs: [{ name: 'x', shape: [3, 2], datatype: 'FP32', data: [1, 2, 3, 4, 5, 6] }],
})
const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736'
const PARENT_ID = '00f067aa0ba902b7'
const PHASES = ['receive', 'decode', 'queue', 'compute', 'encode']

interface OtlpSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly startTimeUnixNano: string
  readonly endTimeUnixNano: string
  readonly attributes: { key: string; value: Record<string, unknown> }[]
  readonly status?: { code?: number }
}

/** An OTLP collector over HTTP that records what it receives. */
class Collector {
  readonly spans: OtlpSpan[] = []
  readonly services = new Set<unknown>()
  readonly requests: { path: string | undefined; headers: IncomingHttpHeaders }[] = []
  readonly #http = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
    })
    request.on('end', () => {
      this.requests.push({ path: request.url, headers: request.headers })
      for (const { resource, scopeSpans } of JSON.parse(text).resourceSpans) {
        this.services.add(attributeOf(resource, 'service.name'))
        for (const { spans } of scopeSpans) this.spans.push(...spans)
      }
      response.setHeader('Content-Type', 'application/json').end('{}')
    })
  })

  static async start(t: ExecutionContext): Promise<Collector> {
    const collector = new Collector()
    await new Promise<void>((resolve) => collector.#http.listen(0, '127.0.0.1', resolve))
    t.teardown(() => {
      collector.#http.close()
      collector.#http.closeAllConnections()
    })
    return collector
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`
  }
}

function attributeOf({ attributes }: Pick<OtlpSpan, 'attributes'>, key: string): unknown {
  const value = attributes.find((attribute) => attribute.key === key)?.value
  return value && Object.values(value)[0]
}

async function start(t: ExecutionContext, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  return await startServer(t, { models, args: ['--workers', '1', ...args], env })
}

function infer(url: string, headers: Record<string, string> = {}, model = 'add') {
  return ask(`${url}/v2/models/${model}/infer`, { body: BODY, headers })
}

test.serial('spans of a request reach the collector before the server has ended', async (t) => {
  const collector = await Collector.start(t)
  const { server, url } = await start(t, ['--otlp-endpoint', collector.url])
  const traced = await infer(url, { traceparent: `00-${TRACE_ID}-${PARENT_ID}-01`, 'x-request-id': 'mine' })
  t.is(traced.status, 200)
  const failed = await infer(url, { traceparent: 'nonsense' }, 'none')
  t.is(failed.status, 404)
  const unsampled = await infer(url, { traceparent: `00-${'a'.repeat(32)}-${PARENT_ID}-00` })
  t.regex(String(unsampled.headers.traceresponse), /^00-a{32}-[0-9a-f]{16}-00$/)
  await ask(`${url}/v2/health/live`)
  // The remaining spans are sent at shutdown.
  await stopCleanly(t, server)

  t.true(collector.requests.every(({ path }) => path === '/v1/traces'))
  t.deepEqual([...collector.services], ['onecopy'])
  t.is(collector.spans.length, 1 + PHASES.length + 1)
  const [root, ...others] = collector.spans.filter(({ kind }) => kind === 2)
  t.is(others.length, 1)
  const request = collector.spans.find(({ traceId, kind }) => traceId === TRACE_ID && kind === 2) as OtlpSpan
  t.truthy(root)
  t.is(request.name, 'POST /v2/models/:model/infer')
  t.is(request.parentSpanId, PARENT_ID)
  t.is(traced.headers.traceresponse, `00-${TRACE_ID}-${request.spanId}-01`)
  t.is(attributeOf(request, 'http.response.status_code'), 200)
  t.is(attributeOf(request, 'onecopy.request.id'), 'mine')
  const phases = collector.spans.filter(({ parentSpanId }) => parentSpanId === request.spanId)
  t.deepEqual(
    phases.map(({ name }) => name),
    PHASES,
  )
  for (const span of [request, ...phases]) {
    t.is(attributeOf(span, 'onecopy.model.name'), 'add')
    t.is(attributeOf(span, 'onecopy.model.version'), '1')
    t.is(attributeOf(span, 'onecopy.rows'), 3)
    t.true(BigInt(span.startTimeUnixNano) >= BigInt(request.startTimeUnixNano))
    t.true(BigInt(span.endTimeUnixNano) <= BigInt(request.endTimeUnixNano))
  }
  t.true(Math.abs(Number(BigInt(request.startTimeUnixNano) / 1_000_000n) - Date.now()) < 60_000)

  const refused = collector.spans.find(({ traceId }) => traceId !== TRACE_ID) as OtlpSpan
  t.falsy(refused.parentSpanId, 'an invalid header starts a new trace')
  t.is(attributeOf(refused, 'error.type'), 'MODEL_NOT_FOUND')
  t.not(refused.status?.code, 2, 'a client error is not a server error')
})

test.serial("OpenTelemetry's standard variables enable traces and name the service", async (t) => {
  const collector = await Collector.start(t)
  const { server, url } = await start(t, [], {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_EXPORTER_OTLP_HEADERS: 'x-tenant=blue',
    OTEL_SERVICE_NAME: 'chemistry',
  })
  t.is((await infer(url)).status, 200)
  await stopCleanly(t, server)
  t.deepEqual([...collector.services], ['chemistry'])
  t.is(collector.requests[0]?.path, '/v1/traces')
  t.is(collector.requests[0]?.headers['x-tenant'], 'blue')
})

test.serial('an unreachable collector is logged, and delays nothing', async (t) => {
  const { server, url } = await start(t, ['--otlp-endpoint', 'http://127.0.0.1:9', '--drain-timeout', '5s'])
  t.is((await infer(url)).status, 200)
  await stopCleanly(t, server)
  t.true(server.log.some(({ msg, level }) => level === 'warn' && /^traces are/.test(msg)))
})

test.serial('the access log has one line per request, with the duration of each phase', async (t) => {
  const { server, url } = await start(t, ['--access-log', '--server-timing'])
  const answer = await infer(url, {
    traceparent: `00-${TRACE_ID}-${PARENT_ID}-01`,
    'x-request-id': 'first',
  })
  const line = await server.logged(({ requestId }) => requestId === 'first')
  t.like(line, {
    msg: 'access',
    level: 'info',
    traceId: TRACE_ID,
    client: 'ip 127.0.0.1',
    address: '127.0.0.1',
    method: 'POST',
    route: '/v2/models/:model/infer',
    path: '/v2/models/add/infer',
    status: 200,
    model: 'add',
    version: '1',
    rows: 3,
    requestBytes: BODY.length,
    responseBytes: answer.body.length,
  })
  const parts = PHASES.map((phase) => Number(line[`${phase}Ms`]))
  t.true(parts.every((ms) => ms >= 0))
  t.true(parts.reduce((sum, ms) => sum + ms, 0) <= Number(line.durationMs) + 0.01)
  const timing = String(answer.headers['server-timing'])
  t.deepEqual(
    timing.split(', ').map((part) => part.replace(/;dur=\d+\.\d{3}$/, '')),
    [...PHASES, 'total'],
  )

  await infer(url, { 'x-request-id': 'second' }, 'none')
  const refused = await server.logged(({ requestId }) => requestId === 'second')
  t.like(refused, { status: 404, code: 'MODEL_NOT_FOUND' })
  t.false('decodeMs' in refused)
  await ask(`${url}/v2/%0anope?key=secret`, { headers: { 'x-request-id': 'bad\tid' } })
  await until('the third line', () => server.log.filter(({ msg }) => msg === 'access').length === 3)
  t.notRegex(server.stderr, /secret/, 'queries can contain secrets')
  await stopCleanly(t, server)
})

test.serial('without observability options there is no access log, span or header', async (t) => {
  const { server, url } = await start(t, [])
  const answer = await infer(url, { traceparent: `00-${TRACE_ID}-${PARENT_ID}-01` })
  t.is(answer.status, 200)
  t.false('server-timing' in answer.headers)
  t.false('traceresponse' in answer.headers)
  await stopCleanly(t, server)
  t.false(server.log.some(({ msg }) => msg === 'access' || msg === 'request'))
})
