/**
 * A client for this server and other servers of the Open Inference Protocol V2, for Node.js and browsers. It
 * only uses fetch, typed arrays and streams of the platform. Published as `onecopy/client`.
 */
import type {
  ModelConfiguration,
  ModelList,
  ModelMetadata,
  ServerMetadata,
  Statistics,
} from '../api/schemas.js'
import { InferenceError } from './error.js'
import { type Answer, type Call, exchange, type RetryPolicy } from './exchange.js'
import { decodeInfer, type Encoding, encodeInfer, type InferBody, type InferResult } from './infer.js'

export type {
  ModelConfiguration,
  ModelMetadata,
  ModelStatistics,
  ModelTensor,
  ServerMetadata,
  Statistics,
} from '../api/schemas.js'
export type { Datatype } from '../tensor.js'
export { type FailureKind, InferenceError } from './error.js'
export type { RetryPolicy } from './exchange.js'
export type { Encoding, InferResult, RequestedOutput } from './infer.js'
export type { BytesOutput, ElementsOf, InputTensor, OutputOf, OutputTensor } from './tensors.js'

export type Compression = 'gzip' | 'deflate'

/** Options for all calls, which a single call can override. */
export interface CallOptions {
  /** Time limit for the whole call including retries; 60,000 by default, Infinity for none. */
  readonly timeoutMs?: number
  /**
   * Retry policy. By default 3 retries with delays of at most 100, 200 and 400 ms, unless the server sends
   * Retry-After.
   */
  readonly retry?: Partial<RetryPolicy>
  readonly headers?: Readonly<Record<string, string>>
}

export interface ClientOptions extends CallOptions {
  /** For example `http://localhost:8080`, with a path if a proxy adds one; `''` is the origin of the page. */
  readonly url: string
  /** Sent as `Authorization: Bearer KEY`. */
  readonly apiKey?: string
  /** Encoding of tensors in both directions; `binary` by default. */
  readonly encoding?: Encoding
  /** Compression of request bodies, if the platform supports CompressionStream; none by default. */
  readonly compression?: Compression
  /** Whether responses may be compressed; false by default. Browsers ignore it and decide themselves. */
  readonly acceptCompressed?: boolean
  /** Replaces the platform's fetch. */
  readonly fetch?: typeof fetch
}

export interface OneCall extends CallOptions {
  /** Aborts the call including retries; it rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

export interface ModelCall extends OneCall {
  /** The server chooses the version if it is omitted. */
  readonly version?: string | number
}

export interface InferCall extends InferBody, ModelCall {
  readonly model: string
  readonly encoding?: Encoding
  readonly compression?: Compression | null
}

/** Every call rejects with an InferenceError, or with the reason of its signal. */
export interface InferenceClient {
  infer(request: InferCall): Promise<InferResult>
  server(options?: OneCall): Promise<ServerMetadata>
  /** Whether the server is alive; rejects if it cannot be reached. */
  live(options?: OneCall): Promise<boolean>
  ready(options?: OneCall): Promise<boolean>
  /** Names of the served models. */
  models(options?: OneCall): Promise<readonly string[]>
  metadata(model: string, options?: ModelCall): Promise<ModelMetadata>
  /** Whether the model is ready; rejects (404) if it does not exist. */
  modelReady(model: string, options?: ModelCall): Promise<boolean>
  config(model: string, options?: ModelCall): Promise<ModelConfiguration>
  /** Statistics of one model, or of all if omitted. */
  stats(model?: string, options?: ModelCall): Promise<Statistics>
}

const DEFAULT_TIMEOUT_MS = 60_000
const DEFAULT_RETRY: RetryPolicy = { maxRetries: 3, baseDelayMs: 100, maxDelayMs: 5000 }

function modelPath(model: string, version: string | number | undefined): string {
  const versionPath = version === undefined ? '' : `/versions/${encodeURIComponent(String(version))}`
  return `/v2/models/${encodeURIComponent(model)}${versionPath}`
}

async function compressed(
  body: Uint8Array<ArrayBuffer>,
  format: Compression,
): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([body]).stream().pipeThrough(new CompressionStream(format))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

function parse<Value>({ body }: Answer): Value {
  const text = new TextDecoder().decode(body)
  try {
    return JSON.parse(text) as Value
  } catch (cause) {
    throw new InferenceError(`expected JSON, got ${JSON.stringify(text.slice(0, 100))}`, {
      kind: 'answer',
      cause,
    })
  }
}

/** @throws TypeError for headers, including the key, that are invalid in HTTP. */
export function createClient(options: ClientOptions): InferenceClient {
  const base = options.url.replace(/\/+$/, '')
  const headers = {
    // By default, fetch in Node.js requests compression.
    'Accept-Encoding': options.acceptCompressed ? 'gzip, deflate' : 'identity',
    ...(options.apiKey === undefined ? {} : { Authorization: `Bearer ${options.apiKey}` }),
    ...options.headers,
  }
  new Headers(headers)

  const send = async (
    path: string,
    one: OneCall,
    more: Partial<Pick<Call, 'accepts' | 'body' | 'method'>> & { headers?: Record<string, string> } = {},
  ): Promise<Answer> =>
    await exchange({
      method: 'GET',
      ...more,
      url: `${base}${path}`,
      headers: new Headers({ ...headers, ...more.headers, ...one.headers }),
      timeoutMs: one.timeoutMs ?? options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      retry: { ...DEFAULT_RETRY, ...options.retry, ...one.retry },
      signal: one.signal,
      fetch: options.fetch ?? fetch,
    })
  const get = async <Value>(path: string, one: OneCall = {}): Promise<Value> =>
    parse<Value>(await send(path, one))
  const probe = async (path: string, one: OneCall = {}): Promise<boolean> =>
    (await send(path, one, { accepts: [503] })).status === 200

  return {
    server: (one) => get('/v2', one),
    live: (one) => probe('/v2/health/live', one),
    ready: (one) => probe('/v2/health/ready', one),
    models: async (one) => (await get<ModelList>('/v2/models', one)).models,
    metadata: (model, one) => get(modelPath(model, one?.version), one),
    modelReady: (model, one) => probe(`${modelPath(model, one?.version)}/ready`, one),
    config: (model, one) => get(`${modelPath(model, one?.version)}/config`, one),
    stats: (model, one) =>
      get(model === undefined ? '/v2/models/stats' : `${modelPath(model, one?.version)}/stats`, one),
    async infer(request) {
      const encoded = encodeInfer(request, request.encoding ?? options.encoding ?? 'binary')
      const format = request.compression === undefined ? options.compression : request.compression
      const isCompressed = format != null && typeof CompressionStream !== 'undefined'
      const answer = await send(`${modelPath(request.model, request.version)}/infer`, request, {
        method: 'POST',
        body: isCompressed ? await compressed(encoded.body, format) : encoded.body,
        headers: isCompressed ? { ...encoded.headers, 'Content-Encoding': format } : encoded.headers,
      })
      return decodeInfer(answer.body, answer.headers.get('Inference-Header-Content-Length'))
    },
  }
}
