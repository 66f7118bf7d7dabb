/**
 * Routes of text-embeddings-inference. Source:
 * https://huggingface.github.io/text-embeddings-inference
 */
import type Router from '@koa/router'
import {
  embedRequestSchema,
  predictRequestSchema,
  type Ranks,
  rerankRequestSchema,
  type TextInfo,
  type Tokens,
  tokenizeRequestSchema,
} from '../../../api/text-schemas.js'
import { OnecopyError } from '../../../errors.js'
import type { TextModel } from '../../../text/text-model.js'
import type { TextOrPair } from '../../../transform/tokenizer-library.js'
import type { HttpContext } from '../../context.js'
import type { ServerIdentity } from '../health.js'
import { EMBEDDING_LISTS, MAX_CLIENT_TEXTS, PAIR_LISTS, TEXT_LISTS } from './lists.js'
import { inputsOf } from './openai.js'
import { type Asked, askedModel, joinedVectors, textHandler, vectorText } from './shared.js'

type OneOrTwo = readonly [string] | readonly [string, string]

function textOrPair(given: OneOrTwo): TextOrPair {
  const [first, second] = given
  return second === undefined ? first : [first, second]
}

async function predict({
  request,
  text,
  isCancelled,
}: Asked<{
  readonly inputs: string | OneOrTwo | readonly OneOrTwo[]
  readonly raw_scores?: boolean | null | undefined
  readonly truncate?: boolean | null | undefined
  readonly aggregation_strategy?: 'none' | 'simple' | 'first' | 'average' | 'max' | null | undefined
}>): Promise<unknown> {
  const { inputs: given } = request
  const isMany = Array.isArray(given) && Array.isArray(given[0])
  const inputs: TextOrPair[] = isMany
    ? (given as readonly OneOrTwo[]).map(textOrPair)
    : [typeof given === 'string' ? given : textOrPair(given as OneOrTwo)]
  const asked = { isTruncated: request.truncate ?? false, isCancelled }
  if (text.task === 'token-classification') {
    const texts = inputs.map((one, place) => {
      if (typeof one === 'string') return one
      throw new OnecopyError('REQUEST_INVALID', `inputs.${place}: expected one text, got a pair`)
    })
    const aggregation = request.aggregation_strategy ?? 'simple'
    const { results } = await text.findEntities(texts, { ...asked, aggregation })
    const entities = results.map((found) =>
      found.map(({ entity, ...rest }) => ({ entity_group: entity, ...rest })),
    )
    return isMany ? entities : entities[0]
  }
  const { results } = await text.classify(inputs, { ...asked, isRaw: request.raw_scores ?? false })
  return isMany ? results : results[0]
}

async function tokenize(
  text: TextModel,
  inputs: readonly string[],
  options: { readonly addsSpecialTokens: boolean; readonly isCancelled: () => boolean },
): Promise<Tokens> {
  const located = await text.tokenizer.locate(inputs, options)
  const long = located.findIndex(({ isTruncated }) => isTruncated)
  if (long >= 0)
    throw new OnecopyError(
      'REQUEST_TOO_LARGE',
      `inputs.${long}: expected at most ${text.tokenizer.maxLength} tokens, the model's limit, got more`,
    )
  return located.map(({ ids, tokens, offsets, isSpecial }) =>
    ids.map((id, i) => {
      const special = isSpecial[i] === true
      const [start = 0, stop = 0] = offsets[i] ?? []
      return {
        id,
        text: tokens[i] as string,
        special,
        start: special ? null : start,
        stop: special ? null : stop,
      }
    }),
  )
}

function modelTypeOf({ description }: TextModel): TextInfo['model_type'] {
  const { task, labels, pooling } = description
  if (task === 'embedding') return { embedding: { pooling } }
  const byId = Object.fromEntries(labels.map((label, id) => [String(id), label]))
  const byLabel = Object.fromEntries(labels.map((label, id) => [label, id]))
  return { [task === 'reranking' ? 'reranker' : 'classifier']: { id2label: byId, label2id: byLabel } }
}

export function textRoutes(router: Router, context: HttpContext, server: ServerIdentity): void {
  const embed = textHandler(context, {
    schema: embedRequestSchema,
    lists: { inputs: EMBEDDING_LISTS },
    tasks: ['embedding'],
    answer: async ({ request, text, isCancelled }) => {
      const { results } = await text.embed(inputsOf(request.inputs), {
        isTruncated: request.truncate ?? false,
        isNormalized: request.normalize ?? true,
        dimensions: request.dimensions ?? null,
        prompt: request.prompt_name ?? undefined,
        isCancelled,
      })
      return await joinedVectors(results, vectorText)
    },
  })
  router.post('/embed', embed)
  router.post(
    '/predict',
    textHandler(context, {
      schema: predictRequestSchema,
      lists: { inputs: PAIR_LISTS },
      tasks: ['classification', 'token-classification', 'reranking'],
      answer: predict,
    }),
  )
  const rerank = textHandler(context, {
    schema: rerankRequestSchema,
    lists: { texts: TEXT_LISTS },
    tasks: ['reranking'],
    answer: async ({ request, text, isCancelled }): Promise<Ranks> => {
      const { query, texts, raw_scores: isRaw, return_text: isWhole, truncate } = request
      const asked = { isTruncated: truncate ?? false, isRaw: isRaw ?? false, isCancelled }
      const { results } = await text.rerank(query, texts, asked)
      return results
        .map((score, index) => ({ index, score, ...(isWhole && { text: texts[index] as string }) }))
        .sort((a, b) => b.score - a.score)
    },
  })
  router.post('/rerank', rerank)
  const tokens = textHandler(context, {
    schema: tokenizeRequestSchema,
    lists: { inputs: TEXT_LISTS },
    tasks: [],
    answer: async ({ request, text, isCancelled }) => {
      const given = typeof request.inputs === 'string' ? [request.inputs] : request.inputs
      const prompt = text.promptOf(request.prompt_name ?? undefined)
      const inputs = prompt === '' ? given : given.map((one) => prompt + one)
      return await tokenize(text, inputs, {
        addsSpecialTokens: request.add_special_tokens ?? true,
        isCancelled,
      })
    },
  })
  router.post('/tokenize', tokens)
  router.get('/info', (ctx) => {
    const { model: name } = ctx.query
    if (Array.isArray(name))
      throw new OnecopyError('REQUEST_INVALID', `model: expected one name, got ${name.length}`)
    const { model, text } = askedModel(ctx, context, { name, tasks: [] })
    const { description, limits } = text
    ctx.body = {
      model_id: model.name,
      model_sha: null,
      model_dtype: 'float32',
      model_type: modelTypeOf(text),
      max_concurrent_requests: limits.maxRequests,
      max_input_length: description.maxLength,
      max_batch_tokens: limits.maxTokens,
      max_client_batch_size: MAX_CLIENT_TEXTS,
      auto_truncate: false,
      prompts: Object.keys(description.prompts),
      version: server.version,
    } satisfies TextInfo
  })
}
