/**
 * OpenTelemetry spans of requests, sent to a collector. The only file that imports OpenTelemetry, and
 * imported only if a collector is configured: the packages are optional, 28 MB on the disk and some 4 MB in
 * each worker. All settings except the endpoint are OpenTelemetry's environment variables (OTEL_SERVICE_NAME,
 * OTEL_TRACES_SAMPLER, ...).
 *
 * Only the span of the request itself is created while it is served. Its child spans are created afterwards,
 * from the timings.
 */
import type { IncomingMessage } from 'node:http'
import {
  type Attributes,
  type Context,
  DiagLogLevel,
  defaultTextMapGetter,
  diag,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import {
  defaultResource,
  detectResources,
  envDetector,
  resourceFromAttributes,
} from '@opentelemetry/resources'
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base'
import type { Log } from '../../log.js'
import type { RequestTimings } from './timings.js'

const TRACES_PATH = '/v1/traces'
/** An unreachable collector would fill the log. */
const COMPLAINT_INTERVAL_MS = 60_000

export interface TracingOptions {
  readonly endpoint: string
  /** The endpoint of OpenTelemetry's variables, used unchanged if it is the same. */
  readonly standardEndpoint: string
  readonly serviceVersion: string
  readonly log: Log
}

/** A base URL is completed; a full URL is used unchanged. */
function tracesUrl(endpoint: string): string {
  return endpoint.endsWith(TRACES_PATH) ? endpoint : `${endpoint.replace(/\/+$/, '')}${TRACES_PATH}`
}

function complainTo(log: Log): void {
  let lastMs = Number.NEGATIVE_INFINITY
  const complain = (message: string) => {
    if (performance.now() - lastMs < COMPLAINT_INTERVAL_MS) return
    lastMs = performance.now()
    log.warn({ reason: message.slice(0, 500) }, 'traces are not exported')
  }
  const ignore = () => {}
  diag.setLogger(
    { error: complain, warn: complain, info: ignore, debug: ignore, verbose: ignore },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  )
}

/** Epoch milliseconds of a time on the clock of `performance.now()`. */
function epochMs(ms: number): number {
  return performance.timeOrigin + ms
}

/** The span of one request. */
export class RequestSpan {
  readonly #span: Span
  readonly #tracer: Tracer
  readonly #context: Context

  constructor(tracer: Tracer, span: Span, parent: Context) {
    this.#tracer = tracer
    this.#span = span
    this.#context = trace.setSpan(parent, span)
  }

  get traceId(): string {
    return this.#span.spanContext().traceId
  }

  /**
   * The trace in the response, in the form of a traceparent:
   * https://w3c.github.io/trace-context/#traceresponse-header
   */
  get header(): string {
    const { traceId, spanId, traceFlags } = this.#span.spanContext()
    return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`
  }

  end(result: {
    readonly name: string
    readonly attributes: Attributes
    readonly status: number
    readonly timings: RequestTimings
  }): void {
    const span = this.#span
    if (span.isRecording()) {
      const { name, attributes, status, timings } = result
      span.updateName(name)
      span.setAttributes(attributes)
      if (status >= 500) span.setStatus({ code: SpanStatusCode.ERROR })
      for (const { phase, startMs, endMs } of timings.phases) {
        this.#tracer
          .startSpan(phase, { startTime: epochMs(startMs), attributes }, this.#context)
          .end(epochMs(endMs))
      }
    }
    span.end(epochMs(performance.now()))
  }
}

export class Tracing {
  readonly #provider: BasicTracerProvider
  readonly #tracer: Tracer
  readonly #propagator = new W3CTraceContextPropagator()

  constructor({ endpoint, standardEndpoint, serviceVersion, log }: TracingOptions) {
    complainTo(log)
    const own = resourceFromAttributes({
      'service.name': 'onecopy',
      'service.version': serviceVersion,
      'process.pid': process.pid,
    })
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win.
    const resource = defaultResource()
      .merge(own)
      .merge(detectResources({ detectors: [envDetector] }))
    const exporter = new OTLPTraceExporter(endpoint === standardEndpoint ? {} : { url: tracesUrl(endpoint) })
    this.#provider = new BasicTracerProvider({
      resource,
      spanProcessors: [new BatchSpanProcessor(exporter)],
    })
    this.#tracer = this.#provider.getTracer('onecopy', serviceVersion)
  }

  /** Starts the span of a request, in the trace of its headers or in a new one. */
  begin(request: Pick<IncomingMessage, 'headers' | 'method'>, startMs: number): RequestSpan {
    const parent = this.#propagator.extract(ROOT_CONTEXT, request.headers, defaultTextMapGetter)
    const name = request.method ?? 'HTTP'
    const span = this.#tracer.startSpan(name, { kind: SpanKind.SERVER, startTime: epochMs(startMs) }, parent)
    return new RequestSpan(this.#tracer, span, parent)
  }

  /** Sends the remaining spans. The caller sets the deadline. */
  async close(): Promise<void> {
    await this.#provider.forceFlush()
    await this.#provider.shutdown()
  }
}
