/**
 * Embeddings of texts: throughput and memory of onecopy, which batches texts of all requests and
 * has one copy of the weights, compared with Koa workers that have a copy each. Both serve the same
 * files and answer the same requests. The bare runtime, one text at a time, is the limit for
 * servers without batching.
 */
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TextTokenizer } from '../src/transform/tokenizer-library.js'
import { textsOf } from '../test/helpers/text-corpus.js'
import { writeTextModel } from '../test/helpers/text-models.js'
import { startBareLoop } from './harness/bare-loop.js'
import { defineBench } from './harness/bench.js'
import { closedLoopArm } from './harness/closed-loop.js'
import { comparisonChart, comparisonTable, noFailures, ratioCheck, valuesOf } from './harness/compare.js'
import { hostMemory, settle } from './harness/footprint.js'
import { countOption, folderOption, positiveOption, risingOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import type { InferRequest } from './harness/requests.js'
import { alternate, stepsOf } from './harness/rounds.js'
import { type RunningServer, startOnecopy, startVariant } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatMb, formatNumber, formatSpread, spread } from './harness/statistics.js'

const MODEL = 'encoder'
/** The dimensions of a small sentence model. */
const ENCODER = { hidden: 384, heads: 12, layers: 6, maxPositions: 512 }
const TEXTS = 64
const TOLERANCE = 1e-4
const BAR = 2
const BAR_CONNECTIONS = 32

interface Options {
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
  readonly tokens: readonly number[]
  readonly connections: readonly number[]
  readonly memoryWorkers: readonly number[]
  /**
   * Folder with @huggingface/transformers; null if Koa uses its tokenizer and the runtime directly.
   */
  readonly transformers: string | null
}

function writeModel(stage: Stage): string {
  const dir = stage.folder(tmpdir(), 'onecopy-bench-texts-')
  const limits = { max_seq_length: 512 }
  writeTextModel(join(dir, MODEL), {
    encoder: ENCODER,
    maxLength: 512,
    files: { 'sentence_bert_config.json': limits },
  })
  return dir
}

/** Texts of about `tokens` tokens each, and never more. */
async function textsWith(dir: string, tokens: number): Promise<string[]> {
  const json = readFileSync(join(dir, MODEL, 'tokenizer.json'), 'utf8')
  const tokenizer = TextTokenizer.open({ json, maxLength: 512, truncationSide: 'right' })
  const words = textsOf(TEXTS * tokens, { maxWords: 1, seed: tokens })
  const texts: string[] = []
  for (let at = 0; texts.length < TEXTS; at += tokens) {
    const part = words.slice(at, at + tokens)
    for (;;) {
      const [encoded] = await tokenizer.encode([part.join(' ')])
      if ((encoded?.ids.length ?? 0) <= tokens) break
      part.length -= Math.max(1, Math.floor(((encoded?.ids.length ?? 0) - tokens) / 2))
    }
    texts.push(part.join(' '))
  }
  return texts
}

function requestsOf(texts: readonly string[]): InferRequest[] {
  return texts.map((input) => ({
    method: 'POST',
    path: '/v1/embeddings',
    headers: { 'Content-Type': 'application/json' },
    body: Buffer.from(JSON.stringify({ model: MODEL, input })),
  }))
}

async function vectorFrom(server: RunningServer, { path, body }: InferRequest): Promise<number[]> {
  const response = await fetch(`http://127.0.0.1:${server.port}${path}`, {
    method: 'POST',
    body: body.toString(),
  })
  if (response.status !== 200) throw new Error(`${server.name} answered ${response.status}`)
  const { data } = (await response.json()) as { data: { embedding: number[] }[] }
  return data[0]?.embedding ?? []
}

async function requireSameVectors(servers: readonly RunningServer[], request: InferRequest): Promise<void> {
  const [first = [], ...others] = await Promise.all(servers.map((server) => vectorFrom(server, request)))
  for (const other of others)
    if (
      other.length !== first.length ||
      other.some((value, i) => !(Math.abs(value - (first[i] as number)) < TOLERANCE))
    )
      throw new Error('expected the same vector from both servers')
}

interface Common {
  readonly stage: Stage
  readonly model: { readonly repositoryDir: string }
  readonly workers: number
}

function startKoa(common: Common, transformers: string | null): Promise<RunningServer> {
  const name = transformers === null ? 'Koa, a copy in each worker' : 'Koa with transformers.js'
  const env = transformers === null ? {} : { BENCH_TRANSFORMERS: transformers }
  return startVariant('text-koa', { ...common, name, env })
}

const MEMORY_TOKENS = 64
const REQUESTS_PER_WORKER = 16

/** Memory of a server after every worker has answered texts. */
async function memoryWith(server: RunningServer, requests: readonly InferRequest[]): Promise<number> {
  const count = REQUESTS_PER_WORKER * server.workerPids.length
  await Promise.all(
    Array.from({ length: count }, (_, i) =>
      vectorFrom(server, requests[i % requests.length] as InferRequest),
    ),
  )
  await settle(server)
  return (await hostMemory(server)).totalBytes
}

async function memoryByWorkers({ memoryWorkers, transformers }: Options): Promise<BenchReport> {
  await using stage = new Stage()
  const repositoryDir = writeModel(stage)
  const requests = requestsOf(await textsWith(repositoryDir, MEMORY_TOKENS))
  using progress = createProgress('memory', 2 * memoryWorkers.length)
  const starts = [
    (common: Common) => startOnecopy(common),
    (common: Common) => startKoa(common, transformers),
  ]
  const series: { name: string; bytes: number[] }[] = []
  for (const start of starts) {
    const bytes: number[] = []
    let name = ''
    for (const workers of memoryWorkers) {
      progress.step(`${workers} workers`)
      const server = await start({ stage, model: { repositoryDir }, workers })
      name = server.name
      bytes.push(await memoryWith(server, requests))
      await stage.stop(server.child)
    }
    series.push({ name, bytes })
  }
  const [ours, theirs] = series.map(({ bytes }) => bytes.at(-1) ?? 0) as [number, number]
  const most = memoryWorkers.at(-1) ?? 0
  const title = `memory after texts of ${MEMORY_TOKENS} tokens, an encoder of ${ENCODER.layers} layers`
  return {
    name: 'texts-memory',
    title,
    table: {
      head: ['total host memory, MB', ...memoryWorkers.map((workers) => `${workers} workers`)],
      rows: series.map(({ name, bytes }) => [name, ...bytes.map(formatMb)]),
    },
    checks: [
      {
        claim: `memory with ${most} workers, onecopy / Koa`,
        got: `${formatNumber(ours / theirs)}x`,
        bar: 'below 1x',
        isMet: ours < theirs,
      },
    ],
    notes: [
      'each page counts once: proportional set sizes of all processes, plus unmapped parts of the segment',
    ],
    charts: [],
    setting: { ...ENCODER, memoryWorkers, tokens: MEMORY_TOKENS },
    raw: series,
  }
}

async function throughputOf(
  { tokens, connections }: { readonly tokens: number; readonly connections: number },
  { seconds, rounds, workers, transformers }: Options,
): Promise<BenchReport> {
  await using stage = new Stage()
  const repositoryDir = writeModel(stage)
  const requests = requestsOf(await textsWith(repositoryDir, tokens))
  const common = { stage, model: { repositoryDir }, workers }
  const servers = [await startOnecopy(common), await startKoa(common, transformers)]
  const path = join(repositoryDir, MODEL, 'onnx', 'model.onnx')
  const model = { name: MODEL, path }
  const bare = await startBareLoop({ stage, model, processes: workers, inputs: TEXTS, tokens })
  await requireSameVectors(servers, requests[0] as InferRequest)
  const title = `texts of ${tokens} tokens, ${connections} clients, ${workers} workers`
  using progress = createProgress(title, stepsOf(servers.length + 1, rounds))
  const arms = await alternate(
    [...servers.map((server) => closedLoopArm(server, { requests, connections })), bare],
    { rounds, seconds, progress },
  )
  const [over, under] = arms
  if (over === undefined || under === undefined) throw new Error('expected two variants')
  const perSecond = arms.map((arm) => {
    const texts = valuesOf(arm, 'requestsPerSecond')
    return `${arm.name}: ${formatSpread(spread(texts.map((one) => one * tokens)))} tokens/s`
  })
  const isJudged = connections === BAR_CONNECTIONS
  return {
    name: `texts-${tokens}-${connections}`,
    title,
    table: comparisonTable(arms),
    checks: [
      ...(isJudged
        ? [ratioCheck({ over, under, metric: 'requestsPerSecond', bar: BAR, isMetWhen: 'at least' })]
        : []),
      noFailures(arms),
    ],
    notes: [
      ...perSecond,
      `bare session.run: one text at a time, ${workers} processes, without HTTP and tokenization`,
    ],
    charts: [comparisonChart(title, arms, 'requestsPerSecond')],
    setting: { ...ENCODER, tokens, connections, workers, rounds, seconds },
    raw: arms,
  }
}

export const texts = defineBench({
  name: 'texts',
  summary: 'Embeddings: batches over all requests and one copy of the weights, compared with Koa workers.',
  options: {
    seconds: positiveOption({
      help: 'Duration of one measurement of one variant',
      default: '10',
      quick: '3',
    }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '4', quick: '2' }),
    workers: countOption({ help: 'Workers of each server', default: '2' }),
    tokens: risingOption({ help: 'Tokens per text', default: '8,64,256', quick: '8,64' }),
    connections: risingOption({ help: 'Clients', default: '1,8,32', quick: '1,32' }),
    memoryWorkers: risingOption({ help: 'Workers to measure memory with', default: '1,4,8', quick: '1,4' }),
    transformers: folderOption({
      help: 'Folder with @huggingface/transformers for Koa; by default Koa uses its tokenizer and the runtime',
    }),
  },
  failsWhen: `onecopy has less than ${BAR} times the throughput at ${BAR_CONNECTIONS} clients`,
  reports: (options) => [
    ...options.tokens.flatMap((tokens) =>
      options.connections.map((connections) => () => throughputOf({ tokens, connections }, options)),
    ),
    () => memoryByWorkers(options),
  ],
})
