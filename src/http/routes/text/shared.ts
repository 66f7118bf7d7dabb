/**
 * Common parts of the text routes: bodies, model selection, counting, and errors in the form of
 * each API.
 */
import type { Context, Next } from 'koa'
import type * as z from 'zod'
import { TEXT_ROUTES } from '../../../api/text-routes.js'
import type { OpenAiError, TextError } from '../../../api/text-schemas.js'
import { messageOf, OnecopyError, outOfServiceError } from '../../../errors.js'
import { counted } from '../../../inference/request-parts.js'
import type { ServedModel } from '../../../inference/service.js'
import { quoted } from '../../../protocol/v2/faults.js'
import type { TextTask } from '../../../text/description.js'
import type { TextModel } from '../../../text/text-model.js'
import { readBody } from '../../body.js'
import type { HttpContext } from '../../context.js'
import { type RequestState, recordersOf } from '../../request-state.js'
import { type RequestLists, withShortLists, withWholeLists } from './lists.js'

/** Numbers that are converted to text in one turn of the event loop. */
const TURN_NUMBERS = 64 * 1024

function openAiError(error: OnecopyError): OpenAiError {
  const { status, code, message } = error
  const type =
    status === 401
      ? 'authentication_error'
      : status === 429
        ? 'rate_limit_error'
        : status >= 500
          ? 'server_error'
          : 'invalid_request_error'
  return { error: { message, type, param: null, code } }
}

function textError({ status, code, message }: OnecopyError): TextError {
  const isBusy = code === 'QUEUE_FULL' || status === 429
  const type = isBusy ? 'Overloaded' : status === 503 ? 'Unhealthy' : status < 500 ? 'Validation' : 'Backend'
  return { error: message, error_type: type }
}

/** By path. A path that ends with a parameter stands without it: `/v1/models/`. */
const BODIES: ReadonlyMap<string, (error: OnecopyError) => unknown> = new Map(
  TEXT_ROUTES.map(({ path, errorBody }) => [
    path.replace(/:\w+$/, ''),
    errorBody === 'OpenAiError' ? openAiError : textError,
  ]),
)

/** Runs for every request of every API, so without a pattern. */
function errorBodyOf(path: string): ((error: OnecopyError) => unknown) | undefined {
  return BODIES.get(path) ?? BODIES.get(path.slice(0, path.lastIndexOf('/') + 1))
}

/** Also around authentication and limits: a client of an API expects all errors in its form. */
export function textErrorBodies(ctx: Context, next: Next): Promise<void> {
  const body = errorBodyOf(ctx.path)
  if (body !== undefined) (ctx.state as RequestState).errorBody = body
  return next()
}

/** The only model with one of the tasks; any task if none is given. */
function onlyModel({ models }: HttpContext, tasks: readonly TextTask[]): ServedModel {
  const candidates = models.names().flatMap((name) => models.find(name) ?? [])
  const isMeant = ({ text }: ServedModel) =>
    text !== null && (tasks.length === 0 || tasks.includes(text.task))
  const [only, ...others] = candidates.filter(isMeant)
  const what = tasks.length === 0 ? 'texts' : tasks.join(' or ')
  if (only === undefined) throw new OnecopyError('MODEL_NOT_FOUND', `no model for ${what} is served`)
  if (others.length === 0) return only
  const names = [only, ...others].map(({ name }) => name).join(', ')
  throw new OnecopyError('REQUEST_INVALID', `model: expected one of ${names}, got none`)
}

/**
 * The requested model, in service and with a tokenizer.
 * @throws OnecopyError MODEL_NOT_FOUND, MODEL_OUT_OF_SERVICE, REQUEST_INVALID.
 */
export function askedModel(
  ctx: Context,
  context: HttpContext,
  { name, tasks }: { readonly name: string | undefined; readonly tasks: readonly TextTask[] },
): { readonly model: ServedModel; readonly text: TextModel } {
  const { models } = context
  const state = ctx.state as RequestState
  const asked = name ?? onlyModel(context, tasks).name
  const out = models.outOfService(asked)
  if (out !== null) {
    state.model = out
    throw outOfServiceError(out, out.state)
  }
  const model = models.find(asked)
  if (model === null) throw new OnecopyError('MODEL_NOT_FOUND', `unknown model ${quoted(asked)}`)
  state.model = model
  const { text } = model
  if (text === null)
    throw new OnecopyError('REQUEST_INVALID', `model ${model.name} takes only tensors: it has no tokenizer`)
  return { model, text }
}

function issueText({ path, message }: z.core.$ZodIssue): string {
  return path.length === 0 ? message : `${path.join('.')}: ${message}`
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

async function readRequest<Schema extends z.ZodType>(
  ctx: Context,
  context: HttpContext,
  { schema, lists }: Pick<TextHandler<Schema>, 'schema' | 'lists'>,
): Promise<z.output<Schema>> {
  const body = await readBody(ctx.req, { maxBytes: context.maxBodyBytes, jsonBytes: null })
  ;(ctx.state as RequestState).heldBytes = 2 * body.length
  let json: string
  try {
    json = utf8.decode(body)
  } catch {
    throw new OnecopyError('BODY_MALFORMED', 'expected JSON in UTF-8, got other bytes')
  }
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (thrown) {
    throw new OnecopyError('BODY_MALFORMED', `expected JSON: ${messageOf(thrown)}`)
  }
  const parsed = schema.safeParse(withShortLists(value, lists))
  if (parsed.success) return withWholeLists(parsed.data, value, lists)
  throw new OnecopyError('REQUEST_INVALID', parsed.error.issues.slice(0, 3).map(issueText).join('; '))
}

interface TruncationRequest {
  readonly truncate?: boolean | null
  readonly truncation_direction?: string | null
}

/**
 * The side is the tokenizer's for all requests: cutting off the other one would give another
 * result.
 */
function requireSide(request: TruncationRequest, { description }: TextModel): void {
  const { truncate, truncation_direction: side } = request
  if (truncate !== true || side == null || side.toLowerCase() === description.truncationSide) return
  throw new OnecopyError(
    'REQUEST_INVALID',
    `truncation_direction: expected ${description.truncationSide}, as the model's tokenizer_config.json says, got ${side}`,
  )
}

export interface Asked<Request> {
  readonly request: Request
  readonly model: ServedModel
  readonly text: TextModel
  readonly isCancelled: () => boolean
}

interface TextHandler<Schema extends z.ZodType> {
  readonly schema: Schema
  readonly lists: RequestLists
  /** For requests without a model name. */
  readonly tasks: readonly TextTask[]
  /** The response body, as a JSON value or as JSON text. */
  readonly answer: (asked: Asked<z.output<Schema>>) => Promise<unknown>
}

async function answerText<Schema extends z.ZodType>(
  ctx: Context,
  context: HttpContext,
  { schema, lists, tasks, answer }: TextHandler<Schema>,
): Promise<void> {
  const request = await readRequest(ctx, context, { schema, lists })
  const { model: name } = request as { readonly model?: string | null }
  const { model, text } = askedModel(ctx, context, { name: name ?? undefined, tasks })
  requireSide(request as TruncationRequest, text)
  // Rejects early, before tokenizing.
  context.checkCapacity(model, 0)
  const isCancelled = () => ctx.req.socket.destroyed
  const body = await model.use(() => answer({ request, model, text, isCancelled }))
  const json = typeof body === 'string' ? body : JSON.stringify(body)
  const { maxResponseBytes } = context
  if (json.length > maxResponseBytes)
    throw new OnecopyError(
      'RESPONSE_TOO_LARGE',
      `expected an answer of at most ${maxResponseBytes} bytes (--max-response), got ${json.length}: ask for fewer texts at a time`,
    )
  const state = ctx.state as RequestState
  state.heldBytes = (state.heldBytes ?? 0) + json.length
  ctx.status = 200
  ctx.type = 'application/json'
  ctx.body = json
}

/** A handler for a router: counted as a request of the model. */
export function textHandler<Schema extends z.ZodType>(
  context: HttpContext,
  handler: TextHandler<Schema>,
): (ctx: Context) => Promise<void> {
  return async (ctx) => {
    await counted(recordersOf(ctx, context), async () => {
      try {
        await answerText(ctx, context, handler)
      } finally {
        context.largeExchanges.follow(ctx)
      }
    })
  }
}

/** Vectors as JSON, each by `write`; yields to the event loop between them. */
export async function joinedVectors(
  vectors: readonly Float32Array[],
  write: (vector: Float32Array, place: number) => string,
): Promise<string> {
  const parts: string[] = []
  let numbers = 0
  for (const [place, vector] of vectors.entries()) {
    parts.push(write(vector, place))
    numbers += vector.length
    if (numbers < TURN_NUMBERS) continue
    numbers = 0
    await new Promise((resolve) => setImmediate(resolve))
  }
  return `[${parts.join(',')}]`
}

/** A vector as a JSON array; NaN and infinities, which JSON cannot express, are null. */
export function vectorText(vector: Float32Array): string {
  return JSON.stringify(Array.from(vector))
}
