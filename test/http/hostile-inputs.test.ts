/**
 * Invalid inputs, each with its response. docs/hostile-inputs.md contains the same table;
 * `UPDATE_DOCS=1 npx ava dist/test/http/hostile-inputs.test.js` writes it.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ELEMENT, identityModel, writeModel } from '../helpers/onnx-builder.js'
import { type RawAnswer, RawClient } from '../helpers/raw-client.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

interface Row {
  readonly input: string
  /** The bytes sent over the connection. */
  readonly send: () => string | Uint8Array
  readonly status: number
  /** Value of X-Error-Code; absent for valid requests. */
  readonly code?: string
  /** The expected text of the body. */
  readonly says: RegExp
  readonly port?: 'admin'
}

const MILLION = 1_000_000
const DOC = join(PROJECT_ROOT, 'docs', 'hostile-inputs.md')

const MODELS = {
  floats: ELEMENT.float,
  doubles: ELEMENT.double,
  ints: ELEMENT.int64,
  texts: ELEMENT.string,
  bools: ELEMENT.bool,
}
type Model = keyof typeof MODELS
const DATATYPE: Record<Model, string> = {
  floats: 'FP32',
  doubles: 'FP64',
  ints: 'INT64',
  texts: 'BYTES',
  bools: 'BOOL',
}

type Body = string | Uint8Array

function http(line: string, headers: readonly string[] = [], body: Body = ''): Uint8Array {
  const head = [`${line} HTTP/1.1`, 'Host: localhost', ...headers, '', ''].join('\r\n')
  return Buffer.concat([Buffer.from(head, 'latin1'), Buffer.from(body)])
}

function get(path: string): () => Uint8Array {
  return () => http(`GET ${path}`)
}

function post(body: Body, { model = 'floats' as Model, headers = [] as readonly string[] } = {}): Uint8Array {
  const length = `Content-Length: ${Buffer.byteLength(body)}`
  return http(`POST /v2/models/${model}/infer`, [length, ...headers], body)
}

/** A request with its JSON as text. */
function json(text: Body | (() => Body), model: Model = 'floats'): () => Uint8Array {
  return () => post(typeof text === 'function' ? text() : text, { model })
}

/** One input as JSON text, with verbatim `data` and `shape`. */
function input(
  parts: { shape?: string; data?: string; datatype?: string; name?: string; more?: string },
  model: Model = 'floats',
): () => Uint8Array {
  const { shape = '[1]', data = '[1]', datatype = `"${DATATYPE[model]}"`, name = '"x"', more = '' } = parts
  return json(
    `{"inputs":[{"name":${name},"shape":${shape},"datatype":${datatype},"data":${data}${more}}]}`,
    model,
  )
}

const GOOD = '"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]'

function root(more: string): () => Uint8Array {
  return json(`{${GOOD},${more}}`)
}

/** One input as bytes after the JSON. */
function binary(
  bytes: Uint8Array,
  { model = 'floats' as Model, shape = '[1]', size = String(bytes.length), more = '' } = {},
): () => Uint8Array {
  return () => {
    const text = `{"inputs":[{"name":"x","shape":${shape},"datatype":"${DATATYPE[model]}","parameters":{"binary_data_size":${size}}${more}}]}`
    const headers = [`Inference-Header-Content-Length: ${text.length}`]
    return post(Buffer.concat([Buffer.from(text), bytes]), { model, headers })
  }
}

function headerLength(length: string, body = `{${GOOD}}`): () => Uint8Array {
  return () => post(body, { headers: [`Inference-Header-Content-Length: ${length}`] })
}

/** Head and body verbatim, without calculated lengths. */
function framed(headers: readonly string[], body = ''): () => Uint8Array {
  return () => http('POST /v2/models/floats/infer', headers, body)
}

const BODY = { status: 400, code: 'BODY_MALFORMED' } as const
const TENSOR = { status: 400, code: 'TENSOR_INVALID' } as const
const REQUEST = { status: 400, code: 'REQUEST_INVALID' } as const
const HTTP = { status: 400, code: 'REQUEST_MALFORMED' } as const
const NO_MODEL = { status: 404, code: 'MODEL_NOT_FOUND' } as const
const NO_ROUTE = { status: 404, code: 'ROUTE_NOT_FOUND' } as const
const ANSWERED = { status: 200 } as const

/** Small bodies that decompress to a large size have a separate section. */
const TABLE: Record<string, readonly Row[]> = {
  'Not JSON, or not an object': [
    { input: 'an empty body', send: json(''), ...BODY, says: /is empty/ },
    { input: 'only spaces', send: json(' \n\t '), ...BODY, says: /is empty/ },
    { input: '`null`', send: json('null'), ...REQUEST, says: /expected object/ },
    { input: 'an array', send: json('[]'), ...REQUEST, says: /expected object/ },
    { input: 'a string', send: json('"x"'), ...REQUEST, says: /expected object/ },
    { input: 'an unterminated object', send: json('{'), ...BODY, says: /not valid JSON/ },
    { input: 'two objects', send: json(`{${GOOD}} {}`), ...BODY, says: /not valid JSON/ },
    { input: 'a trailing comma', send: json(`{${GOOD},}`), ...BODY, says: /not valid JSON/ },
    { input: 'a trailing NUL byte', send: json(`{${GOOD}}\0`), ...BODY, says: /not valid JSON/ },
    { input: 'a NUL byte in a name', send: input({ name: '"x\0"' }), ...BODY, says: /not valid JSON/ },
    {
      input: 'an escaped NUL in a name',
      send: input({ name: '"x\\u0000"' }),
      ...TENSOR,
      says: /no such input/,
    },
    { input: 'a byte order mark', send: json(`\ufeff{${GOOD}}`), ...BODY, says: /not valid JSON/ },
    {
      input: 'UTF-16',
      send: json(() => Buffer.from(`{${GOOD}}`, 'utf16le')),
      ...BODY,
      says: /not valid JSON/,
    },
    {
      input: 'bytes that are not UTF-8',
      send: json(() => Buffer.from(`{${GOOD},"id":"\xff\xfe"}`, 'latin1')),
      ...BODY,
      says: /not valid UTF-8/,
    },
    {
      input: 'an overlong form of `/` in UTF-8',
      send: json(() => Buffer.from(`{${GOOD},"id":"\xc0\xaf"}`, 'latin1')),
      ...BODY,
      says: /not valid UTF-8/,
    },
    {
      input: 'a million nested arrays',
      send: json(() => '['.repeat(MILLION)),
      ...BODY,
      says: /nested too deeply/,
    },
    {
      input: 'a million nested objects',
      send: json(() => '{"a":'.repeat(MILLION)),
      ...BODY,
      says: /nested too deeply/,
    },
    {
      input: 'a million nested arrays as data',
      send: json(() => `{"inputs":[{"name":"x","data":${'['.repeat(MILLION)}`),
      ...BODY,
      says: /nested too deeply/,
    },
  ],
  Keys: [
    {
      input: '`__proto__` in addition to the inputs',
      send: root('"__proto__":{"a":1}'),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: '`__proto__` instead of the inputs',
      send: json(`{"__proto__":{${GOOD}}}`),
      ...REQUEST,
      says: /inputs/,
    },
    {
      input: '`__proto__` in the parameters',
      send: root('"parameters":{"__proto__":1}'),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: '`__proto__` with an object in the parameters',
      send: root('"parameters":{"__proto__":{"priority":1}}'),
      ...ANSWERED,
      says: /\[1\]/,
    },
    { input: '`constructor`', send: root('"constructor":{"prototype":{"a":1}}'), ...ANSWERED, says: /\[1\]/ },
    { input: 'an input `__proto__`', send: input({ name: '"__proto__"' }), ...TENSOR, says: /no such input/ },
    {
      input: 'an input `constructor`',
      send: input({ name: '"constructor"' }),
      ...TENSOR,
      says: /no such input/,
    },
    {
      input: 'an output `__proto__`',
      send: root('"outputs":[{"name":"__proto__"}]'),
      ...REQUEST,
      says: /no such output/,
    },
    {
      input: 'a datatype `toString`',
      send: input({ datatype: '"toString"' }),
      ...TENSOR,
      says: /known datatype/,
    },
    {
      input: '`inputs` twice: the last one counts',
      send: json(`{"inputs":[{"name":"x","shape":[9],"datatype":"FP32","data":[0]}],${GOOD}}`),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: '`data` twice: the last one counts',
      send: input({ data: '[7]', more: ',"data":[1]' }),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: '`data` twice, the first not JSON',
      send: input({ data: '[nonsense]', more: ',"data":[1]' }),
      ...BODY,
      says: /not valid JSON/,
    },
    {
      input: 'an input twice',
      send: json(`{${GOOD.slice(0, -1)},${GOOD.slice(10)}}`),
      ...TENSOR,
      says: /more than once/,
    },
  ],
  'Names, ids and counts': [
    {
      input: 'no name',
      send: json('{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}'),
      ...REQUEST,
      says: /name/,
    },
    { input: 'an empty name', send: input({ name: '""' }), ...TENSOR, says: /no such input/ },
    { input: 'a name that is a number', send: input({ name: '1' }), ...REQUEST, says: /name/ },
    {
      input: 'a name of a million characters',
      send: json(
        () => `{"inputs":[{"name":"${'x'.repeat(MILLION)}","shape":[1],"datatype":"FP32","data":[1]}]}`,
      ),
      ...TENSOR,
      says: /^.{1,300}$/,
    },
    {
      input: 'an unpaired surrogate as name',
      send: input({ name: '"\\ud800"' }),
      ...TENSOR,
      says: /no such input/,
    },
    { input: 'an id that is a number', send: root('"id":1'), ...REQUEST, says: /id/ },
    {
      input: 'an id of a million characters',
      send: json(() => `{${GOOD},"id":"${'i'.repeat(MILLION)}"}`),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: 'an unpaired surrogate as id',
      send: root('"id":"\\ud800"'),
      ...ANSWERED,
      says: /\\ud800/,
    },
    { input: 'no inputs', send: json('{"inputs":[]}'), ...TENSOR, says: /input/ },
    {
      input: 'a million inputs',
      send: json(() => `{"inputs":[${'{},'.repeat(MILLION)}{}]}`),
      ...REQUEST,
      says: /more than 4096 inputs/,
    },
    {
      input: 'a million inputs with data',
      send: json(() => `{"inputs":[${'{"data":1},'.repeat(MILLION)}{}]}`),
      ...REQUEST,
      says: /more than 4096 inputs/,
    },
    {
      input: 'a million outputs',
      send: json(() => `{${GOOD},"outputs":[${'{"name":"y"},'.repeat(MILLION)}{"name":"y"}]}`),
      ...REQUEST,
      says: /more than 4096 outputs/,
    },
    {
      input: 'a million parameters',
      send: json(() => {
        const parameters = Array.from({ length: MILLION }, (_, i) => `"${i}":1`)
        return `{${GOOD},"parameters":{${parameters}}}`
      }),
      ...REQUEST,
      says: /more than 256 parameters/,
    },
    {
      input: 'an output twice',
      send: root('"outputs":[{"name":"y"},{"name":"y"}]'),
      ...REQUEST,
      says: /more than once/,
    },
    {
      input: 'a parameter that is an object',
      send: root('"parameters":{"a":{}}'),
      ...REQUEST,
      says: /parameters/,
    },
    {
      input: 'a parameter that is null',
      send: root('"parameters":{"a":null}'),
      ...REQUEST,
      says: /parameters/,
    },
    {
      input: 'null for each optional member',
      send: json(
        '{"id":null,"parameters":null,"outputs":null,"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":null,"data":[1]}]}',
      ),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: 'null for the parameters of an output',
      send: root('"outputs":[{"name":"y","parameters":null}]'),
      ...ANSWERED,
      says: /\[1\]/,
    },
    { input: 'null for the inputs', send: json('{"inputs":null}'), ...REQUEST, says: /inputs/ },
    { input: 'priority -1', send: root('"parameters":{"priority":-1}'), ...REQUEST, says: /priority/ },
    {
      input: 'priority 2^53',
      send: root('"parameters":{"priority":9007199254740992}'),
      ...REQUEST,
      says: /priority/,
    },
    { input: 'timeout 1e400', send: root('"parameters":{"timeout":1e400}'), ...REQUEST, says: /./ },
    { input: 'timeout 0.5', send: root('"parameters":{"timeout":0.5}'), ...REQUEST, says: /timeout/ },
  ],
  Shapes: [
    { input: '`[-1]`', send: input({ shape: '[-1]' }), ...TENSOR, says: /non-negative/ },
    { input: '`[1.5]`', send: input({ shape: '[1.5]' }), ...TENSOR, says: /non-negative integers/ },
    { input: '`["1"]`', send: input({ shape: '["1"]' }), ...TENSOR, says: /non-negative integers/ },
    { input: '`[null]`', send: input({ shape: '[null]' }), ...TENSOR, says: /non-negative integers/ },
    { input: '`[[1]]`', send: input({ shape: '[[1]]' }), ...TENSOR, says: /non-negative integers/ },
    { input: '`1`', send: input({ shape: '1' }), ...TENSOR, says: /non-negative integers/ },
    { input: '`[]`: rank too low', send: input({ shape: '[]' }), ...TENSOR, says: /shape/ },
    { input: '`[1,1]`: rank too high', send: input({ shape: '[1,1]' }), ...TENSOR, says: /shape/ },
    {
      input: '`[2]` with one element',
      send: input({ shape: '[2]' }),
      ...TENSOR,
      says: /expected 2|needs 2|2 elements/,
    },
    { input: '2^53', send: input({ shape: '[9007199254740992]' }), ...TENSOR, says: /./ },
    { input: '2^53 - 1', send: input({ shape: '[9007199254740991]' }), ...TENSOR, says: /element/ },
    { input: '1e308', send: input({ shape: '[1e308]' }), ...TENSOR, says: /./ },
    { input: '`[2^32, 2^32]`', send: input({ shape: '[4294967296,4294967296]' }), ...TENSOR, says: /./ },
    {
      input: '`[0, 2^53 - 1]`',
      send: input({ shape: '[0,9007199254740991]', data: '[]' }),
      ...TENSOR,
      says: /./,
    },
    {
      input: '65 dimensions',
      send: input({ shape: `[${'1,'.repeat(64)}1]` }),
      ...REQUEST,
      says: /more than 64 dimensions/,
    },
    {
      input: 'a million dimensions',
      send: json(
        () => `{"inputs":[{"name":"x","shape":[${'1,'.repeat(MILLION)}1],"datatype":"FP32","data":[1]}]}`,
      ),
      ...REQUEST,
      says: /more than 64 dimensions/,
    },
    {
      input: '2^53 - 1 elements as bytes',
      send: binary(new Uint8Array(4), { shape: '[9007199254740991]' }),
      ...TENSOR,
      says: /needs|bytes/,
    },
    {
      input: '2^53 - 1 strings as bytes',
      send: binary(new Uint8Array(4), { model: 'texts', shape: '[9007199254740991]' }),
      ...TENSOR,
      says: /needs|bytes/,
    },
  ],
  'Data in JSON': [
    {
      input: 'no data',
      send: json('{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}'),
      ...REQUEST,
      says: /data/,
    },
    { input: '`NaN` without quotes', send: input({ data: '[NaN]' }), ...ANSWERED, says: /\["NaN"\]/ },
    {
      input: '`-Infinity` without quotes, nested, next to `"NaN"`',
      send: input({ shape: '[2]', data: '[-Infinity,"NaN"]' }),
      ...ANSWERED,
      says: /\["-Infinity","NaN"\]/,
    },
    {
      input: '`NaN` without quotes among FP64',
      send: input({ shape: '[2]', data: '[NaN,-0]' }, 'doubles'),
      ...ANSWERED,
      says: /\["NaN",-0\.0\]/,
    },
    { input: '`-0`', send: input({ data: '[-0]' }), ...ANSWERED, says: /\[-0\.0\]/ },
    { input: '`-0` among integers', send: input({ data: '[-0]' }, 'ints'), ...ANSWERED, says: /\[0\]/ },
    { input: '`-NaN`', send: input({ data: '[-NaN]' }), ...BODY, says: /expected numbers, NaN/ },
    { input: '`nan` without quotes', send: input({ data: '[nan]' }), ...BODY, says: /expected numbers, NaN/ },
    { input: '`1NaN`', send: input({ data: '[1NaN]' }), ...BODY, says: /not valid JSON/ },
    {
      input: '`NaN` without quotes next to a string that contains NaN',
      send: input({ shape: '[2]', data: '[NaN,"a NaN"]' }),
      ...TENSOR,
      says: /element 1.*a NaN/,
    },
    {
      input: '`NaN` without quotes among integers',
      send: input({ data: '[NaN]' }, 'ints'),
      ...BODY,
      says: /only in the data of FP32 and FP64/,
    },
    {
      input: '`NaN` without quotes among strings',
      send: input({ data: '[NaN]' }, 'texts'),
      ...BODY,
      says: /not valid JSON/,
    },
    {
      input: '`Infinity` as a dimension',
      send: input({ shape: '[Infinity]' }),
      ...BODY,
      says: /only in the data of FP32 and FP64/,
    },
    {
      input: '`NaN` as a parameter',
      send: root('"parameters":{"timeout":NaN}'),
      ...BODY,
      says: /only in the data of FP32 and FP64/,
    },
    {
      input: 'a NUL in a string',
      send: input({ shape: '[2]', data: '["ab","ab\\u0000cd"]' }, 'texts'),
      ...TENSOR,
      says: /input \\?"x\\?": element 1: a NUL at character 2/,
    },
    { input: 'an empty string', send: input({ data: '[""]' }, 'texts'), ...ANSWERED, says: /\[""\]/ },
    {
      input: 'a string of a million characters',
      send: json(
        () => `{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["${'t'.repeat(MILLION)}"]}]}`,
        'texts',
      ),
      ...ANSWERED,
      says: /\["t{1000000}"\]/,
    },
    { input: '`"NaN"` among integers', send: input({ data: '["NaN"]' }, 'ints'), ...TENSOR, says: /NaN/ },
    { input: '`"nan"`', send: input({ data: '["nan"]' }), ...TENSOR, says: /nan/ },
    { input: '`01`', send: input({ data: '[01]' }), ...BODY, says: /not valid JSON/ },
    { input: '`+1`', send: input({ data: '[+1]' }), ...BODY, says: /not valid JSON/ },
    { input: '`.5`', send: input({ data: '[.5]' }), ...BODY, says: /not valid JSON/ },
    { input: '`0x10`', send: input({ data: '[0x10]' }), ...BODY, says: /not valid JSON/ },
    { input: '`true` among numbers', send: input({ data: '[true]' }), ...TENSOR, says: /true/ },
    { input: '`null` among numbers', send: input({ data: '[null]' }), ...TENSOR, says: /null/ },
    { input: 'an object among numbers', send: input({ data: '[{}]' }), ...TENSOR, says: /object/ },
    { input: 'an object', send: input({ data: '{"0":1}' }), ...TENSOR, says: /object/ },
    { input: '`2` among booleans', send: input({ data: '[2]' }, 'bools'), ...TENSOR, says: /2/ },
    { input: 'a number among strings', send: input({ data: '[1]' }, 'texts'), ...TENSOR, says: /1/ },
    {
      input: 'an unpaired surrogate in a string',
      send: input({ data: '["\\ud800"]' }, 'texts'),
      ...TENSOR,
      says: /surrogate|UTF-8|text/,
    },
    { input: 'one surplus element', send: input({ data: '[1,2]' }), ...TENSOR, says: /element/ },
    {
      input: 'rows of different lengths',
      send: input({ shape: '[3]', data: '[[1],[2,3]]' }),
      ...TENSOR,
      says: /./,
    },
    { input: '1.5 among integers', send: input({ data: '[1.5]' }, 'ints'), ...TENSOR, says: /1\.5/ },
    { input: '1e3 among integers', send: input({ data: '[1e3]' }, 'ints'), ...TENSOR, says: /1e3/ },
    {
      input: '2^63 among INT64',
      send: input({ data: '[9223372036854775808]' }, 'ints'),
      ...TENSOR,
      says: /range|INT64/,
    },
    {
      input: 'an integer of a million digits',
      send: json(
        () => `{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[${'9'.repeat(MILLION)}]}]}`,
        'ints',
      ),
      ...TENSOR,
      says: /^.{1,300}$/,
    },
    { input: '1e400 among FP32', send: input({ data: '[1e400]' }), ...TENSOR, says: /./ },
  ],
  'Binary data': [
    {
      input: 'size -1',
      send: binary(new Uint8Array(4), { size: '-1' }),
      ...REQUEST,
      says: /binary_data_size/,
    },
    {
      input: 'size 4.5',
      send: binary(new Uint8Array(4), { size: '4.5' }),
      ...REQUEST,
      says: /binary_data_size/,
    },
    {
      input: 'size `"4"`',
      send: binary(new Uint8Array(4), { size: '"4"' }),
      ...REQUEST,
      says: /binary_data_size/,
    },
    {
      input: 'size 2^53',
      send: binary(new Uint8Array(4), { size: '9007199254740992' }),
      ...REQUEST,
      says: /binary_data_size/,
    },
    {
      input: 'size 2^53 - 1',
      send: binary(new Uint8Array(4), { size: '9007199254740991' }),
      ...BODY,
      says: /4 bytes follow/,
    },
    {
      input: 'more bytes than the size',
      send: binary(new Uint8Array(8), { size: '4' }),
      ...BODY,
      says: /8 bytes follow/,
    },
    {
      input: 'fewer bytes than the shape',
      send: binary(new Uint8Array(3)),
      ...TENSOR,
      says: /needs 4 bytes, got 3/,
    },
    {
      input: 'data in addition',
      send: binary(new Uint8Array(4), { more: ',"data":[1]' }),
      ...REQUEST,
      says: /data/,
    },
    {
      input: 'a BOOL byte of 2',
      send: binary(Uint8Array.of(2), { model: 'bools' }),
      ...TENSOR,
      says: /0 or 1/,
    },
    {
      input: 'a string with a length of 2^32 - 1 and no bytes',
      send: binary(Uint8Array.of(255, 255, 255, 255, 1), { model: 'texts' }),
      ...BODY,
      says: /claims 4294967295 bytes/,
    },
    {
      input: 'a string with an incomplete length',
      send: binary(Uint8Array.of(0, 0, 0, 0, 1, 0), { model: 'texts', shape: '[2]' }),
      ...TENSOR,
      says: /./,
    },
    {
      input: 'a string that is not UTF-8',
      send: binary(Uint8Array.of(1, 0, 0, 0, 0xff), { model: 'texts' }),
      ...TENSOR,
      says: /UTF-8/,
    },
    {
      input: 'a string with a NUL',
      send: binary(Buffer.from('\x05\0\0\0ab\0cd'), { model: 'texts' }),
      ...TENSOR,
      says: /element 0: a NUL at character 2/,
    },
    {
      input: 'null as data in addition to the size',
      send: binary(new Uint8Array(4), { more: ',"data":null' }),
      ...ANSWERED,
      says: /\[0\]/,
    },
    {
      input: 'a raw string with a NUL',
      send: () => post('ab\0cd', { model: 'texts', headers: ['Inference-Header-Content-Length: 0'] }),
      ...TENSOR,
      says: /element 0: a NUL at character 2/,
    },
    {
      input: 'bytes after the last string',
      send: binary(Uint8Array.of(0, 0, 0, 0, 1), { model: 'texts' }),
      ...BODY,
      says: /left over/,
    },
    { input: 'header length -1', send: headerLength('-1'), ...BODY, says: /Inference-Header-Content-Length/ },
    {
      input: 'header length 1e2',
      send: headerLength('1e2'),
      ...BODY,
      says: /Inference-Header-Content-Length/,
    },
    {
      input: 'header length 0x10',
      send: headerLength('0x10'),
      ...BODY,
      says: /Inference-Header-Content-Length/,
    },
    {
      input: 'header length 2^53',
      send: headerLength('9007199254740992'),
      ...BODY,
      says: /Inference-Header-Content-Length/,
    },
    { input: 'header length beyond the body', send: headerLength('99999'), ...BODY, says: /99999/ },
    {
      input: 'header length that ends inside the JSON',
      send: headerLength('5'),
      ...BODY,
      says: /not valid JSON/,
    },
    {
      input: 'header length twice',
      send: () =>
        post(`{${GOOD}}`, {
          headers: ['Inference-Header-Content-Length: 5', 'Inference-Header-Content-Length: 6'],
        }),
      ...BODY,
      says: /Inference-Header-Content-Length/,
    },
    {
      input: 'raw bytes that match no shape',
      send: headerLength('0', 'abc'),
      ...TENSOR,
      says: /whole number/,
    },
  ],
  Paths: [
    {
      input: '`..%2f..%2fetc%2fpasswd` as a model',
      send: get('/v2/models/..%2f..%2fetc%2fpasswd'),
      ...NO_MODEL,
      says: /unknown model/,
    },
    { input: '`%2e%2e` as a model', send: get('/v2/models/%2e%2e'), ...NO_MODEL, says: /unknown model/ },
    { input: '`..%5c..` as a model', send: get('/v2/models/..%5c..'), ...NO_MODEL, says: /unknown model/ },
    { input: '`/../../etc/passwd`', send: get('/v2/models/../../etc/passwd'), ...NO_ROUTE, says: /no route/ },
    { input: '`%00` as a model', send: get('/v2/models/%00'), ...NO_MODEL, says: /unknown model/ },
    { input: '`%ff` as a model', send: get('/v2/models/%ff'), ...NO_MODEL, says: /unknown model/ },
    { input: '`%zz` as a model', send: get('/v2/models/%zz'), ...NO_MODEL, says: /unknown model/ },
    {
      input: '`__proto__` as a model',
      send: get('/v2/models/__proto__'),
      ...NO_MODEL,
      says: /unknown model/,
    },
    {
      input: '`constructor` as a model',
      send: get('/v2/models/constructor'),
      ...NO_MODEL,
      says: /unknown model/,
    },
    { input: 'an empty model name', send: get('/v2/models//ready'), ...NO_ROUTE, says: /no route/ },
    {
      input: 'a model name of 8000 characters',
      send: get(`/v2/models/${'m'.repeat(8000)}`),
      ...NO_MODEL,
      says: /^.{1,200}$/,
    },
    {
      input: 'version -1',
      send: get('/v2/models/floats/versions/-1'),
      ...NO_MODEL,
      says: /unknown model: .* has no version/,
    },
    {
      input: 'version 10^30',
      send: get(`/v2/models/floats/versions/1${'0'.repeat(30)}`),
      ...NO_MODEL,
      says: /unknown model: .* has no version/,
    },
    {
      input: 'version 1e0',
      send: get('/v2/models/floats/versions/1e0'),
      ...NO_MODEL,
      says: /unknown model: .* has no version/,
    },
    {
      input: 'version 0x1',
      send: get('/v2/models/floats/versions/0x1'),
      ...NO_MODEL,
      says: /unknown model: .* has no version/,
    },
    {
      input: 'version 01',
      send: get('/v2/models/floats/versions/01'),
      ...NO_MODEL,
      says: /unknown model: .* has no version/,
    },
    {
      input: 'version `..`',
      send: get('/v2/models/floats/versions/..%2f1'),
      ...NO_MODEL,
      says: /unknown model: .* has no version/,
    },
    {
      input: 'loading `..%2f..%2fetc` on the admin port',
      send: () => http('POST /v2/repository/models/..%2f..%2fetc/load', ['Content-Length: 0']),
      ...NO_MODEL,
      says: /no model/,
      port: 'admin',
    },
    {
      input: 'unloading `__proto__` on the admin port',
      send: () => http('POST /v2/repository/models/__proto__/unload', ['Content-Length: 0']),
      ...NO_MODEL,
      says: /not served/,
      port: 'admin',
    },
    { input: 'TRACE', send: () => http('TRACE /v2'), status: 405, code: 'METHOD_NOT_ALLOWED', says: /TRACE/ },
    {
      input: 'PUT',
      send: () => http('PUT /v2/models/floats/infer', ['Content-Length: 0']),
      status: 405,
      code: 'METHOD_NOT_ALLOWED',
      says: /PUT/,
    },
  ],
  HTTP: [
    {
      input: 'two Host headers',
      send: () => 'GET /v2 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
      ...HTTP,
      says: /Host/,
    },
    { input: 'no Host header', send: () => 'GET /v2 HTTP/1.1\r\n\r\n', ...HTTP, says: /Host/ },
    {
      input: 'HTTP/2 without negotiation',
      send: () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'a NUL in a header',
      send: () => 'GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n',
      ...HTTP,
      says: /HTTP/,
    },
    { input: 'a space before the colon', send: framed(['Content-Length : 2'], '{}'), ...HTTP, says: /HTTP/ },
    {
      input: 'a folded header line',
      send: () => 'GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: a\r\n b\r\n\r\n',
      ...HTTP,
      says: /HTTP/,
    },
    { input: 'Content-Length: -5', send: framed(['Content-Length: -5']), ...HTTP, says: /HTTP/ },
    { input: 'Content-Length: +5', send: framed(['Content-Length: +5'], 'abcde'), ...HTTP, says: /HTTP/ },
    { input: 'Content-Length: 0x5', send: framed(['Content-Length: 0x5'], 'abcde'), ...HTTP, says: /HTTP/ },
    { input: 'Content-Length: 5.0', send: framed(['Content-Length: 5.0'], 'abcde'), ...HTTP, says: /HTTP/ },
    { input: 'Content-Length: 5, 5', send: framed(['Content-Length: 5, 5'], 'abcde'), ...HTTP, says: /HTTP/ },
    { input: 'Content-Length without a value', send: framed(['Content-Length:'], ''), ...HTTP, says: /HTTP/ },
    {
      input: 'Content-Length: 10^30',
      send: framed([`Content-Length: 1${'0'.repeat(30)}`]),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'Content-Length twice',
      send: framed(['Content-Length: 2', 'Content-Length: 2'], '{}'),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'Content-Length with chunked encoding',
      send: framed(['Content-Length: 5', 'Transfer-Encoding: chunked'], '0\r\n\r\n'),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'Transfer-Encoding: xchunked',
      send: framed(['Transfer-Encoding: xchunked'], '0\r\n\r\n'),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'Transfer-Encoding: chunked, identity',
      send: framed(['Transfer-Encoding: chunked, identity'], '0\r\n\r\n'),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'a chunk of 2^68 bytes',
      send: framed(['Transfer-Encoding: chunked'], 'fffffffffffffffff\r\n'),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'a chunk of -1 bytes',
      send: framed(['Transfer-Encoding: chunked'], '-1\r\n'),
      ...HTTP,
      says: /HTTP/,
    },
    {
      input: 'an unknown Content-Encoding',
      send: framed(['Content-Encoding: snappy', 'Content-Length: 2'], '{}'),
      status: 415,
      code: 'CONTENT_ENCODING_UNSUPPORTED',
      says: /snappy/,
    },
    {
      input: 'two Content-Encodings',
      send: framed(['Content-Length: 2', 'Content-Encoding: gzip', 'Content-Encoding: gzip'], '{}'),
      status: 415,
      code: 'CONTENT_ENCODING_UNSUPPORTED',
      says: /gzip, gzip/,
    },
    {
      input: 'an empty Content-Encoding',
      send: () => post(`{${GOOD}}`, { headers: ['Content-Encoding:'] }),
      ...ANSWERED,
      says: /\[1\]/,
    },
    {
      input: 'gzip data that is invalid',
      send: framed(['Content-Encoding: gzip', 'Content-Length: 2'], '{}'),
      ...BODY,
      says: /decompress/,
    },
    {
      input: 'a body of 10^12 bytes',
      send: framed(['Content-Length: 1000000000000'], '{}'),
      status: 413,
      code: 'BODY_TOO_LARGE',
      says: /at most/,
    },
    {
      input: '20 KiB of headers',
      send: () => http('GET /v2', [`X-A: ${'a'.repeat(20_000)}`]),
      status: 431,
      code: 'HEADERS_TOO_LARGE',
      says: /too large/,
    },
    {
      input: '300 headers',
      send: () =>
        http(
          'GET /v2',
          Array.from({ length: 300 }, (_, i) => `X-${i}: a`),
        ),
      status: 431,
      code: 'HEADERS_TOO_LARGE',
      says: /headers/,
    },
  ],
}

/** Text that no response may contain. */
const PRIVATE = /node_modules|\/src\/|\/dist\/|\.[jt]s:\d|\n\s+at |\/tmp\/|\/dev\/shm|\/home\/|\/proc\//

async function ask(url: string, bytes: string | Uint8Array): Promise<RawAnswer | undefined> {
  const client = await RawClient.connect(url, bytes)
  const [answer] = await client.answered()
  client.socket.destroy()
  return answer
}

/** The problem of a response; null if there is none. */
function problemOf(row: Row, answer: RawAnswer | undefined): string | null {
  const about = `${row.input}: ${answer?.status} ${answer?.headers['x-error-code']} ${answer?.body.slice(0, 500)}`
  if (answer?.status !== row.status || answer.headers['x-error-code'] !== row.code) return about
  if (PRIVATE.test(answer.body) || answer.headers['x-content-type-options'] !== 'nosniff') return about
  if (row.code === undefined) return row.says.test(answer.body) ? null : about
  const parsed = JSON.parse(answer.body) as { error: string }
  return Object.keys(parsed).join() === 'error' && row.says.test(parsed.error) ? null : about
}

test.serial(
  'every hostile input gets its documented response, and the next client a correct one',
  async (t) => {
    const models = temporaryFolder(t)
    for (const [name, element] of Object.entries(MODELS)) writeModel(models, name, identityModel(element))
    const { server, url, adminUrl } = await startServer(t, {
      models,
      args: ['--workers', '1', '--model-control', 'explicit', '--load-model', '*', '--log-level', 'debug'],
    })
    const problems: string[] = []
    let sent = 0
    for (const row of Object.values(TABLE).flat()) {
      const base = row.port === 'admin' ? adminUrl : url
      const answer = await ask(base, row.send()).catch((thrown) => String(thrown))
      const problem = typeof answer === 'string' ? `${row.input}: ${answer}` : problemOf(row, answer)
      if (problem !== null) problems.push(problem)
      const number = ++sent
      const good = await ask(url, input({ data: `[${number}]` })())
      t.is(good?.status, 200, row.input)
      t.deepEqual(JSON.parse(good?.body ?? '').outputs[0].data, [number], `after ${row.input}`)
    }
    t.deepEqual(problems, [])
    t.is(server.log.filter(({ msg }) => msg === 'worker ready').length, 1, 'the worker was never replaced')
    for (const line of server.log)
      t.false(['warn', 'error', 'fatal'].includes(line.level), JSON.stringify(line))
    await stopCleanly(t, server)
  },
)

function rendered(): string {
  const sections = Object.entries(TABLE).map(([title, rows]) => {
    const lines = rows.map(({ input: what, status, code, says }) => {
      const message = says.source === '.' ? '' : `\`${says.source.replaceAll('|', '\\|')}\``
      return `| ${what} | ${status}${code === undefined ? '' : ` \`${code}\``} | ${message} |`
    })
    return [`## ${title}`, '', '| input | response | message |', '|---|---|---|', ...lines].join('\n')
  })
  return `# Hostile inputs

Responses of the server to invalid and hostile inputs. \`test/http/hostile-inputs.test.ts\` sends each
of them to a real server and compares this page with its table. After each input the same server
answers a valid request correctly. *Message* is a pattern in the text of the error or response. No
response contains the name of a file or folder, or a source location.

${sections.join('\n\n')}
`
}

test('docs/hostile-inputs.md matches the table', (t) => {
  if (process.env.UPDATE_DOCS !== undefined) writeFileSync(DOC, rendered())
  t.is(readFileSync(DOC, 'utf8'), rendered())
})
