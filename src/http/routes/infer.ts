/** `infer`: body -> codec -> submit -> codec -> body. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type Router from '@koa/router'
import type { Context } from 'koa'
import { OnecopyError } from '../../errors.js'
import { answered, counted, heldIn } from '../../inference/request-parts.js'
import type { ServedModel } from '../../inference/service.js'
import {
  decodeInferRequest,
  decodeInferRequestInSlices,
  type InferRequestBody,
  isLongToDecode,
  parseHeaderLength,
} from '../../protocol/v2/request.js'
import {
  type EncodedResponse,
  encodeInferResponse,
  encodeInferResponseInSlices,
  type InferResponse,
  isLongToEncode,
} from '../../protocol/v2/response.js'
import { readBody } from '../body.js'
import type { HttpContext } from '../context.js'
import { type RequestState, recordersOf } from '../request-state.js'
import { placeOutputs, sharedReader } from '../shared-tensors.js'
import { computeRequest } from './compute-request.js'
import { inServiceModelOf, onModel } from './models.js'
import { namesTexts, textSpecOf } from './text/infer-texts.js'

/** Up to this size a copy is cheaper than a stream. */
const ONE_PIECE_BYTES = 256 * 1024
const LIMITS = { jsonDepth: 64, maxTensors: 4096 }

/** Size of the inputs as far as the headers tell: uncompressed binary data after the JSON. */
function inputBytesOf({ headers }: IncomingMessage, jsonBytes: number | null): number {
  const bodyBytes = Number(headers['content-length'])
  const isCompressed = headers['content-encoding'] !== undefined
  if (jsonBytes === null || isCompressed || Number.isNaN(bodyBytes)) return 0
  return Math.max(0, bodyBytes - jsonBytes)
}

async function infer(ctx: Context, context: HttpContext): Promise<void> {
  const asked = inServiceModelOf(ctx, context)
  const { timings } = ctx.state as RequestState
  timings?.begin()
  const jsonBytes = parseHeaderLength(ctx.get('Inference-Header-Content-Length') || undefined)
  // A body that would be rejected is neither read nor parsed.
  context.checkCapacity(asked, inputBytesOf(ctx.req, jsonBytes))
  const body = await readBody(ctx.req, { maxBytes: context.maxBodyBytes, jsonBytes })
  timings?.end('receive')
  // An upload can take minutes, and models may change meanwhile. The current generation answers and
  // stays
  // loaded.
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
  // The received bytes and the tensors.
  state.heldBytes = 2 * body.length
  const texts = textSpecOf(model, () => namesTexts({ body, jsonBytes }))
  const received: InferRequestBody = {
    body,
    jsonBytes,
    model: texts ?? model,
    limits: LIMITS,
    readShared: regions === null ? undefined : sharedReader(regions, maxBodyBytes - body.length),
  }
  const request = isLongToDecode(received)
    ? await decodeInferRequestInSlices(received)
    : decodeInferRequest(received)
  timings?.end('decode')
  if (timings !== undefined) timings.rows = request.inputs[0]?.shape[0] ?? 1
  const isCancelled = () => ctx.req.socket.destroyed
  const { outputs, queueNs, placement } = await computeRequest(
    { model, texts, request, isCancelled, frontTimeoutMs: null },
    context,
  )
  timings?.computed(queueNs, placement)
  state.heldBytes += heldIn(outputs)
  const answer: InferResponse = {
    model: { name: model.name, version: model.version },
    id: request.id,
    outputs: answered(outputs, request, model),
    binary: request.outputs.map((output) => output.binary),
    maxBytes: maxResponseBytes,
    places: regions === null ? undefined : placeOutputs(regions, outputs, request.outputs),
  }
  const response = isLongToEncode(answer)
    ? await encodeInferResponseInSlices(answer)
    : encodeInferResponse(answer)
  timings?.end('encode')
  state.heldBytes += response.bytes
  ctx.status = 200
  // Before the body: Koa determines a content type if none is set.
  for (const name of Object.keys(response.headers)) ctx.res.setHeader(name, response.headers[name] as string)
  ctx.body = bodyOf(response)
  ctx.length = response.bytes
}

/** Small responses are sent in one piece; large ones in their chunks, without another copy. */
function bodyOf({ chunks, bytes }: EncodedResponse): string | Buffer | Readable {
  const [only] = chunks
  if (chunks.length === 1 && typeof only === 'string') return only
  if (bytes > ONE_PIECE_BYTES) {
    const buffers = chunks.map((chunk) =>
      typeof chunk === 'string'
        ? Buffer.from(chunk)
        : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength),
    )
    return Readable.from(buffers, { objectMode: false })
  }
  const body = Buffer.allocUnsafe(bytes)
  let at = 0
  for (const chunk of chunks) {
    if (typeof chunk === 'string') at += body.write(chunk, at)
    else {
      body.set(chunk, at)
      at += chunk.length
    }
  }
  return body
}

export function inferRoutes(router: Router, context: HttpContext): void {
  onModel(router, 'post', '/infer', async (ctx) => {
    await counted(recordersOf(ctx, context), async () => {
      try {
        await infer(ctx, context)
      } catch (thrown) {
        const state = ctx.state as RequestState
        if (thrown instanceof OnecopyError && thrown.code === 'RESPONSE_TOO_LARGE')
          state.heldBytes = (state.heldBytes ?? 0) + context.maxResponseBytes
        throw thrown
      } finally {
        context.largeExchanges.follow(ctx)
      }
    })
  })
}
