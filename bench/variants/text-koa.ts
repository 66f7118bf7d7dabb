/**
 * The usual embedding server in Node.js: cluster workers with Koa, each with a copy of the model.
 * They use the JavaScript tokenizer and the runtime of transformers.js, or the package itself if
 * BENCH_TRANSFORMERS names a folder that contains it.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Tokenizer } from '@huggingface/tokenizers'
import Router from '@koa/router'
import Koa from 'koa'
import { Tensor } from 'onnxruntime-node'
import { runFleet } from './fleet.js'
import { openSession, SESSION_OPTIONS } from './session.js'

const TEXT_MODEL = 'encoder'

interface EmbeddingsBody {
  readonly input: string | readonly string[]
}

function readJson(path: string): object {
  return JSON.parse(readFileSync(path, 'utf8')) as object
}

type Embed = (texts: readonly string[]) => Promise<number[][]>

/** The used part of @huggingface/transformers, which is installed outside the project. */
interface Transformers {
  readonly env: { allowRemoteModels: boolean; localModelPath: string }
  pipeline(
    task: 'feature-extraction',
    model: string,
    options: object,
  ): Promise<
    (
      texts: readonly string[],
      options: { pooling: 'mean'; normalize: true },
    ) => Promise<{ tolist(): number[][] }>
  >
}

async function transformersEmbedder(folder: string, modelsDir: string): Promise<Embed> {
  const entry = createRequire(join(folder, 'any.js')).resolve('@huggingface/transformers')
  const { env, pipeline } = (await import(pathToFileURL(entry).href)) as Transformers
  env.allowRemoteModels = false
  env.localModelPath = modelsDir
  // The session options of the package, except for the threads: by default every worker has one per
  // core.
  const { intraOpNumThreads, interOpNumThreads } = SESSION_OPTIONS
  const session_options = { intraOpNumThreads, interOpNumThreads }
  const extract = await pipeline('feature-extraction', TEXT_MODEL, { dtype: 'fp32', session_options })
  return async (texts) => (await extract(texts, { pooling: 'mean', normalize: true })).tolist()
}

async function embedder(modelsDir: string): Promise<Embed> {
  const folder = join(modelsDir, TEXT_MODEL)
  const session = await openSession(join(folder, 'onnx', 'model.onnx'))
  const tokenizer = new Tokenizer(
    readJson(join(folder, 'tokenizer.json')),
    readJson(join(folder, 'tokenizer_config.json')),
  )
  return async (texts) => {
    const sequences = texts.map((text) => tokenizer.encode(text).ids)
    const length = Math.max(...sequences.map((ids) => ids.length))
    const shape = [texts.length, length]
    const tensor = (value: (ids: readonly number[], place: number) => number) => {
      const values = sequences.flatMap((ids) => Array.from({ length }, (_, i) => BigInt(value(ids, i))))
      return new Tensor('int64', BigInt64Array.from(values), shape)
    }
    const { last_hidden_state: states } = await session.run({
      input_ids: tensor((ids, i) => ids[i] ?? 0),
      attention_mask: tensor((ids, i) => (i < ids.length ? 1 : 0)),
      token_type_ids: tensor(() => 0),
    })
    const data = states?.data as Float32Array
    const hidden = states?.dims[2] ?? 0
    return sequences.map((ids, row) => {
      const mean = new Float32Array(hidden)
      for (let token = 0; token < ids.length; token++)
        for (let i = 0; i < hidden; i++)
          mean[i] = (mean[i] as number) + (data[(row * length + token) * hidden + i] as number) / ids.length
      const size = Math.hypot(...mean)
      return Array.from(mean, (value) => value / size)
    })
  }
}

await runFleet(async ({ modelsDir }) => {
  const transformers = process.env.BENCH_TRANSFORMERS ?? ''
  const embed =
    transformers === '' ? await embedder(modelsDir) : await transformersEmbedder(transformers, modelsDir)
  const router = new Router()
  router.post('/v1/embeddings', async (ctx) => {
    const chunks: Buffer[] = []
    for await (const chunk of ctx.req) chunks.push(chunk as Buffer)
    const { input } = JSON.parse(Buffer.concat(chunks).toString()) as EmbeddingsBody
    const vectors = await embed(typeof input === 'string' ? [input] : input)
    ctx.body = { object: 'list', data: vectors.map((embedding, index) => ({ index, embedding })) }
  })
  const app = new Koa()
  app.use(router.routes())
  return app.callback()
})
