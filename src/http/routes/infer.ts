/** `infer`: body -> codec -> submit -> codec -> body. */
import { Readable } from 'node:stream'
import type Router from '@koa/router'
import type { Context } from 'koa'
import { OnecopyError } from '../../errors.js'
import type { Outcome } from '../../metrics/serving.js'
import { decodeInferRequest, parseHeaderLength } from '../../protocol/v2/request.js'
import { encodeInferResponse } from '../../protocol/v2/response.js'
import { readBody } from '../body.js'
import type { HttpContext, RequestState } from '../context.js'
import { modelOf, onModel } from './models.js'

const LIMITS = { jsonDepth: 64, maxTensors: 4096 }
/** Label of requests for models that do not exist: a client must not be able to make up label values. */
const UNKNOWN = { model: '(unknown)', version: '' }

function outcomeOf(thrown: unknown): Outcome {
  if (!(thrown instanceof OnecopyError)) return 'server_error'
  if (thrown.code === 'REQUEST_CANCELLED') return 'cancelled'
  if (thrown.code === 'DEADLINE_EXCEEDED') return 'timeout'
  if (thrown.status === 503) return 'rejected'
  return thrown.fault === 'client' ? 'client_error' : 'server_error'
}

/** Aborted when the connection closes before the answer is out. */
function clientSignal(ctx: Context): AbortSignal {
  const controller = new AbortController()
  ctx.res.once('close', () => {
    if (!ctx.res.writableFinished) controller.abort()
  })
  return controller.signal
}

async function infer(ctx: Context, context: HttpContext): Promise<void> {
  const model = modelOf(ctx, context)
  if (!model.isReady) {
    throw new OnecopyError('MODEL_NOT_READY', `model ${model.name} is not ready`, { retryAfterSeconds: 1 })
  }
  const signal = clientSignal(ctx)
  const jsonBytes = parseHeaderLength(ctx.get('Inference-Header-Content-Length') || undefined)
  const body = await readBody(ctx.req, { maxBytes: context.maxBodyBytes, jsonBytes })
  const request = decodeInferRequest({ body, jsonBytes, model, limits: LIMITS })
  const { outputs } = await context.submit({
    model,
    inputs: request.inputs,
    outputNames: request.outputs.map((output) => output.name),
    signal,
  })
  const response = encodeInferResponse({
    model: { name: model.name, version: model.version },
    ...(request.id === undefined ? {} : { id: request.id }),
    outputs: [...outputs],
    binary: request.outputs.map((output) => output.binary),
  })
  ctx.status = 200
  const [only] = response.chunks
  if (response.chunks.length === 1 && typeof only === 'string') ctx.body = only
  else
    ctx.body = Readable.from(
      response.chunks.map((chunk) => asBuffer(chunk)),
      { objectMode: false },
    )
  ctx.set(response.headers)
  ctx.length = response.bytes
}

function asBuffer(chunk: string | Uint8Array): Buffer {
  return typeof chunk === 'string'
    ? Buffer.from(chunk)
    : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
}

export function inferRoutes(router: Router, context: HttpContext): void {
  const { metrics } = context
  onModel(router, 'post', '/infer', async (ctx) => {
    const endTimer = metrics.requestDuration.startTimer()
    const state = ctx.state as RequestState
    let outcome: Outcome = 'success'
    try {
      await infer(ctx, context)
    } catch (thrown) {
      outcome = outcomeOf(thrown)
      throw thrown
    } finally {
      const labels =
        state.model === undefined ? UNKNOWN : { model: state.model.name, version: state.model.version }
      metrics.requests.inc({ ...labels, outcome })
      if (state.model !== undefined) endTimer(labels)
    }
  })
}
