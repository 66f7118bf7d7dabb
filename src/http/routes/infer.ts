/** `infer`: body -> codec -> submit -> codec -> body. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type Router from '@koa/router'
import type { Context } from 'koa'
import { OnecopyError } from '../../errors.js'
import type { ServedModel } from '../../inference/service.js'
import type { Outcome } from '../../metrics/series.js'
import { classify } from '../../protocol/v2/classification.js'
import { decodeInferRequest, type InferRequest, parseHeaderLength } from '../../protocol/v2/request.js'
import { type EncodedResponse, encodeInferResponse } from '../../protocol/v2/response.js'
import { leastAnswered } from '../../protocol/v2/response-size.js'
import type { Tensor } from '../../tensor.js'
import { readBody } from '../body.js'
import type { HttpContext } from '../context.js'
import type { RequestState } from '../request-state.js'
import { placeOutputs, sharedReader } from '../shared-tensors.js'
import { inServiceModelOf, onModel } from './models.js'
import { inferTexts, textSpecOf } from './text/infer-texts.js'

/** Up to this size a copy is cheaper than a stream. */
const ONE_PIECE_BYTES = 256 * 1024
/** A timer beyond this fires at once: such a deadline, of 24 days and more, is none. */
const LONGEST_TIMER_MS = 2 ** 31 - 1
const LIMITS = { jsonDepth: 64, maxTensors: 4096 }

export function outcomeOf(thrown: unknown): Outcome {
  if (!(thrown instanceof OnecopyError)) return 'server_error'
  if (thrown.code === 'REQUEST_CANCELLED') return 'cancelled'
  if (thrown.code === 'DEADLINE_EXCEEDED') return 'timeout'
  if (thrown.status === 503) return 'rejected'
  return thrown.fault === 'client' ? 'client_error' : 'server_error'
}

/** A count in the request's parameters; `fallback` where it is absent. */
function countOf(parameters: InferRequest['parameters'], name: string, fallback: number): number {
  const value = parameters[name] ?? fallback
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw new OnecopyError(
    'REQUEST_INVALID',
    `parameter ${name}: expected a non-negative integer, got ${JSON.stringify(value)}`,
  )
}

/** Triton's schedule policy: `priority` (1 is the highest, 0 the default) and `timeout` in microseconds (0 is none). */
function schedulingOf({ parameters }: InferRequest): { priority: number; timeoutMs: number | null } {
  const timeoutMs = countOf(parameters, 'timeout', 0) / 1000
  return {
    priority: countOf(parameters, 'priority', 0),
    timeoutMs: timeoutMs === 0 || timeoutMs > LONGEST_TIMER_MS ? null : timeoutMs,
  }
}

/** Bytes of inputs that the headers tell: binary ones that are not compressed, behind the JSON. */
function inputBytesOf({ headers }: IncomingMessage, jsonBytes: number | null): number {
  const bodyBytes = Number(headers['content-length'])
  const isCompressed = headers['content-encoding'] !== undefined
  if (jsonBytes === null || isCompressed || Number.isNaN(bodyBytes)) return 0
  return Math.max(0, bodyBytes - jsonBytes)
}

function heldIn(outputs: readonly Tensor[]): number {
  return outputs.reduce((sum, { data }) => sum + (ArrayBuffer.isView(data) ? data.byteLength : 0), 0)
}

/** What was computed as it was asked for: whole, or its highest values. */
function answered(
  outputs: readonly Tensor[],
  { outputs: asked }: InferRequest,
  model: ServedModel,
): Tensor[] {
  const isBatched = model.configuration.max_batch_size > 0
  return outputs.map((output, i) => {
    const classes = asked[i]?.classes
    if (classes === undefined) return output
    return classify(output, { classes, isBatched, labels: model.labels[output.name] ?? [] })
  })
}

async function infer(ctx: Context, context: HttpContext): Promise<void> {
  const asked = inServiceModelOf(ctx, context)
  const { timings } = ctx.state as RequestState
  timings?.begin()
  const jsonBytes = parseHeaderLength(ctx.get('Inference-Header-Content-Length') || undefined)
  // A body that would be refused anyway is not read, let alone parsed.
  context.checkCapacity(asked, inputBytesOf(ctx.req, jsonBytes))
  const body = await readBody(ctx.req, { maxBytes: context.maxBodyBytes, jsonBytes })
  timings?.end('receive')
  // A body can take minutes, and models change meanwhile: what is there now answers, and stays loaded until it has.
  const model = inServiceModelOf(ctx, context)
  await model.use(() => inferOn(model, { ctx, context, body, jsonBytes }))
}

interface Received {
  readonly ctx: Context
  readonly context: HttpContext
  readonly body: Uint8Array<ArrayBuffer>
  readonly jsonBytes: number | null
}

async function inferOn(model: ServedModel, { ctx, context, body, jsonBytes }: Received): Promise<void> {
  const state = ctx.state as RequestState
  const { timings } = state
  const { maxBodyBytes, maxResponseBytes, regions } = context
  // As it came, and as tensors.
  state.heldBytes = 2 * body.length
  const texts = textSpecOf(model, { body, jsonBytes })
  const request = decodeInferRequest({
    body,
    jsonBytes,
    model: texts ?? model,
    limits: LIMITS,
    ...(regions === null ? {} : { readShared: sharedReader(regions, maxBodyBytes - body.length) }),
  })
  timings?.end('decode')
  if (timings !== undefined) timings.rows = request.inputs[0]?.shape[0] ?? 1
  const isCancelled = () => ctx.req.socket.destroyed
  const isTruncated = request.parameters.truncate === true
  const { priority, timeoutMs } = schedulingOf(request)
  const { outputs, queueNs } =
    texts !== null
      ? {
          outputs: await inferTexts(texts, request.inputs, { isTruncated, isCancelled, timeoutMs }),
          queueNs: 0,
        }
      : await context.submit({
          model,
          inputs: request.inputs,
          outputNames: request.outputs.map((output) => output.name),
          outputLimit: {
            bytes: maxResponseBytes,
            leastElementBytes: leastAnswered(request.outputs, model.outputs),
          },
          ...{ isCancelled, priority, timeoutMs },
        })
  timings?.computed(queueNs)
  state.heldBytes += heldIn(outputs)
  const response = encodeInferResponse({
    model: { name: model.name, version: model.version },
    ...(request.id === undefined ? {} : { id: request.id }),
    outputs: answered(outputs, request, model),
    binary: request.outputs.map((output) => output.binary),
    maxBytes: maxResponseBytes,
    ...(regions === null ? {} : { places: placeOutputs(regions, outputs, request.outputs) }),
  })
  timings?.end('encode')
  state.heldBytes += response.bytes
  ctx.status = 200
  ctx.body = bodyOf(response)
  ctx.set(response.headers)
  ctx.length = response.bytes
}

/** Small answers go out in one piece; large ones as they stand, without another copy. */
function bodyOf({ chunks, bytes }: EncodedResponse): string | Buffer | Readable {
  const [only] = chunks
  if (chunks.length === 1 && typeof only === 'string') return only
  const buffers = chunks.map((chunk) =>
    typeof chunk === 'string'
      ? Buffer.from(chunk)
      : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength),
  )
  return bytes <= ONE_PIECE_BYTES
    ? Buffer.concat(buffers, bytes)
    : Readable.from(buffers, { objectMode: false })
}

export function inferRoutes(router: Router, context: HttpContext): void {
  onModel(router, 'post', '/infer', async (ctx) => {
    const startedMs = performance.now()
    const state = ctx.state as RequestState
    let outcome: Outcome = 'success'
    try {
      await infer(ctx, context)
    } catch (thrown) {
      outcome = outcomeOf(thrown)
      if (thrown instanceof OnecopyError && thrown.code === 'RESPONSE_TOO_LARGE')
        state.heldBytes = (state.heldBytes ?? 0) + context.maxResponseBytes
      throw thrown
    } finally {
      context.largeExchanges.follow(ctx)
      const counts = state.model?.counts
      const durationMs = performance.now() - startedMs
      ;(counts ?? context.unknownModel).countRequest(outcome, durationMs)
      counts?.observe('requestDuration', durationMs / 1000)
    }
  })
}
