/**
 * A client of the server, or of any other that speaks the Open Inference Protocol V2, for Node.js and browsers:
 * nothing here but fetch, typed arrays and streams of the platform. Published as `onecopy/client`.
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

/** What may be said for all calls and again for one. */
export interface CallOptions {
  /** For the whole call, repetitions and waits included; 60,000 by default, Infinity for none. */
  readonly timeoutMs?: number
  /** What is repeated, and when: 3 times by default, after at most 100 ms, 200 ms, 400 ms where the server does not say. */
  readonly retry?: Partial<RetryPolicy>
  readonly headers?: Readonly<Record<string, string>>
}

export interface ClientOptions extends CallOptions {
  /** Such as `http://localhost:8080`, with a path where the server stands behind one; `''` is the page's own origin. */
  readonly url: string
  /** Sent as `Authorization: Bearer KEY`. */
  readonly apiKey?: string
  /** How tensors travel, in both directions; `binary` by default. */
  readonly encoding?: Encoding
  /** Of request bodies, where the platform can (CompressionStream); none by default. */
  readonly compression?: Compression
  /** Whether answers may come compressed; not by default. Browsers decide that by themselves. */
  readonly acceptCompressed?: boolean
  /** In place of the platform's. */
  readonly fetch?: typeof fetch
}

export interface OneCall extends CallOptions {
  /** Ends the call, waits included; it rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

export interface ModelCall extends OneCall {
  /** As the server chooses, where none is named. */
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
  /** Whether it answers that it lives; one that cannot be reached rejects. */
  live(options?: OneCall): Promise<boolean>
  ready(options?: OneCall): Promise<boolean>
  /** Names of the models that are served. */
  models(options?: OneCall): Promise<readonly string[]>
  metadata(model: string, options?: ModelCall): Promise<ModelMetadata>
  /** Whether the model answers; rejects (404) where there is none of that name. */
  modelReady(model: string, options?: ModelCall): Promise<boolean>
  config(model: string, options?: ModelCall): Promise<ModelConfiguration>
  /** Of one model, or of all where none is named. */
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

/** @throws TypeError for headers, a key included, that HTTP has no room for. */
export function createClient(options: ClientOptions): InferenceClient {
  const base = options.url.replace(/\/+$/, '')
  const headers = {
    // Without a word about it, fetch in Node.js asks for compression.
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
