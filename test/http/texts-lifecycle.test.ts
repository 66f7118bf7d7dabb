import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import OpenAI from 'openai'
import { runCommand, ServerUnderTest, temporaryFolder } from '../helpers/server.js'
import { textsOf } from '../helpers/text-corpus.js'
import { writeFiles, writeTextModel } from '../helpers/text-models.js'
import { largestGap, TextReference } from '../helpers/text-reference.js'
import { until } from '../helpers/waiting.js'

/** The status for a text with this number of tokens: 413 if it is too long. */
async function tokensOf(url: string, inputs: string): Promise<number> {
  const body = JSON.stringify({ inputs })
  const response = await fetch(`${url}/tokenize`, { method: 'POST', body })
  return response.status
}

test.serial(
  'a text model changes while it serves: its limit, then its weights, without a failed request',
  async (t) => {
    const dir = temporaryFolder(t)
    const folder = writeTextModel(join(dir, 'minilm'))
    const server = new ServerUnderTest(t, { models: dir, args: ['--workers', '1', '--watch'] })
    const { url } = await server.ready()
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
    const embed = async () =>
      (await client.embeddings.create({ model: 'minilm', input: 'a white rabbit' })).data[0]?.embedding ?? []
    const before = await embed()
    let isOver = false
    const load = (async () => {
      while (!isOver) await embed()
    })()
    const long = 'word '.repeat(20)
    t.is(await tokensOf(url, long), 200)
    writeFileSync(join(dir, 'minilm.config.json'), '{"text": {"max_length": 8}}')
    await until('the new limit', async () => (await tokensOf(url, long)) === 413)
    writeTextModel(folder, { encoder: { seed: 99 } })
    const reference = await TextReference.open(folder)
    const expected = await reference.embed('a white rabbit')
    await reference.close()
    t.true(largestGap(before, expected) > 1e-2)
    await until('the new weights', async () => largestGap(await embed(), expected) < 1e-4)
    isOver = true
    await t.notThrowsAsync(load)
  },
)

test.serial('an exceeded deadline is 504, also for texts', async (t) => {
  const dir = temporaryFolder(t)
  writeTextModel(join(dir, 'minilm'))
  const { url } = await new ServerUnderTest(t, { models: dir, args: ['--workers', '1'] }).ready()
  const texts = textsOf(2000)
  const input = { name: 'text', datatype: 'BYTES', shape: [texts.length], data: texts }
  const infer = (timeout: number) =>
    fetch(`${url}/v2/models/minilm/infer`, {
      method: 'POST',
      body: JSON.stringify({ inputs: [input], parameters: { timeout, truncate: true } }),
    })
  const late = await infer(1000)
  t.is(late.status, 504)
  t.is(late.headers.get('X-Error-Code'), 'DEADLINE_EXCEEDED')
  t.is((await infer(60_000_000)).status, 200)
})

test.serial('an invalid key is an authentication error of the official client', async (t) => {
  const dir = temporaryFolder(t)
  writeTextModel(join(dir, 'minilm'))
  const made = runCommand(['key', 'alice'])
  const keys = join(temporaryFolder(t), 'keys')
  writeFileSync(keys, made.stderr)
  const args = ['--workers', '1', '--api-keys-file', keys]
  const { url } = await new ServerUnderTest(t, { models: dir, args }).ready()
  const ask = (apiKey: string) =>
    new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }).embeddings.create({
      model: 'minilm',
      input: 'x',
    })
  await t.notThrowsAsync(ask(made.stdout.trim()))
  const error = await t.throwsAsync(ask('wrong'), { instanceOf: OpenAI.AuthenticationError })
  t.like(error, { status: 401, code: 'UNAUTHORIZED', type: 'authentication_error' })
})

test.serial('inspect shows how a folder was read, and its problems', async (t) => {
  const folder = writeTextModel(join(temporaryFolder(t), 'minilm'))
  const inspect = (path: string) => runCommand(['inspect', path, '--no-measure', '--json'])
  for (const path of [folder, join(folder, 'onnx', 'model.onnx')]) {
    const { stdout, code } = inspect(path)
    t.is(code, 0)
    t.like(JSON.parse(stdout), {
      name: 'minilm',
      model: join(folder, 'onnx', 'model.onnx'),
      text: { task: 'embedding', pooling: 'mean', isNormalized: true, maxLength: 64, problem: null },
    })
  }
  const table = runCommand(['inspect', folder, '--no-measure'])
  t.regex(table.stdout, /mean over tokens, then normalised/)
  writeFiles(folder, { 'config.json': { is_encoder_decoder: true } })
  const refused = inspect(folder)
  t.is(refused.code, 1)
  t.like(JSON.parse(refused.stdout), { error: { code: 'REPOSITORY_INVALID' } })
})
