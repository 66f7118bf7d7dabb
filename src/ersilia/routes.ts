/** Ersilia's API for one bundle: POST /run and the jobs. Informational routes are in info-routes.ts. */
import type Router from '@koa/router'
import type { Context, Next } from 'koa'
import { OnecopyError } from '../errors.js'
import { readBody } from '../http/body.js'
import { requireSameOrigin } from '../http/cross-origin.js'
import type { RequestState } from '../http/request-state.js'
import { counted } from '../inference/request-parts.js'
import { checkAnswerSize } from './answer-size.js'
import { encodeHeavy } from './binary.js'
import type { ErsiliaContext } from './context.js'
import { detailOf } from './error-detail.js'
import { infoRoutes } from './info-routes.js'
import { jsonText, orientRows } from './orient.js'
import { parseInputs, parseQuery, type RunQuery } from './request.js'
import type { ErsiliaService } from './service.js'

/** Ersilia's errors are `{"detail": ...}`: a sentence, or a list of what is wrong where. */
async function detailErrors(ctx: Context, next: Next): Promise<void> {
  ;(ctx.state as RequestState).errorBody = detailOf
  await next()
}

interface Answer {
  readonly contentType: string
  readonly body: string | Buffer
}

async function answer(
  service: ErsiliaService,
  inputs: readonly string[],
  {
    query,
    isCancelled,
    maxBytes,
  }: { query: RunQuery; isCancelled: () => boolean /** Of the answer. */; maxBytes: number },
): Promise<Answer> {
  const { bundle } = service
  const { columns, outputType } = bundle
  if (query.output_type === 'heavy' && outputType === 'string') {
    throw new OnecopyError(
      'INPUT_INVALID',
      'output_type: expected simple, because this model returns text, which the heavy format does not support',
    )
  }
  const flags = { fetchCache: query.fetch_cache, saveCache: query.save_cache, cacheOnly: query.cache_only }
  const rows = await service.rows(inputs, flags, { isCancelled })
  const table = { rows, columns, index: inputs, orient: query.orient, outputType }
  checkAnswerSize(table, { isHeavy: query.output_type === 'heavy', maxBytes })
  if (query.output_type === 'heavy')
    return { contentType: 'application/octet-stream', body: encodeHeavy({ rows, columns }, outputType) }
  return { contentType: 'application/json', body: jsonText(orientRows(table), rows) }
}

/** Rejects a request before reading its body if there is no capacity. */
async function readInputs(ctx: Context, { http, model }: ErsiliaContext): Promise<string[]> {
  const served = model()
  if (served !== undefined) http.checkCapacity(served, 0)
  return parseInputs(await readBody(ctx.req, { maxBytes: http.maxBodyBytes, jsonBytes: null }))
}

async function run(ctx: Context, context: ErsiliaContext): Promise<void> {
  const query = parseQuery(ctx.query)
  const service = await context.service()
  const inputs = await readInputs(ctx, context)
  const isCancelled = () => ctx.req.socket.destroyed
  const { contentType, body } = await answer(service, inputs, {
    query,
    isCancelled,
    maxBytes: context.http.maxResponseBytes,
  })
  ctx.status = 200
  ctx.set('Content-Type', contentType)
  const state = ctx.state as RequestState
  state.heldBytes = Buffer.byteLength(body)
  context.http.largeExchanges.follow(ctx)
  if (query.output_type === 'heavy') ctx.set('Content-Disposition', 'attachment; filename="result.bin"')
  ctx.body = body
}

/** Counts a request of the model, like `infer` does. */
async function countedOfModel(
  ctx: Context,
  context: ErsiliaContext,
  work: () => Promise<void>,
): Promise<void> {
  const model = context.model()
  if (model !== undefined) (ctx.state as RequestState).model = model
  await counted({ recorder: () => model?.counts, unknown: context.http.unknownModel }, work)
}

/** Approximate memory of strings. */
function bytesOf(texts: readonly string[]): number {
  const overheadBytes = 16
  return texts.reduce((sum, text) => sum + overheadBytes + 2 * text.length, 0)
}

function jobRoutes(router: Router, context: ErsiliaContext): void {
  router.post('/job/submit', detailErrors, async (ctx) => {
    requireSameOrigin(ctx as Context, context.http.defences.corsOrigins)
    const query = parseQuery(ctx.query)
    const service = await context.service()
    const inputs = await readInputs(ctx, context)
    const maxBytes = context.http.maxResponseBytes
    // Job results are always JSON.
    const simple = { ...query, output_type: 'simple' as const }
    const job_id = await service.jobs.submit(async (isCancelled) => {
      const { body } = await answer(service, inputs, { query: simple, isCancelled, maxBytes })
      return body as string
    }, bytesOf(inputs))
    ctx.body = { job_id, message: 'Job submitted successfully.' }
  })
  router.get('/job/status/:id', detailErrors, async (ctx) => {
    const { id = '' } = ctx.params as { id?: string }
    ctx.body = { job_id: id, status: await (await context.service()).jobs.status(id) }
  })
  router.post('/job/jobs/reset', detailErrors, async (ctx) => {
    requireSameOrigin(ctx as Context, context.http.defences.corsOrigins)
    await (await context.service()).jobs.reset()
    ctx.body = { message: 'All jobs have been reset.' }
  })
  router.get('/job/result/:id', detailErrors, async (ctx) => {
    const { id = '' } = ctx.params as { id?: string }
    const { status, text } = await (await context.service()).jobs.result(id)
    ctx.set('Content-Type', 'application/json')
    ctx.body = text ?? JSON.stringify({ job_id: id, status, result: null })
  })
}

export function ersiliaRoutes(router: Router, context: ErsiliaContext): void {
  router.post('/run', detailErrors, (ctx) => countedOfModel(ctx, context, () => run(ctx, context)))
  jobRoutes(router, context)
  infoRoutes(router, context, detailErrors)
}
