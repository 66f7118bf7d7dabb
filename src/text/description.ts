/** Description of a text model, read from the files of its folder (folder.ts) and sent to the workers. */
import * as z from 'zod'
import { POOLINGS } from '../token-pooling.js'

export const TEXT_TASKS = ['embedding', 'classification', 'token-classification', 'reranking'] as const
export type TextTask = (typeof TEXT_TASKS)[number]

export const ACTIVATIONS = ['softmax', 'sigmoid', 'none'] as const

/** A file that workers read themselves. Its digest must equal that at the time the folder was read. */
const file = z.object({ path: z.string(), sha256: z.string() })

export const DenseSchema = z.object({
  weights: file,
  inputs: z.int().positive(),
  outputs: z.int().positive(),
  hasBias: z.boolean(),
  activation: z.enum(['tanh', 'none']),
})
export type DenseDescription = z.output<typeof DenseSchema>

export const TextDescriptionSchema = z.object({
  task: z.enum(TEXT_TASKS),
  /** Why it is this one. */
  taskReason: z.string(),
  /** Tokens of a sequence, special ones included. */
  maxLength: z.int().positive(),
  tokenizer: file,
  /** Estimated private memory of the tokenizer in each worker. */
  tokenizerBytes: z.int().nonnegative(),
  paddingId: z.int().nonnegative(),
  truncationSide: z.enum(['left', 'right']),
  /** Of embeddings, where the graph has no output `sentence_embedding`. */
  pooling: z.enum(POOLINGS),
  dense: z.array(DenseSchema),
  isNormalized: z.boolean(),
  /** Prefixes of texts, by name. */
  prompts: z.record(z.string(), z.string()),
  defaultPrompt: z.string().nullable(),
  /** Of classifications, by place in the logits; empty elsewhere. */
  labels: z.array(z.string()),
  activation: z.enum(ACTIVATIONS),
})
export type TextDescription = z.output<typeof TextDescriptionSchema>

/** Settings that the config of the repository overrides. */
export const TextOverridesSchema = z.strictObject({
  task: z.enum(TEXT_TASKS).optional(),
  /** Which ONNX file of the folder; `auto`: a quantised one that suits the CPU, where there is one. */
  file: z.string().min(1).max(4096).optional(),
  pooling: z.enum(POOLINGS).optional(),
  normalize: z.boolean().optional(),
  max_length: z.int().min(1).max(1_000_000).optional(),
  default_prompt: z.string().nullable().optional(),
})
export type TextOverrides = z.output<typeof TextOverridesSchema>
