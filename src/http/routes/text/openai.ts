/**
 * Routes of OpenAI's API, and the rerank route that goes with it. Source:
 * https://platform.openai.com/docs/api-reference
 */
import type Router from '@koa/router'
import {
  documentsRequestSchema,
  embeddingsRequestSchema,
  type RankedDocuments,
  type TextModelFacts,
  type TextModelList,
} from '../../../api/text-schemas.js'
import { OnecopyError } from '../../../errors.js'
import { quoted } from '../../../protocol/v2/faults.js'
import type { TextInput } from '../../../text/text-model.js'
import type { HttpContext } from '../../context.js'
import { DOCUMENT_LISTS, EMBEDDING_LISTS } from './lists.js'
import { joinedVectors, textHandler, vectorText } from './shared.js'

/** One text, several, ids of one, ids of several. */
export function inputsOf(
  given: string | readonly string[] | readonly number[] | readonly (readonly number[])[],
): TextInput[] {
  if (typeof given === 'string') return [given]
  if (typeof given[0] === 'number') return [{ ids: given as readonly number[] }]
  return given.map((one): TextInput => (typeof one === 'string' ? one : { ids: one as readonly number[] }))
}

function base64Of(vector: Float32Array): string {
  const bytes = Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength)
  return `"${bytes.toString('base64')}"`
}

export function openAiRoutes(router: Router, context: HttpContext): void {
  const created = Math.floor(Date.now() / 1000)
  const factsOf = (name: string): TextModelFacts | null => {
    const text = context.models.find(name)?.text ?? null
    return text && { id: name, object: 'model', created, owned_by: 'onecopy', task: text.task }
  }
  router.get('/v1/models', (ctx) => {
    const data = context.models.names().flatMap((name) => factsOf(name) ?? [])
    ctx.body = { object: 'list', data } satisfies TextModelList
  })
  router.get('/v1/models/:model', (ctx) => {
    const { model = '' } = ctx.params as { readonly model?: string }
    const facts = factsOf(model)
    if (facts === null)
      throw new OnecopyError('MODEL_NOT_FOUND', `no model named ${quoted(model)} takes texts`)
    ctx.body = facts
  })

  const embeddings = textHandler(context, {
    schema: embeddingsRequestSchema,
    lists: { input: EMBEDDING_LISTS },
    tasks: ['embedding'],
    answer: async ({ request, model, text, isCancelled }) => {
      const { results, tokens } = await text.embed(inputsOf(request.input), {
        isTruncated: request.truncate ?? false,
        isNormalized: null,
        dimensions: request.dimensions ?? null,
        prompt: request.prompt_name ?? undefined,
        isCancelled,
      })
      const write = request.encoding_format === 'base64' ? base64Of : vectorText
      const data = await joinedVectors(
        results,
        (vector, index) => `{"object":"embedding","index":${index},"embedding":${write(vector)}}`,
      )
      const usage = JSON.stringify({ prompt_tokens: tokens, total_tokens: tokens })
      return `{"object":"list","data":${data},"model":${JSON.stringify(model.name)},"usage":${usage}}`
    },
  })
  router.post('/v1/embeddings', embeddings)

  const rerank = textHandler(context, {
    schema: documentsRequestSchema,
    lists: { documents: DOCUMENT_LISTS },
    tasks: ['reranking'],
    answer: async ({ request, model, text, isCancelled }): Promise<RankedDocuments> => {
      const texts = request.documents.map((one) => (typeof one === 'string' ? one : one.text))
      const asked = { isTruncated: request.truncate ?? false, isRaw: false, isCancelled }
      const { results, tokens } = await text.rerank(request.query, texts, asked)
      const ranked = results
        .map((score, index) => ({ index, relevance_score: score }))
        .sort((a, b) => b.relevance_score - a.relevance_score)
        .slice(0, request.top_n ?? undefined)
      const isWhole = request.return_documents === true
      return {
        model: model.name,
        results: ranked.map((one) =>
          isWhole ? { ...one, document: { text: texts[one.index] as string } } : one,
        ),
        usage: { total_tokens: tokens },
      }
    },
  })
  router.post('/v1/rerank', rerank)
}
