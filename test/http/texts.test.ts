import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import OpenAI from 'openai'
import { ServerUnderTest, temporaryFolder } from '../helpers/server.js'
import { ADVERSARIAL, textsOf } from '../helpers/text-corpus.js'
import { type TextModelOptions, writeTextModel } from '../helpers/text-models.js'
import { largestGap, TextReference } from '../helpers/text-reference.js'
import { TOKENIZER_KINDS } from '../helpers/tokenizer-files.js'

const TOLERANCE = 1e-4

interface Served {
  readonly url: string
  readonly server: ServerUnderTest
  readonly folderOf: (name: string) => string
  readonly client: OpenAI
}

async function serve(
  t: ExecutionContext,
  models: Record<string, TextModelOptions>,
  {
    args = ['--workers', '1'],
    configs = {},
  }: { args?: readonly string[]; configs?: Record<string, object> } = {},
): Promise<Served> {
  const dir = temporaryFolder(t)
  const folderOf = (name: string) => join(dir, name)
  for (const [name, options] of Object.entries(models)) writeTextModel(folderOf(name), options)
  for (const [name, config] of Object.entries(configs))
    writeFileSync(join(dir, `${name}.config.json`), JSON.stringify(config))
  const server = new ServerUnderTest(t, { models: dir, args })
  const { url } = await server.ready()
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  return { url, server, folderOf, client }
}

async function post(url: string, body: unknown): Promise<{ status: number; json: unknown }> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  })
  return { status: response.status, json: await response.json() }
}

async function withReference<T>(folder: string, work: (reference: TextReference) => Promise<T>): Promise<T> {
  const reference = await TextReference.open(folder)
  try {
    return await work(reference)
  } finally {
    await reference.close()
  }
}

test.serial(
  'the official client gets the vectors of in-process runs, as floats, as base64 and from ids',
  async (t) => {
    const { client, folderOf } = await serve(t, { minilm: {} })
    const texts = ['The white rabbit was late.', '', ...textsOf(20, { seed: 4, maxWords: 12 })]
    await withReference(folderOf('minilm'), async (reference) => {
      const expected = await Promise.all(texts.map((text) => reference.embed(text)))
      const ids = await Promise.all(texts.map((text) => reference.tokens(text)))
      const ask = (input: string | string[] | number[] | number[][], more: object = {}) =>
        client.embeddings.create({ model: 'minilm', input, ...more })
      for (const [input, more] of [
        [texts, {}],
        [texts, { encoding_format: 'float' }],
        [texts, { encoding_format: 'base64' }],
        [ids, {}],
      ] as const) {
        const answer = await ask(input as string[], more)
        t.is(answer.model, 'minilm')
        t.is(answer.usage.total_tokens, ids.flat().length)
        const vectors = answer.data.map(({ embedding }) =>
          typeof embedding === 'string'
            ? new Float32Array(Uint8Array.from(Buffer.from(embedding as string, 'base64')).buffer)
            : embedding,
        )
        t.true(vectors.every((vector, i) => largestGap(vector, expected[i] as Float32Array) < TOLERANCE))
      }
      const [single] = (await ask(texts[0] as string)).data
      t.true(largestGap(single?.embedding ?? [], expected[0] as Float32Array) < TOLERANCE)
      const [byIds] = (await ask(ids[0] as number[])).data
      t.true(largestGap(byIds?.embedding ?? [], expected[0] as Float32Array) < TOLERANCE)
      const [cut] = (await ask(texts[0] as string, { dimensions: 8 })).data
      const part = (expected[0] as Float32Array).subarray(0, 8)
      t.true(
        largestGap(
          cut?.embedding ?? [],
          part.map((value) => value / Math.hypot(...part)),
        ) < TOLERANCE,
      )
    })
    const models = await client.models.list()
    t.deepEqual(
      models.data.map(({ id }) => id),
      ['minilm'],
    )
    const [listed] = models.data
    t.deepEqual(await client.models.retrieve('minilm'), listed as OpenAI.Model)
    const unknown = await t.throwsAsync(client.models.retrieve('gpt'), { instanceOf: OpenAI.NotFoundError })
    t.like(unknown, { status: 404, code: 'MODEL_NOT_FOUND', type: 'invalid_request_error' })
  },
)

test.serial('the official client maps errors to its error classes', async (t) => {
  const { client, url } = await serve(t, { minilm: {}, judge: { kind: 'reranker' } })
  const ask = (body: object) =>
    client.embeddings.create({ model: 'minilm', input: 'x', ...body } as OpenAI.EmbeddingCreateParams)
  const cases: [object, object, RegExp][] = [
    [
      { model: 'gpt' },
      { status: 404, code: 'MODEL_NOT_FOUND', type: 'invalid_request_error' },
      /unknown model "gpt"/,
    ],
    [
      { model: 'judge' },
      { status: 400, code: 'REQUEST_INVALID' },
      /expected a model for embedding, this one is for reranking/,
    ],
    [{ input: [] }, { status: 400, code: 'REQUEST_INVALID' }, /input: expected a text, a list of texts/],
    [{ input: [7, 1_000_000] }, { status: 400 }, /input 0: expected ids from 0 to \d+, got 1000000/],
    [{ dimensions: 33 }, { status: 400 }, /dimensions: expected at most 32, the model's, got 33/],
    [{ prompt_name: 'no' }, { status: 400 }, /prompt_name: the model's prompts are query, passage, got "no"/],
    [
      { input: 'word '.repeat(100) },
      { status: 413, code: 'REQUEST_TOO_LARGE' },
      /input 0: expected at most 64 tokens/,
    ],
  ]
  for (const [body, like, message] of cases) {
    const error = await t.throwsAsync(ask(body), { instanceOf: OpenAI.APIError }, JSON.stringify(body))
    t.like(error, like)
    t.regex(error?.message ?? '', message)
  }
  const malformed = await fetch(`${url}/v1/embeddings`, { method: 'POST', body: '{' })
  t.is(malformed.status, 400)
  t.like(await malformed.json(), { error: { code: 'BODY_MALFORMED', type: 'invalid_request_error' } })
  const cut = await ask({ input: 'word '.repeat(100), truncate: true })
  t.is(cut.usage.prompt_tokens, 64)
})

test.serial(
  '32 concurrent requests with a queue of two: the official client retries until all are answered',
  async (t) => {
    const { client } = await serve(t, { minilm: {} }, { configs: { minilm: { max_queue_requests: 2 } } })
    const patient = client.withOptions({ maxRetries: 12 })
    const texts = textsOf(32, { seed: 8, maxWords: 16 })
    const alone: number[][] = []
    for (const input of texts)
      alone.push((await client.embeddings.create({ model: 'minilm', input })).data[0]?.embedding ?? [])
    const answers = await Promise.all(
      texts.map((input) => patient.embeddings.create({ model: 'minilm', input })),
    )
    for (const [i, { data }] of answers.entries())
      t.true(largestGap(data[0]?.embedding ?? [], alone[i] as number[]) < TOLERANCE)
    const refusals = await Promise.allSettled(
      texts.map((input) => client.embeddings.create({ model: 'minilm', input })),
    )
    const refused = refusals.find((one) => one.status === 'rejected')
    t.like(refused?.reason, { status: 503, code: 'QUEUE_FULL', type: 'server_error' })
  },
)

test.serial(
  '10,000 texts in one request, some adversarial: each has the same result as alone, regardless of padding',
  async (t) => {
    const { url } = await serve(t, { minilm: {} })
    const texts = [...ADVERSARIAL, ...textsOf(10_000 - ADVERSARIAL.length, { seed: 2, isAdversarial: true })]
    const { status, json } = await post(`${url}/embed`, { inputs: texts, truncate: true })
    t.is(status, 200)
    const vectors = json as number[][]
    t.is(vectors.length, texts.length)
    for (let i = 0; i < texts.length; i += i < ADVERSARIAL.length ? 1 : 97) {
      const one = await post(`${url}/embed`, { inputs: texts[i], truncate: true })
      t.true(largestGap((one.json as number[][])[0] ?? [], vectors[i] as number[]) < TOLERANCE, texts[i])
    }
  },
)

test.serial('models with tokenizers of every kind, from two workers', async (t) => {
  const models = Object.fromEntries(TOKENIZER_KINDS.map((tokenizer) => [tokenizer, { tokenizer }]))
  const { client, folderOf } = await serve(t, models, { args: ['--workers', '2'] })
  const texts = textsOf(24, { seed: 6, maxWords: 6, isAdversarial: true })
  for (const model of TOKENIZER_KINDS) {
    await withReference(folderOf(model), async (reference) => {
      const answers = await Promise.all(
        texts.map((input) =>
          client.embeddings.create({ model, input, truncate: true } as OpenAI.EmbeddingCreateParams),
        ),
      )
      for (const [i, text] of texts.entries()) {
        if ((await reference.tokens(text)).length > 64) continue
        t.true(
          largestGap(answers[i]?.data[0]?.embedding ?? [], await reference.embed(text)) < TOLERANCE,
          text,
        )
      }
    })
  }
})

test.serial(
  'embed: normalised by default, prompts by name, a vector of the graph if it has one',
  async (t) => {
    const { url, folderOf } = await serve(t, { minilm: {}, pooled: { kind: 'pooled-in-graph' } })
    const embed = async (body: object) =>
      ((await post(`${url}/embed`, { model: 'minilm', ...body })).json as number[][])[0] as number[]
    await withReference(folderOf('minilm'), async (reference) => {
      const [raw, normal] = [
        await embed({ inputs: 'a rabbit', normalize: false }),
        await embed({ inputs: 'a rabbit' }),
      ]
      t.true(Math.abs(Math.hypot(...normal) - 1) < TOLERANCE)
      t.true(
        largestGap(
          raw.map((value) => value / Math.hypot(...raw)),
          normal,
        ) < TOLERANCE,
      )
      const prompted = await embed({ inputs: 'a rabbit', prompt_name: 'query' })
      t.true(largestGap(prompted, await reference.embed('query: a rabbit')) < TOLERANCE)
    })
    await withReference(folderOf('pooled'), async (reference) => {
      const expected = await reference.run('a rabbit', { output: 'sentence_embedding' })
      t.true(largestGap(await embed({ model: 'pooled', inputs: 'a rabbit' }), expected) < TOLERANCE)
    })
    const { status, json } = await post(`${url}/embed`, { inputs: 'x' })
    t.is(status, 400)
    t.deepEqual(json, { error: 'model: expected one of minilm, pooled, got none', error_type: 'Validation' })
  },
)

test.serial('predict: probabilities by label, of texts and pairs, and entities of tokens', async (t) => {
  const { url, folderOf } = await serve(t, {
    mood: { kind: 'classifier' },
    names: { kind: 'token-classifier' },
  })
  const predict = async (body: object) => (await post(`${url}/predict`, { model: 'mood', ...body })).json
  await withReference(folderOf('mood'), async (reference) => {
    const logits = await reference.run('a rabbit', { output: 'logits' })
    const powers = Array.from(logits, Math.exp)
    const sum = powers.reduce((total, power) => total + power, 0)
    const expected = ['negative', 'neutral', 'positive']
      .map((label, i) => ({ label, score: (powers[i] as number) / sum }))
      .sort((a, b) => b.score - a.score)
    const scored = (await predict({ inputs: 'a rabbit' })) as { label: string; score: number }[]
    t.deepEqual(
      scored.map(({ label }) => label),
      expected.map(({ label }) => label),
    )
    t.true(
      largestGap(
        scored.map(({ score }) => score),
        expected.map(({ score }) => score),
      ) < TOLERANCE,
    )
    const many = (await predict({ inputs: [['a rabbit'], ['a', 'rabbit']], raw_scores: true })) as {
      score: number
    }[][]
    const pair = await reference.run('a', { pair: 'rabbit', output: 'logits' })
    const sorted = (values: ArrayLike<number>) => Array.from(values).sort((a, b) => b - a)
    t.true(largestGap(many[0]?.map(({ score }) => score) ?? [], sorted(logits)) < TOLERANCE)
    t.true(largestGap(many[1]?.map(({ score }) => score) ?? [], sorted(pair)) < TOLERANCE)
  })
  const entities = (await predict({
    model: 'names',
    inputs: 'The White Rabbit',
    aggregation_strategy: 'first',
  })) as {
    entity_group: string
    word: string
    start: number
    end: number
  }[]
  t.true(Array.isArray(entities))
  for (const { word, start, end } of entities) t.is('The White Rabbit'.slice(start, end), word)
})

test.serial('rerank, in both APIs: best first, with the scores of the runtime', async (t) => {
  const { url, folderOf } = await serve(t, { judge: { kind: 'reranker' } })
  const query = 'who was late'
  const texts = ['it rained', 'the white rabbit was late', 'alice', 'a hot day']
  await withReference(folderOf('judge'), async (reference) => {
    const logits = await Promise.all(
      texts.map(async (pair) => (await reference.run(query, { pair, output: 'logits' }))[0] as number),
    )
    const order = logits.map((_, i) => i).sort((a, b) => (logits[b] as number) - (logits[a] as number))
    const ranks = (await post(`${url}/rerank`, { query, texts, raw_scores: true, return_text: true }))
      .json as {
      index: number
      score: number
      text: string
    }[]
    t.deepEqual(
      ranks.map(({ index }) => index),
      order,
    )
    for (const { index, score, text } of ranks) {
      t.true(Math.abs(score - (logits[index] as number)) < TOLERANCE)
      t.is(text, texts[index] as string)
    }
    const documents = texts.map((text, i) => (i === 1 ? { text } : text))
    const { json } = await post(`${url}/v1/rerank`, {
      model: 'judge',
      query,
      documents,
      top_n: 2,
      return_documents: true,
    })
    const { results } = json as {
      results: { index: number; relevance_score: number; document: { text: string } }[]
    }
    t.deepEqual(
      results.map(({ index }) => index),
      order.slice(0, 2),
    )
    const [best] = results
    const logit = logits[best?.index ?? 0] as number
    t.true(Math.abs((best?.relevance_score ?? 0) - 1 / (1 + Math.exp(-logit))) < TOLERANCE)
    t.is(best?.document.text, texts[best?.index ?? 0])
  })
})

test.serial('FP16 outputs give the same results as FP32, for every task', async (t) => {
  const kinds = ['sentence', 'pooled-in-graph', 'classifier', 'token-classifier', 'reranker'] as const
  const models = kinds.flatMap((kind) => [
    [kind, { kind }] as const,
    [`${kind}-half`, { kind, encoder: { isHalf: true } }] as const,
  ])
  const { url } = await serve(t, Object.fromEntries(models))
  const texts = textsOf(12, { seed: 8, maxWords: 10 })
  const numbersIn = (value: unknown): number[] =>
    typeof value === 'number'
      ? [value]
      : typeof value === 'object' && value !== null
        ? Object.values(value).flatMap(numbersIn)
        : []
  const requests = {
    sentence: ['/embed', { inputs: texts }],
    'pooled-in-graph': ['/embed', { inputs: texts }],
    classifier: ['/predict', { inputs: texts.map((text) => [text]) }],
    'token-classifier': ['/predict', { inputs: texts.map((text) => [text]), aggregation_strategy: 'none' }],
    reranker: ['/rerank', { query: 'who was late', texts }],
  } as const
  for (const kind of kinds) {
    const [path, body] = requests[kind]
    const [single, half] = await Promise.all(
      [kind, `${kind}-half`].map((model) => post(`${url}${path}`, { model, ...body })),
    )
    t.is(half?.status, 200, JSON.stringify(half?.json))
    const [expected, got] = [numbersIn(single?.json), numbersIn(half?.json)]
    t.true(expected.length >= texts.length)
    // FP16 has eleven significant bits.
    t.true(largestGap(got, expected) < 2e-3, kind)
    t.notDeepEqual(got, expected, 'the graph really has FP16')
  }
})

test.serial('tokenize and info describe how the model reads texts', async (t) => {
  const { url } = await serve(t, { minilm: {} })
  const { json } = await post(`${url}/tokenize`, { inputs: ['White rabbit', ''], add_special_tokens: false })
  const [tokens, none] = json as {
    id: number
    text: string
    special: boolean
    start: number
    stop: number
  }[][]
  t.deepEqual(none, [])
  for (const { special, start, stop, text } of tokens ?? []) {
    t.false(special)
    t.is('white rabbit'.slice(start, stop), text.replace('##', ''))
  }
  const info = await (await fetch(`${url}/info`)).json()
  t.like(info, {
    model_id: 'minilm',
    model_type: { embedding: { pooling: 'mean' } },
    max_input_length: 64,
    max_batch_tokens: 16_384,
    prompts: ['query', 'passage'],
  })
  const missing = await fetch(`${url}/info?model=none`)
  t.is(missing.status, 404)
  t.deepEqual(await missing.json(), { error: 'unknown model "none"', error_type: 'Validation' })
})

test.serial('infer accepts texts as BYTES instead of the token ids of the graph', async (t) => {
  const { url, folderOf } = await serve(t, { minilm: {}, judge: { kind: 'reranker' } })
  const texts = ['The white rabbit', 'oh dear']
  const bytes = (name: string, data: readonly string[]) => ({
    name,
    datatype: 'BYTES',
    shape: [data.length],
    data,
  })
  const infer = (model: string, body: object) => post(`${url}/v2/models/${model}/infer`, body)
  await withReference(folderOf('minilm'), async (reference) => {
    const { json } = await infer('minilm', { inputs: [bytes('text', texts)] })
    const [output] = (json as { outputs: { name: string; shape: number[]; data: number[] }[] }).outputs
    t.like(output, { name: 'sentence_embedding', shape: [2, 32] })
    const expected = await Promise.all(texts.map((text) => reference.embed(text)))
    t.true(
      largestGap(
        output?.data ?? [],
        expected.flatMap((vector) => [...vector]),
      ) < TOLERANCE,
    )
    const ids = await reference.tokens('oh dear')
    const tensor = (name: string, data: number[]) => ({
      name,
      datatype: 'INT64',
      shape: [1, data.length],
      data,
    })
    const plain = await infer('minilm', {
      inputs: [
        tensor('input_ids', ids),
        tensor(
          'attention_mask',
          ids.map(() => 1),
        ),
        tensor(
          'token_type_ids',
          ids.map(() => 0),
        ),
      ],
    })
    t.like(plain, {
      status: 200,
      json: { outputs: [{ name: 'last_hidden_state', shape: [1, ids.length, 32] }] },
    })
  })
  const scored = await infer('judge', {
    inputs: [bytes('text', ['who was late', 'who']), bytes('text_pair', ['the rabbit', 'alice'])],
  })
  t.like(scored, { status: 200, json: { outputs: [{ name: 'scores', shape: [2, 1] }] } })
  const uneven = await infer('judge', { inputs: [bytes('text', texts), bytes('text_pair', ['one'])] })
  t.like(uneven, { status: 400 })
  t.regex((uneven.json as { error: string }).error, /input "text_pair": expected 2 elements/)
  const long = { inputs: [bytes('text', ['word '.repeat(100)])] }
  t.is((await infer('minilm', long)).status, 413)
  t.is((await infer('minilm', { ...long, parameters: { truncate: true } })).status, 200)
})

test.serial(
  'a dynamically quantised model computes texts one at a time: other texts have no influence',
  async (t) => {
    const { url } = await serve(t, { quant: { encoder: { isQuantised: true } } })
    const texts = textsOf(12, { seed: 3 })
    const together = (await post(`${url}/embed`, { inputs: texts })).json as number[][]
    for (const [i, text] of texts.entries()) {
      const alone = (await post(`${url}/embed`, { inputs: text })).json as number[][]
      t.deepEqual(alone[0], together[i])
    }
  },
)

test.serial(
  'a model whose results depend on padding batches only texts of equal length, and logs it',
  async (t) => {
    const { url, server, folderOf } = await serve(t, { careless: { encoder: { isMaskIgnored: true } } })
    const line = await server.logged(({ msg }) => msg.startsWith('padding changes the results'))
    t.regex(String(line.reason), /^a sequence of 3 tokens differs by .* when it is padded to 5$/)
    const texts = textsOf(40, { seed: 5, maxWords: 8 })
    const vectors = (await post(`${url}/embed`, { inputs: texts })).json as number[][]
    await withReference(folderOf('careless'), async (reference) => {
      for (const [i, text] of texts.entries())
        t.true(largestGap(vectors[i] ?? [], await reference.embed(text)) < TOLERANCE)
    })
  },
)

test.serial('a model whose graph differs from its folder is out of service, with the reason', async (t) => {
  const { client, server } = await serve(
    t,
    { minilm: {}, broken: { kind: 'classifier', encoder: { labels: 5 } } },
    { args: ['--workers', '1', '--exit-on-error', 'off'] },
  )
  const line = await server.logged(({ msg }) => /the model is out of service in a worker/.test(msg))
  t.is(line.code, 'MODEL_UNSUPPORTED')
  await t.notThrowsAsync(client.embeddings.create({ model: 'minilm', input: 'x' }))
  const error = await t.throwsAsync(client.embeddings.create({ model: 'broken', input: 'x' }))
  t.like(error, { status: 503 })
  t.regex(
    error?.message ?? '',
    /output logits: expected a logit for each of the 3 labels in config\.json, got 5/,
  )
})
