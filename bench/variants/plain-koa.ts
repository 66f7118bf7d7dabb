/**
 * The baseline: the server that a Node.js team writes in an afternoon. node:cluster, Koa, one session per
 * worker made from the model's path, the Open Inference Protocol in JSON and with binary tensors. It is
 * meant to be good: what can be had by a setting is set.
 */
import { readdir } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { join } from 'node:path'
import Router from '@koa/router'
import Koa, { type Context } from 'koa'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { runFleet } from './fleet.js'

const SESSION_OPTIONS: InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  // One thread per worker and as many workers as cores. The default, a thread per core in every worker,
  // has the threads of all workers spin against each other: half the throughput on two cores.
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  // The default, and the right one: the operators of these models form a chain.
  executionMode: 'sequential',
  // The default; said because the other side compiles with the same.
  graphOptimizationLevel: 'all',
  // The defaults, which trade memory for speed; without them plain Koa would be slower.
  enableCpuMemArena: true,
  enableMemPattern: true,
}

interface InferInput {
  readonly name: string
  readonly shape: number[]
  readonly datatype: 'FP32'
  readonly data?: number[]
  readonly parameters?: { readonly binary_data_size?: number }
}

interface InferBody {
  readonly id?: string
  readonly inputs: InferInput[]
  readonly outputs?: { readonly name: string; readonly parameters?: { readonly binary_data?: boolean } }[]
}

const FLOAT_BYTES = 4

// Without koa-bodyparser: it refuses bodies over 1 MB by default and knows no binary ones.
async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

interface ServedModel {
  readonly session: InferenceSession
  readonly version: string
}

/** Every version by `NAME@VERSION`, and the newest of each model by its name alone. */
async function loadModels(modelsDir: string): Promise<Map<string, ServedModel>> {
  const models = new Map<string, ServedModel>()
  for (const name of await readdir(modelsDir)) {
    const versions = (await readdir(join(modelsDir, name))).filter((entry) => /^\d+$/.test(entry))
    for (const version of versions.sort((a, b) => Number(a) - Number(b))) {
      const path = join(modelsDir, name, version, 'model.onnx')
      const model = { session: await InferenceSession.create(path, SESSION_OPTIONS), version }
      models.set(`${name}@${version}`, model)
      models.set(name, model)
    }
  }
  return models
}

function answerJson(ctx: Context, answer: object, results: InferenceSession.ReturnType): void {
  const outputs = Object.entries(results).map(([name, value]) => ({
    name,
    datatype: 'FP32',
    shape: value.dims,
    data: Array.from(value.data as Float32Array),
  }))
  ctx.body = { ...answer, outputs }
}

async function inferJson(ctx: Context, { session, version }: ServedModel, body: Buffer): Promise<void> {
  const request = JSON.parse(body.toString()) as InferBody
  const feeds: Record<string, Tensor> = {}
  for (const { name, shape, data } of request.inputs) {
    feeds[name] = new Tensor('float32', Float32Array.from(data ?? []), shape)
  }
  const answer = { model_name: ctx.params.name, model_version: version, id: request.id }
  answerJson(ctx, answer, await session.run(feeds))
}

async function inferBinary(
  ctx: Context,
  { session, version }: ServedModel,
  body: Buffer,
  jsonBytes: number,
): Promise<void> {
  const request = JSON.parse(body.toString('utf8', 0, jsonBytes)) as InferBody
  const feeds: Record<string, Tensor> = {}
  let at = jsonBytes
  for (const { name, shape, parameters } of request.inputs) {
    const bytes = parameters?.binary_data_size ?? 0
    // A copy: a Float32Array must start at a multiple of four, which the end of the JSON seldom is.
    const elements = new Float32Array(bytes / FLOAT_BYTES)
    body.copy(new Uint8Array(elements.buffer), 0, at, at + bytes)
    feeds[name] = new Tensor('float32', elements, shape)
    at += bytes
  }
  const results = await session.run(feeds)
  const answer = { model_name: ctx.params.name, model_version: version, id: request.id }
  if (request.outputs?.every((output) => output.parameters?.binary_data) !== true) {
    answerJson(ctx, answer, results)
    return
  }
  const raw: Buffer[] = []
  const outputs = Object.entries(results).map(([name, value]) => {
    const elements = value.data as Float32Array
    raw.push(Buffer.from(elements.buffer, elements.byteOffset, elements.byteLength))
    const parameters = { binary_data_size: elements.byteLength }
    return { name, datatype: 'FP32', shape: value.dims, parameters }
  })
  const json = Buffer.from(JSON.stringify({ ...answer, outputs }))
  ctx.set('Inference-Header-Content-Length', String(json.length))
  ctx.type = 'application/octet-stream'
  ctx.body = Buffer.concat([json, ...raw])
}

await runFleet(async ({ modelsDir }) => {
  const models = await loadModels(modelsDir)
  const router = new Router()
  router.post(['/v2/models/:name/infer', '/v2/models/:name/versions/:version/infer'], async (ctx) => {
    const { name, version } = ctx.params as { name: string; version?: string }
    const model = models.get(version === undefined ? name : `${name}@${version}`)
    if (model === undefined) {
      ctx.status = 404
      return
    }
    const body = await readBody(ctx.req)
    const jsonBytes = ctx.get('Inference-Header-Content-Length')
    if (jsonBytes === '') await inferJson(ctx, model, body)
    else await inferBinary(ctx, model, body, Number(jsonBytes))
  })
  const app = new Koa()
  app.use(router.routes())
  app.use(router.allowedMethods())
  return app.callback()
})
