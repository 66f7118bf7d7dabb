/**
 * The JSON of the routes for texts. Sources: the OpenAI API (embeddings, models), the rerank route
 * that Jina and Cohere share, and text-embeddings-inference (embed, predict, rerank, tokenize,
 * info). Unknown keys are ignored: clients send more.
 */
import * as z from 'zod'

const count = z.int().nonnegative()
const ids = z.array(z.int().nonnegative()).min(1)
const modelName = z
  .string()
  .min(1)
  .describe('Name of the model; may be left out where one model has the task.')
const truncate = z
  .boolean()
  .nullish()
  .describe(
    'Whether tokens beyond the longest length are left out; a text that is too long is 413 otherwise.',
  )
const truncationDirection = z
  .enum(['Left', 'Right', 'left', 'right'])
  .nullish()
  .describe("The side that `truncate` leaves out; only that of the model's tokenizer is accepted.")
const promptName = z.string().nullish().describe('Which of the prompts of the model stands before each text.')
const dimensions = z.int().positive().nullish().describe('So many of the first elements, normalised again.')

export const openAiErrorSchema = z
  .strictObject({
    error: z.strictObject({
      message: z.string().min(1),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string(),
    }),
  })
  .describe("What went wrong, in the form of OpenAI's API.")

export const textErrorSchema = z
  .strictObject({ error: z.string().min(1), error_type: z.string() })
  .describe('What went wrong, in the form of text-embeddings-inference.')

export const embeddingsRequestSchema = z.looseObject({
  model: modelName,
  input: z
    .union([z.string(), z.array(z.string()).min(1), ids, z.array(ids).min(1)], {
      error: 'expected a text, a list of texts, ids of tokens, or a list of such ids',
    })
    .describe('A text, texts, ids of tokens, or lists of them.'),
  encoding_format: z.enum(['float', 'base64']).nullish(),
  ...{ dimensions, truncate, prompt_name: promptName },
})

const usageSchema = z.strictObject({ prompt_tokens: count, total_tokens: count })

export const embeddingsSchema = z.strictObject({
  object: z.literal('list'),
  data: z.array(
    z.strictObject({
      object: z.literal('embedding'),
      index: count,
      embedding: z
        .union([z.array(z.number()), z.string()])
        .describe('Numbers, or little-endian FP32 in base64.'),
    }),
  ),
  model: z.string(),
  usage: usageSchema,
})

export const textModelSchema = z.strictObject({
  id: z.string(),
  object: z.literal('model'),
  created: count,
  owned_by: z.string(),
  task: z.string(),
})

export const textModelListSchema = z.strictObject({
  object: z.literal('list'),
  data: z.array(textModelSchema),
})

export const documentsRequestSchema = z.looseObject({
  model: modelName.nullish(),
  query: z.string(),
  documents: z.array(z.union([z.string(), z.looseObject({ text: z.string() })])).min(1),
  top_n: z.int().positive().nullish(),
  return_documents: z.boolean().nullish(),
  truncate,
})

export const rankedDocumentsSchema = z.strictObject({
  model: z.string(),
  results: z.array(
    z.strictObject({
      index: count,
      relevance_score: z.number(),
      document: z.strictObject({ text: z.string() }).optional(),
    }),
  ),
  usage: z.strictObject({ total_tokens: count }),
})

export const embedRequestSchema = z.looseObject({
  inputs: z.union([z.string(), z.array(z.string()).min(1), ids, z.array(ids).min(1)], {
    error: 'expected a text, a list of texts, ids of tokens, or a list of such ids',
  }),
  model: modelName.nullish(),
  normalize: z.boolean().nullish().describe('Whether vectors get a length of 1; they do by default.'),
  ...{ truncate, truncation_direction: truncationDirection, dimensions, prompt_name: promptName },
})
export const vectorsSchema = z.array(z.array(z.number()))

const pair = z.union([z.tuple([z.string()]), z.tuple([z.string(), z.string()])])
export const predictRequestSchema = z.looseObject({
  inputs: z
    .union([z.string(), pair, z.array(pair).min(1)], {
      error: 'expected a text, a list of one or two texts, or a list of such lists',
    })
    .describe('A text, a pair of texts in a list, or a list of [text] and [text, text].'),
  model: modelName.nullish(),
  raw_scores: z.boolean().nullish().describe('Logits instead of probabilities.'),
  aggregation_strategy: z
    .enum(['none', 'simple', 'first', 'average', 'max'])
    .nullish()
    .describe('Of models that classify tokens: how tokens become words and words entities.'),
  ...{ truncate, truncation_direction: truncationDirection },
})
const labelsSchema = z.array(z.strictObject({ label: z.string(), score: z.number() }))
const entitiesSchema = z.array(
  z.strictObject({
    entity_group: z.string(),
    score: z.number(),
    word: z.string(),
    start: count.describe('In code points of the text.'),
    end: count,
  }),
)
export const predictionSchema = z
  .union([labelsSchema, z.array(labelsSchema), entitiesSchema, z.array(entitiesSchema)])
  .describe('Labels of the text, the likeliest first, or its entities; a list of that for a list of lists.')

export const rerankRequestSchema = z.looseObject({
  query: z.string(),
  texts: z.array(z.string()).min(1),
  model: modelName.nullish(),
  raw_scores: z.boolean().nullish().describe('Logits instead of 0 to 1.'),
  return_text: z.boolean().nullish(),
  ...{ truncate, truncation_direction: truncationDirection },
})
export const ranksSchema = z.array(
  z.strictObject({ index: count, score: z.number(), text: z.string().optional() }),
)

export const tokenizeRequestSchema = z.looseObject({
  inputs: z.union([z.string(), z.array(z.string()).min(1)], { error: 'expected a text, or a list of texts' }),
  model: modelName.nullish(),
  add_special_tokens: z.boolean().nullish(),
  prompt_name: promptName,
})
export const tokensSchema = z.array(
  z.array(
    z.strictObject({
      id: count,
      text: z.string(),
      special: z.boolean(),
      start: count.nullable().describe('In code points of the text; null for special tokens.'),
      stop: count.nullable(),
    }),
  ),
)

export const textInfoSchema = z.strictObject({
  model_id: z.string(),
  model_sha: z.string().nullable(),
  model_dtype: z.literal('float32'),
  model_type: z.record(z.string(), z.record(z.string(), z.unknown())),
  max_concurrent_requests: count,
  max_input_length: count,
  max_batch_tokens: count,
  max_client_batch_size: count,
  auto_truncate: z.literal(false),
  prompts: z.array(z.string()),
  version: z.string(),
})

export type Embeddings = z.infer<typeof embeddingsSchema>
export type RankedDocuments = z.infer<typeof rankedDocumentsSchema>
export type Ranks = z.infer<typeof ranksSchema>
export type Tokens = z.infer<typeof tokensSchema>
export type TextInfo = z.infer<typeof textInfoSchema>
export type TextModelFacts = z.infer<typeof textModelSchema>
export type TextModelList = z.infer<typeof textModelListSchema>
export type OpenAiError = z.infer<typeof openAiErrorSchema>
export type TextError = z.infer<typeof textErrorSchema>
