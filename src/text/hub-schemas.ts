/**
 * The parts of a Hugging Face folder's files that are read. Keys that are not here change nothing of what is served;
 * values that would, and are not supported, are refused with the name of the file and the key.
 */
import * as z from 'zod'

const count = z.int().positive()
const unsupported = (why: string) => z.literal(false, `is not supported: ${why}`).optional()

export const ModelFileSchema = z.looseObject({
  architectures: z.array(z.string()).nullish(),
  model_type: z.string().nullish(),
  id2label: z.record(z.string().regex(/^\d+$/, 'expected a number'), z.string()).nullish(),
  num_labels: count.nullish(),
  problem_type: z.enum(['single_label_classification', 'multi_label_classification', 'regression']).nullish(),
  pad_token_id: z.int().nullish(),
  max_position_embeddings: z.int().nullish(),
  is_encoder_decoder: unsupported('expected a model of one encoder or one decoder'),
})

const tokenSchema = z.union([z.string(), z.looseObject({ content: z.string() })])

export const TokenizerConfigSchema = z.looseObject({
  /** Some exporters write 1e30 for none. */
  model_max_length: z.number().positive().nullish(),
  pad_token: tokenSchema.nullish(),
  truncation_side: z.enum(['left', 'right']).nullish(),
})

export const TokenizerFileSchema = z.looseObject({
  model: z.looseObject({
    type: z.string().nullish(),
    vocab: z.union([z.record(z.string(), z.int().nonnegative()), z.array(z.tuple([z.string(), z.number()]))]),
  }),
  added_tokens: z.array(z.looseObject({ id: z.int().nonnegative(), content: z.string() })).nullish(),
})
export type TokenizerFile = z.output<typeof TokenizerFileSchema>

export const ModulesSchema = z.array(z.looseObject({ path: z.string(), type: z.string() })).min(1)

export const PoolingFileSchema = z.looseObject({
  pooling_mode_cls_token: z.boolean().optional(),
  pooling_mode_mean_tokens: z.boolean().optional(),
  pooling_mode_max_tokens: z.boolean().optional(),
  pooling_mode_lasttoken: z.boolean().optional(),
  pooling_mode_mean_sqrt_len_tokens: unsupported('expected mean, cls, max or last token'),
  pooling_mode_weightedmean_tokens: unsupported('expected mean, cls, max or last token'),
  include_prompt: z.literal(true, 'is not supported: expected prompts to count in the pooling').optional(),
})

export const DenseFileSchema = z.looseObject({
  in_features: count,
  out_features: count,
  bias: z.boolean().default(true),
  activation_function: z
    .enum(['torch.nn.modules.activation.Tanh', 'torch.nn.modules.linear.Identity'], {
      error:
        'is not supported: expected torch.nn.modules.activation.Tanh or torch.nn.modules.linear.Identity',
    })
    .default('torch.nn.modules.activation.Tanh'),
})

export const SentenceConfigSchema = z.looseObject({
  max_seq_length: count.nullish(),
  do_lower_case: unsupported('expected the tokenizer to do it'),
})

export const PromptsSchema = z.looseObject({
  prompts: z.record(z.string(), z.string().nullable()).nullish(),
  default_prompt_name: z.string().nullish(),
})
