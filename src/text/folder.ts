/**
 * Reads a folder as the Hugging Face hub has it (transformers, sentence-transformers) into a checked description.
 * Formats: https://huggingface.co/docs/transformers and https://sbert.net/docs/package_reference.
 */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type * as z from 'zod'
import { OnecopyError } from '../errors.js'
import type { Pooling } from '../token-pooling.js'
import type { TextDescription, TextOverrides, TextTask } from './description.js'
import { invalid, parseFile, readOptional, readOptionalText, sha256Of } from './hub-files.js'
import {
  ModelFileSchema,
  TokenizerConfigSchema,
  type TokenizerFile,
  TokenizerFileSchema,
} from './hub-schemas.js'
import { hasOnnxFile } from './model-files.js'
import { readSentenceFiles, type SentenceFiles } from './sentence-files.js'

export const MODEL_CONFIG_FILE = 'config.json'
export const TOKENIZER_FILE = 'tokenizer.json'
const TOKENIZER_CONFIG_FILE = 'tokenizer_config.json'
/** Lengths beyond are no lengths: exporters write 1e30 for none. */
const MAX_LENGTH = 1_000_000
const FALLBACK_LENGTH = 512
/** Private memory of a tokenizer for each byte of its file, measured: a trie takes more than tables do. */
const MEMORY_FACTORS = { unigram: 52, others: 22 } as const
/** Their positions begin behind the padding's: two of the table are never used. */
const OFFSET_POSITIONS =
  /^(roberta|xlm-roberta|xlm-roberta-xl|camembert|mpnet|longformer|data2vec-text|xmod)$/

type ModelFile = z.output<typeof ModelFileSchema>
type TokenizerConfig = z.output<typeof TokenizerConfigSchema>

/** Whether a folder is a text model: a tokenizer, a config and an ONNX file. */
export async function isTextFolder(folder: string): Promise<boolean> {
  for (const name of [TOKENIZER_FILE, MODEL_CONFIG_FILE])
    if ((await stat(join(folder, name)).catch(() => null))?.isFile() !== true) return false
  return await hasOnnxFile(folder)
}

function labelsOf({ id2label, num_labels: count }: ModelFile): string[] {
  if (id2label == null) return Array.from({ length: count ?? 2 }, (_, id) => `LABEL_${id}`)
  const ids = Object.keys(id2label).map(Number)
  const size = Math.max(...ids) + 1
  if (size !== ids.length)
    throw new Error(
      `id2label: expected the numbers 0 to ${ids.length - 1}, got ${ids.toSorted((a, b) => a - b).join(', ')}`,
    )
  return Array.from({ length: size }, (_, id) => id2label[String(id)] as string)
}

function taskOf(
  { architectures }: ModelFile,
  { sentence, labels }: { readonly sentence: SentenceFiles | null; readonly labels: number },
): { readonly task: TextTask; readonly taskReason: string } {
  if (sentence !== null) return { task: 'embedding', taskReason: 'modules.json is there' }
  const architecture = architectures?.[0] ?? ''
  const taskReason = `architectures is ${architecture === '' ? 'not given' : architecture} in ${MODEL_CONFIG_FILE}`
  if (architecture.endsWith('ForTokenClassification')) return { task: 'token-classification', taskReason }
  if (architecture.endsWith('ForSequenceClassification'))
    return labels === 1
      ? { task: 'reranking', taskReason: `${taskReason}, with one label` }
      : { task: 'classification', taskReason }
  return { task: 'embedding', taskReason }
}

function activationOf({ problem_type: problem }: ModelFile, labels: number): TextDescription['activation'] {
  if (problem === 'regression') return 'none'
  if (problem === 'multi_label_classification') return 'sigmoid'
  return problem === 'single_label_classification' || labels > 1 ? 'softmax' : 'sigmoid'
}

/** The smallest length that any file declares. */
function maxLengthOf(
  { model_type: type, max_position_embeddings: positions }: ModelFile,
  config: TokenizerConfig | null,
  sentence: SentenceFiles | null,
): number {
  const offset = OFFSET_POSITIONS.test(type ?? '') ? 2 : 0
  const given = [
    sentence?.maxLength,
    config?.model_max_length,
    positions == null || positions <= 0 ? null : positions - offset,
  ]
  const lengths = given.filter((one): one is number => one != null && one >= 1 && one <= MAX_LENGTH)
  return lengths.length === 0 ? FALLBACK_LENGTH : Math.floor(Math.min(...lengths))
}

function idOf({ added_tokens: added, model: { vocab } }: TokenizerFile, token: string): number | null {
  const special = added?.find(({ content }) => content === token)
  if (special !== undefined) return special.id
  if (Array.isArray(vocab)) {
    const id = vocab.findIndex(([one]) => one === token)
    return id < 0 ? null : id
  }
  return Object.hasOwn(vocab, token) ? (vocab[token] as number) : null
}

/** The id that fills shorter sequences of a batch; the attention mask hides it from the model. */
function paddingIdOf(
  model: ModelFile,
  config: TokenizerConfig | null,
  tokenizer: TokenizerFile,
  path: string,
): number {
  const { pad_token: token } = config ?? {}
  if (token != null) {
    const name = typeof token === 'string' ? token : token.content
    const id = idOf(tokenizer, name)
    if (id === null)
      throw invalid(path, `pad_token: expected a token of ${TOKENIZER_FILE}, got ${JSON.stringify(name)}`)
    return id
  }
  const { pad_token_id: id } = model
  return id != null && id >= 0 ? id : 0
}

/** Default pooling, as in sentence-transformers. */
const DEFAULT_POOLING: Pooling = 'mean'

/**
 * What a folder holds.
 * @throws OnecopyError REPOSITORY_INVALID naming file and key.
 */
export async function readTextFolder(
  folder: string,
  overrides: TextOverrides = {},
): Promise<TextDescription> {
  const modelPath = join(folder, MODEL_CONFIG_FILE)
  const model = await readOptional(folder, MODEL_CONFIG_FILE, ModelFileSchema)
  if (model === null) throw invalid(modelPath, 'expected a file, found none')
  const tokenizerPath = join(folder, TOKENIZER_FILE)
  const tokenizerText = await readOptionalText(tokenizerPath)
  if (tokenizerText === null) throw invalid(tokenizerPath, 'expected a file, found none')
  const tokenizer = parseFile(tokenizerPath, tokenizerText, TokenizerFileSchema)
  const tokenizerConfig = await readOptional(folder, TOKENIZER_CONFIG_FILE, TokenizerConfigSchema)
  const sentence = await readSentenceFiles(folder)
  let labels: string[]
  try {
    labels = labelsOf(model)
  } catch (thrown) {
    throw invalid(modelPath, (thrown as Error).message)
  }
  const found = taskOf(model, { sentence, labels: labels.length })
  const task = overrides.task ?? found.task
  const detectedLength = maxLengthOf(model, tokenizerConfig, sentence)
  const prompts = sentence?.prompts ?? {}
  const defaultPrompt =
    overrides.default_prompt === undefined ? (sentence?.defaultPrompt ?? null) : overrides.default_prompt
  if (defaultPrompt !== null && !Object.hasOwn(prompts, defaultPrompt))
    throw new OnecopyError(
      'REPOSITORY_INVALID',
      `${folder}: default prompt: expected one of ${Object.keys(prompts).join(', ') || 'no prompts'}, got ${JSON.stringify(defaultPrompt)}`,
    )
  const isEmbedding = task === 'embedding'
  return {
    task,
    taskReason: overrides.task === undefined ? found.taskReason : 'text.task in the config of the repository',
    maxLength: overrides.max_length ?? detectedLength,
    tokenizer: { path: tokenizerPath, sha256: sha256Of(tokenizerText) },
    tokenizerBytes:
      tokenizerText.length * MEMORY_FACTORS[Array.isArray(tokenizer.model.vocab) ? 'unigram' : 'others'],
    paddingId: paddingIdOf(model, tokenizerConfig, tokenizer, join(folder, TOKENIZER_CONFIG_FILE)),
    truncationSide: tokenizerConfig?.truncation_side ?? 'right',
    pooling: overrides.pooling ?? sentence?.pooling ?? DEFAULT_POOLING,
    dense: isEmbedding ? [...(sentence?.dense ?? [])] : [],
    isNormalized: overrides.normalize ?? sentence?.isNormalized ?? false,
    ...{ prompts, defaultPrompt },
    labels: isEmbedding ? [] : labels,
    activation: activationOf(model, labels.length),
  }
}
