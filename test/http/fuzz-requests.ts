/** Invalid and valid requests: arbitraries for fast-check. */
import { deflateSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'

export interface FuzzRequest {
  /** Its kind, for failure messages. */
  readonly kind: string
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
  /** The expected values, if the request is valid: `y = x + [1, 2]`. */
  readonly expected: readonly number[] | null
}

const INFER = '/v2/models/add/infer'
const HEADER_LENGTH = 'Inference-Header-Content-Length'

const row = fc.tuple(fc.integer({ min: -1e6, max: 1e6 }), fc.integer({ min: -1e6, max: 1e6 }))
const rows = fc.array(row, { minLength: 1, maxLength: 6 })

function answerTo(values: readonly (readonly [number, number])[]): number[] {
  return values.flatMap(([a, b]) => [a + 1, b + 2])
}

type Rows = readonly (readonly [number, number])[]

function jsonOf(values: Rows): Record<string, unknown> {
  return {
    id: 'fuzz',
    inputs: [{ name: 'x', shape: [values.length, 2], datatype: 'FP32', data: values.flat() }],
  }
}

interface Binary {
  readonly head: Record<string, unknown>
  readonly tensor: Uint8Array
}

function binaryOf(values: Rows): Binary {
  const tensor = new Uint8Array(Float32Array.from(values.flat()).buffer)
  const parameters = { binary_data_size: tensor.byteLength }
  return {
    head: { inputs: [{ name: 'x', shape: [values.length, 2], datatype: 'FP32', parameters }] },
    tensor,
  }
}

function bytesOf(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value))
}

function post(parts: Partial<FuzzRequest> & Pick<FuzzRequest, 'kind' | 'body'>): FuzzRequest {
  return { method: 'POST', path: INFER, headers: {}, expected: null, ...parts }
}

const validJson = rows.map((values) =>
  post({ kind: 'valid JSON', body: bytesOf(jsonOf(values)), expected: answerTo(values) }),
)

const validBinary = rows.map((values) => {
  const { head, tensor } = binaryOf(values)
  const json = bytesOf(head)
  return post({
    kind: 'valid binary',
    headers: { [HEADER_LENGTH]: String(json.length) },
    body: Buffer.concat([json, tensor]),
    expected: answerTo(values),
  })
})

const validCompressed = fc.tuple(rows, fc.constantFrom('gzip', 'deflate')).map(([values, encoding]) =>
  post({
    kind: `valid ${encoding}`,
    headers: { 'Content-Encoding': encoding },
    body: (encoding === 'gzip' ? gzipSync : deflateSync)(bytesOf(jsonOf(values))),
    expected: answerTo(values),
  }),
)

const strangeNumber = fc.oneof(
  fc.integer(),
  fc.double(),
  fc.constantFrom(-1, 0, 1, 2, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, 2 ** 63, -(2 ** 63), 1e308, 0.5),
)
const strangeKey = fc.constantFrom(
  ...['inputs', 'outputs', 'parameters', 'id', 'name', 'shape', 'datatype', 'data', 'binary_data_size'],
  ...['binary_data', 'binary_data_output', 'classification', 'shared_memory_region', 'shared_memory_offset'],
  ...[
    'shared_memory_byte_size',
    'priority',
    'timeout',
    'sequence_id',
    'triton_x',
    '__proto__',
    'constructor',
    '',
  ],
)
const strangeValue = fc.oneof(
  strangeNumber,
  fc.string({ maxLength: 20 }),
  fc.string({ unit: 'binary', maxLength: 8 }),
  fc.constantFrom(null, true, false, 'x', 'y', 'FP32', 'INT64', 'BYTES', 'FP16', 'NaN', 'Infinity', '\ud800'),
  fc.jsonValue({ maxDepth: 3 }),
  fc.array(strangeNumber, { maxLength: 5 }),
  fc.dictionary(strangeKey, fc.oneof(strangeNumber, fc.string({ maxLength: 5 })), { maxKeys: 3 }),
)

/** Paths to the values of a document. */
type Step = string | number

function places(value: unknown, path: Step[] = []): Step[][] {
  if (Array.isArray(value)) return [path, ...value.flatMap((inner, i) => places(inner, [...path, i]))]
  if (value === null || typeof value !== 'object') return [path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => places(inner, [...path, key]))]
}

function replaced(document: unknown, path: readonly Step[], change: unknown): unknown {
  const [step, ...rest] = path
  if (step === undefined) return change
  const copy = structuredClone(document) as Record<Step, unknown>
  copy[step] = replaced(copy[step], rest, change)
  return copy
}

/** Replaces one value of a valid document, and may add a key. */
function mutated(
  document: unknown,
  at: number,
  value: unknown,
  extra: readonly [string, unknown] | null,
): unknown {
  const all = places(document)
  const result = replaced(document, all[at % all.length] ?? [], value)
  if (extra === null || result === null || typeof result !== 'object') return result
  return { ...result, [extra[0]]: extra[1] }
}

const extraKey = fc.option(fc.tuple(strangeKey, strangeValue), { freq: 3 })

const mutatedJson = fc
  .tuple(rows, fc.nat(40), strangeValue, extraKey)
  .map(([values, at, value, extra]) =>
    post({ kind: 'mutated JSON', body: bytesOf(mutated(jsonOf(values), at, value, extra) ?? null) }),
  )

const anyJson = fc
  .oneof(
    fc.json({ maxDepth: 5 }),
    fc.array(strangeValue, { maxLength: 4 }).map((value) => JSON.stringify(value)),
  )
  .map((text) => post({ kind: 'any JSON', body: Buffer.from(text) }))

const anyLength = fc.oneof(
  fc.integer({ min: -2, max: 300 }).map(String),
  fc.constantFrom(
    '',
    '0',
    '-0',
    '00',
    '1e2',
    '0x10',
    ' 5',
    '9007199254740993',
    '99999999999999999999',
    'NaN',
    '5, 5',
  ),
)

const mutatedBinary = fc
  .tuple(rows, fc.nat(40), strangeValue, fc.option(anyLength), fc.integer({ min: -30, max: 30 }))
  .map(([values, at, value, length, excess]) => {
    const { head, tensor } = binaryOf(values)
    const json = bytesOf(mutated(head, at, value, null) ?? null)
    const body = Buffer.concat([json, tensor, Buffer.alloc(Math.max(0, excess), 1)])
    return post({
      kind: 'mutated binary',
      headers: { [HEADER_LENGTH]: length ?? String(json.length) },
      body: excess < 0 ? body.subarray(0, Math.max(0, body.length + excess)) : body,
    })
  })

const raw = fc
  .tuple(fc.uint8Array({ maxLength: 64 }), anyLength)
  .map(([body, length]) => post({ kind: 'bytes', headers: { [HEADER_LENGTH]: length }, body }))

/** Changes some bytes of a valid body, or truncates it. */
const mutatedBytes = fc
  .tuple(
    fc.oneof(validJson, validBinary, validCompressed),
    fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { maxLength: 4 }),
    fc.option(fc.nat(200)),
  )
  .map(([request, edits, cut]) => {
    const body = Uint8Array.from(request.body)
    for (const [at, byte] of edits) body[at % body.length] = byte
    return {
      ...request,
      kind: `mutated ${request.kind}`,
      body: cut === null ? body : body.subarray(0, cut % body.length),
      expected: null,
    }
  })

const mutatedEncoding = fc
  .tuple(
    fc.oneof(validJson, validCompressed),
    fc.constantFrom(
      'gzip',
      'deflate',
      'br',
      'identity',
      'zstd',
      'gzip, gzip',
      'x-gzip',
      'GZIP',
      '',
      'gzip;q=1',
      'chunked',
    ),
  )
  .map(([request, encoding]) => ({
    ...request,
    kind: 'mutated encoding',
    headers: { ...request.headers, 'Content-Encoding': encoding },
    expected: null,
  }))

const segment = fc.oneof(
  fc.constantFrom(
    ...[
      'v2',
      'models',
      'add',
      'infer',
      'versions',
      '1',
      '01',
      '-1',
      '1e0',
      '2',
      'health',
      'ready',
      'live',
      'stats',
    ],
    ...[
      'config',
      'repository',
      'index',
      'load',
      'metrics',
      'restart',
      'docs',
      'openapi.json',
      'systemsharedmemory',
    ],
    ...[
      'region',
      'register',
      'status',
      '',
      '.',
      '..',
      '%2e%2e',
      '..%2f..%2fetc',
      '%00',
      '%',
      '%zz',
      '%ff',
      '%u0041',
    ],
    ...[
      'add%2f1',
      '__proto__',
      'constructor',
      'toString',
      'a'.repeat(2000),
      '*',
      '~',
      'add;v=1',
      '99999999999999999999',
    ],
  ),
  fc.webSegment({ size: 'small' }),
)
const path = fc
  .tuple(
    fc.array(segment, { maxLength: 7 }),
    fc.option(fc.webQueryParameters({ size: 'small' })),
    fc.constantFrom('', '', '/', '//'),
  )
  .map(([segments, query, tail]) => `/${segments.join('/')}${tail}${query === null ? '' : `?${query}`}`)

const anyPath = fc
  .tuple(
    path,
    fc.constantFrom('GET', 'GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'HEAD'),
    fc.oneof(
      fc.constant(new Uint8Array()),
      validJson.map(({ body }) => body),
    ),
  )
  .map(([to, method, body]) =>
    post({
      kind: 'any path',
      method,
      path: to,
      body: method === 'GET' || method === 'HEAD' ? new Uint8Array() : body,
    }),
  )

const header = fc.tuple(
  fc.constantFrom(
    ...[
      'Content-Type',
      'Accept',
      'Accept-Encoding',
      'traceparent',
      'X-Request-Id',
      'Authorization',
      'Origin',
    ],
    ...['If-None-Match', 'Range', 'Expect', 'Cookie', 'X-Forwarded-For', 'Forwarded', 'Prefer', 'TE', 'Via'],
  ),
  fc.oneof(
    fc.string({ maxLength: 40 }).map((text) => text.replaceAll(/[^\x20-\x7e]/g, '?')),
    fc.constantFrom(
      '*',
      'gzip;q=0',
      'gzip;q=2',
      'identity;q=0',
      '*;q=0',
      'gzip, deflate',
      'br',
      ',,,',
      'bytes=0-1',
    ),
    fc.constantFrom(
      '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      '00-0-0-0',
      'Bearer x',
      'x'.repeat(3000),
    ),
  ),
)

/** A valid request with headers that have no effect, and some that have. */
const anyHeaders = fc
  .tuple(fc.oneof(validJson, validBinary, validCompressed), fc.array(header, { minLength: 1, maxLength: 4 }))
  .map(([request, headers]) => ({
    ...request,
    kind: `${request.kind}, any headers`,
    headers: {
      // The HTTP libraries of both sides handle Expect: 100-continue.
      ...Object.fromEntries(headers.filter(([name]) => name !== 'Expect')),
      ...request.headers,
    },
    // The values are those of a valid request, if it succeeds; see the test.
  }))

export const fuzzRequest: fc.Arbitrary<FuzzRequest> = fc.oneof(
  { weight: 4, arbitrary: validJson },
  { weight: 3, arbitrary: validBinary },
  { weight: 2, arbitrary: validCompressed },
  { weight: 6, arbitrary: mutatedJson },
  { weight: 2, arbitrary: anyJson },
  { weight: 5, arbitrary: mutatedBinary },
  { weight: 2, arbitrary: raw },
  { weight: 4, arbitrary: mutatedBytes },
  { weight: 2, arbitrary: mutatedEncoding },
  { weight: 3, arbitrary: anyPath },
  { weight: 2, arbitrary: anyHeaders },
)
