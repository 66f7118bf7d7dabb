/** Folders as the Hugging Face hub has them, written on the spot: nothing is downloaded. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type EncoderOptions, encoderModel } from './text-encoder.js'
import {
  hasTokenTypes,
  specialTokens,
  type TokenizerKind,
  tokenizerFile,
  vocabularySize,
} from './tokenizer-files.js'

export type TextModelKind = 'sentence' | 'pooled-in-graph' | 'classifier' | 'token-classifier' | 'reranker'

export interface TextModelOptions {
  readonly kind?: TextModelKind
  readonly tokenizer?: TokenizerKind
  readonly encoder?: Partial<EncoderOptions>
  /** JSON files to write besides, or instead; null leaves one out. */
  readonly files?: Readonly<Record<string, unknown>>
  readonly modelFile?: string
  readonly maxLength?: number
}

const HEADS = {
  sentence: 'hidden',
  'pooled-in-graph': 'sentence',
  classifier: 'sequence-labels',
  'token-classifier': 'token-labels',
  reranker: 'sequence-labels',
} as const

const ARCHITECTURES = {
  sentence: 'BertModel',
  'pooled-in-graph': 'BertModel',
  classifier: 'BertForSequenceClassification',
  'token-classifier': 'BertForTokenClassification',
  reranker: 'BertForSequenceClassification',
} as const

const LABELS: Readonly<Record<TextModelKind, readonly string[] | null>> = {
  sentence: null,
  'pooled-in-graph': null,
  classifier: ['negative', 'neutral', 'positive'],
  'token-classifier': ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC'],
  reranker: ['LABEL_0'],
}

export const POOLING = {
  word_embedding_dimension: 32,
  pooling_mode_cls_token: false,
  pooling_mode_mean_tokens: true,
  pooling_mode_max_tokens: false,
  pooling_mode_mean_sqrt_len_tokens: false,
}

const SENTENCE_FILES: Readonly<Record<string, unknown>> = {
  'modules.json': [
    { idx: 0, name: '0', path: '', type: 'sentence_transformers.models.Transformer' },
    { idx: 1, name: '1', path: '1_Pooling', type: 'sentence_transformers.models.Pooling' },
    { idx: 2, name: '2', path: '2_Normalize', type: 'sentence_transformers.models.Normalize' },
  ],
  '1_Pooling/config.json': POOLING,
  'sentence_bert_config.json': { max_seq_length: 64, do_lower_case: false },
  'config_sentence_transformers.json': {
    prompts: { query: 'query: ', passage: 'passage: ' },
    default_prompt_name: null,
  },
}

export function writeFiles(folder: string, files: Readonly<Record<string, unknown>>): void {
  for (const [name, content] of Object.entries(files)) {
    if (content === null) continue
    const path = join(folder, name)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, content instanceof Uint8Array ? content : JSON.stringify(content))
  }
}

/** Writes the folder of a model; returns it. */
export function writeTextModel(folder: string, options: TextModelOptions = {}): string {
  const { kind = 'sentence', tokenizer = 'wordpiece', encoder = {}, files = {} } = options
  const { modelFile = 'onnx/model.onnx', maxLength = 64 } = options
  const file = tokenizerFile(tokenizer)
  const labels = LABELS[kind]
  const hasTypes = hasTokenTypes(tokenizer)
  const model = encoderModel({
    vocabulary: vocabularySize(file),
    head: HEADS[kind],
    hasTypes,
    ...(labels === null ? {} : { labels: labels.length }),
    ...encoder,
  })
  writeFiles(folder, {
    'config.json': {
      architectures: [ARCHITECTURES[kind]],
      model_type: 'bert',
      hidden_size: 32,
      max_position_embeddings: encoder.maxPositions ?? 128,
      pad_token_id: 0,
      ...(labels === null
        ? {}
        : { id2label: Object.fromEntries(labels.map((label, id) => [String(id), label])) }),
    },
    'tokenizer.json': file,
    'tokenizer_config.json': {
      ...specialTokens(tokenizer),
      model_max_length: maxLength,
      tokenizer_class: 'PreTrainedTokenizerFast',
    },
    [modelFile]: model,
    ...(kind === 'sentence' ? SENTENCE_FILES : {}),
    ...files,
  })
  return folder
}
