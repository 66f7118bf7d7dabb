import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { ServerUnderTest, temporaryFolder } from '../helpers/server.js'
import { writeTextModel } from '../helpers/text-models.js'

interface Row {
  readonly path: string
  /** As text or bytes: sent as it is. */
  readonly body: object | string | Uint8Array<ArrayBuffer>
  readonly status: number
  readonly says: RegExp
}

async function serve(t: ExecutionContext): Promise<{ url: string; server: ServerUnderTest }> {
  const dir = temporaryFolder(t)
  writeTextModel(join(dir, 'minilm'))
  writeTextModel(join(dir, 'prompted'))
  writeFileSync(join(dir, 'prompted.config.json'), '{"text": {"default_prompt": "query"}}')
  writeTextModel(join(dir, 'judge'), { kind: 'reranker' })
  writeTextModel(join(dir, 'mood'), { kind: 'classifier' })
  const server = new ServerUnderTest(t, { models: dir, args: ['--workers', '1'] })
  return { ...(await server.ready()), server }
}

async function post(url: string, body: Row['body']): Promise<{ status: number; text: string }> {
  const isRaw = typeof body === 'string' || body instanceof Uint8Array
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: isRaw ? body : JSON.stringify(body),
  })
  return { status: response.status, text: await response.text() }
}

/** The message in the form of either API. */
function messageOf(text: string): string {
  const { error } = JSON.parse(text) as { error: string | { message: string } }
  return typeof error === 'string' ? error : error.message
}

const EMBEDDINGS = '/v1/embeddings'
const WORDS = 'word '.repeat(100)
const minilm = { model: 'minilm' }
const judge = { model: 'judge', query: 'q' }
const mood = { model: 'mood' }
const bytes = (...parts: (string | number[])[]) =>
  new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part as string))))

const refused = (path: string, body: Row['body'], says: RegExp, status = 400): Row => ({
  ...{ path, body, status, says },
})

const REFUSALS: readonly Row[] = [
  refused(EMBEDDINGS, { ...minilm, input: [] }, /^input: expected a text, a list of texts, ids/),
  refused(EMBEDDINGS, { ...minilm, input: null }, /^input: expected a text/),
  refused(
    EMBEDDINGS,
    { ...minilm, input: [null] },
    /^input\.0: expected a text, the id of a token or a list of ids of tokens, got null$/,
  ),
  refused(
    EMBEDDINGS,
    { ...minilm, input: ['a', 1] },
    /^input\.1: expected a text like the elements before it, got 1$/,
  ),
  refused(EMBEDDINGS, { ...minilm, input: [1, 'a'] }, /^input\.1: expected the id of a token .*got a text$/),
  refused(EMBEDDINGS, { ...minilm, input: [[5], []] }, /^input\.1: expected a list of ids .*an empty list$/),
  refused(EMBEDDINGS, { ...minilm, input: [-1] }, /^input\.0: .*got -1$/),
  refused(EMBEDDINGS, { ...minilm, input: [1.5] }, /^input\.0: .*got 1\.5$/),
  refused(
    EMBEDDINGS,
    { ...minilm, input: [[5], [99_999]] },
    /^input 1: expected ids from 0 to \d+, got 99999/,
  ),
  refused(EMBEDDINGS, { ...minilm, input: Array(100).fill(5) }, /^input 0: expected at most 64 tokens/, 413),
  refused(EMBEDDINGS, { ...minilm, input: 'a', dimensions: 0 }, /^dimensions: .*>0/),
  refused(EMBEDDINGS, { ...minilm, input: 'a', dimensions: 33 }, /^dimensions: expected at most 32/),
  refused(EMBEDDINGS, { ...minilm, input: 'a', encoding_format: 'int8' }, /^encoding_format: .*"float"/),
  refused(EMBEDDINGS, { ...minilm, input: 'a', truncate: 'true' }, /^truncate: .*expected boolean/),
  refused(
    EMBEDDINGS,
    { ...minilm, input: [5], prompt_name: 'query' },
    /^prompt_name: expected texts, got ids/,
  ),
  refused(EMBEDDINGS, { input: 'a' }, /^model: /),
  refused(EMBEDDINGS, { model: 'a\n', input: 'a' }, /^unknown model "a\\n"$/, 404),
  refused(EMBEDDINGS, '', /^expected JSON: /),
  refused(EMBEDDINGS, 'null', /expected object, received null/),
  refused(
    EMBEDDINGS,
    bytes('{"model":"minilm","input":"', [0xff], '"}'),
    /^expected JSON in UTF-8, got other/,
  ),
  refused('/embed', { inputs: ['a', null], ...minilm }, /^inputs\.1: expected a text like .*got null$/),
  refused('/embed', { inputs: WORDS, ...minilm }, /^input 0: expected at most 64 tokens/, 413),
  refused(
    '/embed',
    { inputs: WORDS, ...minilm, truncate: true, truncation_direction: 'Left' },
    /^truncation_direction: expected right, as the model's tokenizer_config\.json says, got Left$/,
  ),
  refused('/v1/rerank', { ...judge, documents: [] }, /^documents: /),
  refused(
    '/v1/rerank',
    { ...judge, documents: ['a', { title: 't' }] },
    /^documents\.1: expected a text or an object with a text .*got an object$/,
  ),
  refused('/v1/rerank', { ...judge, documents: [null] }, /^documents\.0: .*got null$/),
  refused('/v1/rerank', { ...judge, documents: ['a'], top_n: 0 }, /^top_n: /),
  refused('/rerank', { ...judge, query: null, texts: ['a'] }, /^query: /),
  refused('/rerank', { ...judge, texts: ['a', 5] }, /^texts\.1: .*got 5$/),
  refused(
    '/predict',
    { ...mood, inputs: ['a', 'b', 'c'] },
    /^inputs: expected at most 2 texts, a pair, got 3$/,
  ),
  refused(
    '/predict',
    { ...mood, inputs: [['a'], ['a', 'b', 'c']] },
    /^inputs\.1: expected a list of one or two/,
  ),
  refused('/predict', { ...mood, inputs: [[]] }, /^inputs\.0: .*an empty list$/),
  refused('/tokenize', { ...minilm, inputs: 5 }, /^inputs: expected a text, or a list of texts$/),
  refused(
    '/tokenize',
    { ...minilm, inputs: 'a', prompt_name: 'no' },
    /^prompt_name: the model's prompts are/,
  ),
]

test.serial(
  'unusual text requests are refused with the member that is wrong, in the form of each API',
  async (t) => {
    const { url } = await serve(t)
    for (const { path, body, status, says } of REFUSALS) {
      const name = `${path} ${JSON.stringify(body).slice(0, 120)}`
      const answer = await post(url + path, body)
      t.is(answer.status, status, name)
      t.regex(messageOf(answer.text), says, name)
    }
    for (const [method, path, status] of [
      ['GET', EMBEDDINGS, 405],
      ['DELETE', '/embed', 405],
      ['POST', '/info', 405],
      ['GET', '/info?model=none', 404],
      ['GET', '/info?model=minilm&model=judge', 400],
    ] as const)
      t.is((await fetch(url + path, { method })).status, status, `${method} ${path}`)
  },
)

test.serial('unusual text requests that both APIs accept are answered', async (t) => {
  const { url } = await serve(t)
  const same = {
    ...minilm,
    input: 'a',
    user: 'u',
    dimensions: null,
    encoding_format: null,
    prompt_name: null,
  }
  const plain = (await post(url + EMBEDDINGS, { ...minilm, input: 'a' })).text
  t.is((await post(url + EMBEDDINGS, same)).text, plain)
  for (const [path, body] of [
    // Half of a surrogate pair counts as U+FFFD.
    [EMBEDDINGS, { ...minilm, input: ['', 'a\0b', '👍🏽', '👍'.slice(0, 1)] }],
    [EMBEDDINGS, { ...minilm, input: Array(100).fill(5), truncate: true }],
    ['/embed', { ...minilm, inputs: WORDS, truncate: true, truncation_direction: 'Right' }],
    ['/v1/rerank', { ...judge, documents: ['', { text: 'b', title: 't' }], top_n: 9 }],
    ['/rerank', { model: null, query: '', texts: [WORDS], truncate: true }],
    ['/predict', { ...mood, inputs: [['a'], ['b', 'c'], ['']] }],
    ['/tokenize', { ...minilm, inputs: '', add_special_tokens: false }],
  ] as const) {
    const { status, text } = await post(url + path, body)
    t.is(status, 200, `${path} ${JSON.stringify(body).slice(0, 120)}: ${text.slice(0, 200)}`)
  }
  const tokens = async (body: object) => (await post(`${url}/tokenize`, { ...minilm, ...body })).text
  const prompted = await tokens({ inputs: 'query: a' })
  t.is(await tokens({ inputs: 'a', prompt_name: 'query' }), prompted)
  t.is(await tokens({ inputs: 'a', model: 'prompted' }), prompted)
})

test.serial('long lists of wrong or too many elements cost one error, not the worker', async (t) => {
  const { url, server } = await serve(t)
  const many = (element: string, count: number) => `[${`${element},`.repeat(count - 1)}${element}]`
  const ask = async (path: string, body: string) => {
    const { status, text } = await post(url + path, body)
    return [status, messageOf(text)]
  }
  t.deepEqual(await ask(EMBEDDINGS, `{"model":"minilm","input":${many('{}', 3_000_000)}}`), [
    400,
    'input.0: expected a text, the id of a token or a list of ids of tokens, got an object',
  ])
  t.deepEqual(await ask('/predict', `{"model":"mood","inputs":${many('["a",1]', 1_000_000)}}`), [
    400,
    'inputs.0: expected a text or a list of one or two texts, got a list',
  ])
  t.deepEqual(await ask('/tokenize', `{"model":"minilm","inputs":${many('""', 1_000_001)}}`), [
    413,
    'inputs: expected at most 1000000 elements in a request, got 1000001',
  ])
  // Ids are of one text: correct elements, whose number is the text's length.
  const [status] = await ask(EMBEDDINGS, `{"model":"minilm","input":${many('5', 3_000_000)}}`)
  t.is(status, 413)
  t.false(server.log.some(({ msg }) => /worker.*(exited|gone|crashed)/.test(String(msg))))
})
