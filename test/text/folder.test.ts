import { rmSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { TextDescriptionSchema } from '../../src/text/description.js'
import { isTextFolder, readTextFolder } from '../../src/text/folder.js'
import { modelFileOf } from '../../src/text/model-files.js'
import { temporaryFolder } from '../helpers/server.js'
import { POOLING, type TextModelOptions, writeFiles, writeTextModel } from '../helpers/text-models.js'
import { tokenizerFile } from '../helpers/tokenizer-files.js'

function folderOf(t: ExecutionContext, options: TextModelOptions = {}): string {
  return writeTextModel(join(temporaryFolder(t), 'minilm'), options)
}

async function refused(t: ExecutionContext, files: Record<string, unknown>, message: RegExp): Promise<void> {
  const folder = folderOf(t, { files })
  const error = await t.throwsAsync(readTextFolder(folder), { code: 'REPOSITORY_INVALID' })
  t.regex(error?.message ?? '', message)
}

test('a sentence-transformers folder: mean pooling, normalised, its own longest length and prompts', async (t) => {
  const description = await readTextFolder(folderOf(t))
  t.like(description, {
    task: 'embedding',
    maxLength: 64,
    pooling: 'mean',
    isNormalized: true,
    prompts: { query: 'query: ', passage: 'passage: ' },
    defaultPrompt: null,
    paddingId: 0,
    truncationSide: 'right',
    labels: [],
  })
  t.deepEqual(TextDescriptionSchema.parse(JSON.parse(JSON.stringify(description))), description)
})

test('the task follows from the architecture, labels and activation from the config', async (t) => {
  const of = (options: TextModelOptions) => readTextFolder(folderOf(t, options))
  t.like(await of({ kind: 'classifier' }), {
    task: 'classification',
    labels: ['negative', 'neutral', 'positive'],
    activation: 'softmax',
  })
  t.like(await of({ kind: 'token-classifier' }), { task: 'token-classification' })
  t.like(await of({ kind: 'reranker' }), { task: 'reranking', activation: 'sigmoid' })
  t.like(await of({ kind: 'pooled-in-graph' }), { task: 'embedding', isNormalized: false })
  const config = { architectures: ['XForSequenceClassification'], problem_type: 'multi_label_classification' }
  t.like(await of({ kind: 'classifier', files: { 'config.json': config } }), {
    activation: 'sigmoid',
    labels: ['LABEL_0', 'LABEL_1'],
  })
})

test('what a tokenizer takes in every worker is estimated by its file and kind', async (t) => {
  const bytesOf = async (tokenizer: 'wordpiece' | 'unigram') => {
    const { tokenizerBytes } = await readTextFolder(folderOf(t, { tokenizer }))
    return tokenizerBytes / JSON.stringify(tokenizerFile(tokenizer)).length
  }
  t.is(await bytesOf('wordpiece'), 22)
  t.is(await bytesOf('unigram'), 52)
})

test('the length limit is the smallest that any file declares', async (t) => {
  const lengthOf = async (files: Record<string, unknown>) =>
    (await readTextFolder(folderOf(t, { kind: 'pooled-in-graph', files }))).maxLength
  const tokenizer = (model_max_length: number) => ({ 'tokenizer_config.json': { model_max_length } })
  t.is(await lengthOf(tokenizer(1e30)), 128)
  t.is(await lengthOf(tokenizer(100)), 100)
  const roberta = { model_type: 'roberta', max_position_embeddings: 514 }
  t.is(await lengthOf({ ...tokenizer(1e30), 'config.json': roberta }), 512)
  t.is(await lengthOf({ ...tokenizer(1e30), 'config.json': {} }), 512)
})

test('the config of the repository overrules what was detected', async (t) => {
  const folder = folderOf(t)
  t.like(
    await readTextFolder(folder, {
      task: 'embedding',
      pooling: 'cls',
      normalize: false,
      max_length: 16,
      default_prompt: 'query',
    }),
    { pooling: 'cls', isNormalized: false, maxLength: 16, defaultPrompt: 'query' },
  )
  await t.throwsAsync(readTextFolder(folder, { default_prompt: 'other' }), {
    message: /default prompt: expected one of query, passage, got "other"/,
  })
})

test('an unsupported or unexpected setting is refused by file and key', async (t) => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ 'config.json': { is_encoder_decoder: true } }, /config\.json: is_encoder_decoder: is not supported/],
    [
      { 'config.json': { id2label: { 0: 'a', 2: 'b' } } },
      /config\.json: id2label: expected the numbers 0 to 1, got 0, 2/,
    ],
    [{ 'config.json': { problem_type: 'other' } }, /config\.json: problem_type: /],
    [
      { 'tokenizer_config.json': { pad_token: '[NONE]' } },
      /tokenizer_config\.json: pad_token: expected a token/,
    ],
    [{ 'tokenizer.json': { model: {} } }, /tokenizer\.json: model\.vocab: /],
    [
      { '1_Pooling/config.json': { ...POOLING, pooling_mode_cls_token: true } },
      /1_Pooling\/config\.json: expected one pooling mode .* got pooling_mode_mean_tokens and pooling_mode_cls_token/,
    ],
    [
      { '1_Pooling/config.json': { ...POOLING, pooling_mode_weightedmean_tokens: true } },
      /pooling_mode_weightedmean_tokens: is not supported/,
    ],
    [{ '1_Pooling/config.json': { ...POOLING, include_prompt: false } }, /include_prompt: is not supported/],
    [{ '1_Pooling/config.json': null }, /1_Pooling\/config\.json: expected a file, found none/],
    [{ 'sentence_bert_config.json': { do_lower_case: true } }, /sentence_bert_config\.json: do_lower_case/],
    [
      { 'modules.json': [{ path: '', type: 'sentence_transformers.models.WeightedLayerPooling' }] },
      /modules\.json: 0\.type: expected one of Transformer, Pooling, Dense, Normalize, got/,
    ],
    [
      {
        'modules.json': [
          { path: '', type: 'sentence_transformers.models.Normalize' },
          { path: '1_Pooling', type: 'sentence_transformers.models.Pooling' },
        ],
      },
      /modules\.json: 1\.type: expected .* in this order, got Pooling after Normalize/,
    ],
    [
      {
        'modules.json': [{ path: '2_Dense', type: 'sentence_transformers.models.Dense' }],
        '2_Dense/config.json': { in_features: 4, out_features: 2, activation_function: 'torch.nn.GELU' },
      },
      /2_Dense\/config\.json: activation_function: is not supported/,
    ],
    [
      {
        'modules.json': [{ path: '2_Dense', type: 'sentence_transformers.models.Dense' }],
        '2_Dense/config.json': { in_features: 4, out_features: 2 },
      },
      /2_Dense\/model\.safetensors: expected the weights/,
    ],
  ]
  for (const [files, message] of cases) await refused(t, files, message)
})

test('a folder is a text model with a tokenizer, a config and an ONNX file, and with nothing less', async (t) => {
  const folder = folderOf(t)
  t.true(await isTextFolder(folder))
  rmSync(join(folder, 'tokenizer.json'))
  t.false(await isTextFolder(folder))
  writeFiles(folder, { 'tokenizer.json': {} })
  rmSync(join(folder, 'onnx'), { recursive: true })
  t.false(await isTextFolder(folder))
  writeFiles(folder, { 'model.onnx': new Uint8Array(1) })
  t.true(await isTextFolder(folder))
})

test('the model as exported is served by default; auto takes a quantised one that suits the CPU', async (t) => {
  const folder = temporaryFolder(t)
  const file = async (choice: string | undefined, ...flags: string[]) =>
    (await modelFileOf(folder, choice, new Set(flags))).slice(folder.length + 1)
  await t.throwsAsync(file(undefined), {
    message: /expected onnx\/model\.onnx or model\.onnx, found neither/,
  })
  writeFiles(folder, {
    'onnx/model.onnx': new Uint8Array(1),
    'onnx/model_qint8_avx512_vnni.onnx': new Uint8Array(1),
  })
  t.is(await file(undefined, 'avx512_vnni'), 'onnx/model.onnx')
  t.is(await file('auto', 'avx512_vnni'), 'onnx/model_qint8_avx512_vnni.onnx')
  t.is(await file('auto', 'avx2'), 'onnx/model.onnx')
  writeFiles(folder, { 'onnx/model_quantized.onnx': new Uint8Array(1) })
  t.is(await file('auto', 'avx2'), 'onnx/model_quantized.onnx')
  t.is(await file('model_qint8_avx512_vnni.onnx'), 'onnx/model_qint8_avx512_vnni.onnx')
  await t.throwsAsync(file('../model.onnx'), { message: /expected an ONNX file inside the folder/ })
  await t.throwsAsync(file('other.onnx'), { message: /expected a file other\.onnx, found none/ })
})
