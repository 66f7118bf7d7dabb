import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import * as z from 'zod'
import { runCommand, temporaryFolder } from '../../helpers/server.js'
import { type TextModelOptions, writeTextModel } from '../../helpers/text-models.js'

const Document = z.object({
  model: z.string(),
  name: z.string(),
  text: z.object({
    task: z.string(),
    output: z.string().nullable(),
    pooling: z.string(),
    maxLength: z.number(),
    configPath: z.string().nullable(),
    problem: z.string().nullable(),
    together: z.object({ texts: z.string(), reason: z.string() }).nullable(),
  }),
})

function documentOf(t: ExecutionContext, path: string) {
  const { code, stdout, stderr } = runCommand(['inspect', path, '--no-measure', '--json'])
  t.is(code, 0, stderr)
  return Document.parse(JSON.parse(stdout))
}

function inspected(t: ExecutionContext, options: TextModelOptions, ...flags: string[]): string {
  const folder = writeTextModel(join(temporaryFolder(t), 'minilm'), options)
  const { code, stdout, stderr } = runCommand(['inspect', folder, '--no-measure', ...flags])
  t.is(code, 0, stderr)
  return stdout
}

function textOf(t: ExecutionContext, options: TextModelOptions) {
  return Document.parse(JSON.parse(inspected(t, options, '--json'))).text
}

test.serial('inspect checks whether padding changes results, and shows which texts share a batch', (t) => {
  const text = textOf(t, {})
  t.like(text, { output: 'last_hidden_state', problem: null })
  t.deepEqual(text.together, {
    texts: 'all',
    reason: 'padding changes no result by more than 0.0001 of its largest element',
  })
  t.regex(inspected(t, {}), /text batches +│ yes, of any length: padding/)
})

test.serial('if results depend on padding, inspect shows the largest difference', (t) => {
  const { together } = textOf(t, { encoder: { isMaskIgnored: true } })
  t.is(together?.texts, 'of one length')
  t.regex(together?.reason ?? '', /^a sequence of 3 tokens differs by .* when it is padded to 5$/)
})

test.serial('for a dynamically quantised model, inspect shows why texts are computed one at a time', (t) => {
  const { together } = textOf(t, { encoder: { isQuantised: true } })
  t.is(together?.texts, 'none')
  t.regex(together?.reason ?? '', /takes one scale from all rows \(dynamic quantisation\)/)
})

test.serial('classifiers of texts and of tokens are checked for padding as well', (t) => {
  for (const kind of ['classifier', 'token-classifier', 'reranker'] as const) {
    t.is(textOf(t, { kind }).together?.texts, 'all', kind)
    const { output, together } = textOf(t, { kind, encoder: { isMaskIgnored: true } })
    t.deepEqual([output, together?.texts], ['logits', 'of one length'], kind)
    t.regex(together?.reason ?? '', /^a sequence of 3 tokens differs by .* when it is padded to 5$/, kind)
  }
})

test.serial('inspect reads the config beside the folder, as serve does', (t) => {
  const dir = temporaryFolder(t)
  const folder = writeTextModel(join(dir, 'minilm'), {
    files: { 'onnx/model_quantized.onnx': new Uint8Array() },
  })
  const configPath = join(dir, 'minilm.config.json')
  const configure = (config: object) => writeFileSync(configPath, JSON.stringify(config))
  t.like(documentOf(t, folder).text, { pooling: 'mean', maxLength: 64, configPath: null })
  configure({ text: { pooling: 'cls', max_length: 8, file: 'model.onnx' } })
  for (const path of [folder, join(folder, 'onnx', 'model.onnx')]) {
    const { model, name, text } = documentOf(t, path)
    t.deepEqual([model, name], [join(folder, 'onnx', 'model.onnx'), 'minilm'])
    t.like(text, { pooling: 'cls', maxLength: 8, configPath, together: { texts: 'all' } })
  }
  configure({ batching: false })
  const reason = '"batching" is false in the config'
  t.deepEqual(documentOf(t, folder).text.together, { texts: 'none', reason })
  configure({ text: { task: 'classification' } })
  t.regex(documentOf(t, folder).text.problem ?? '', /expected an output logits for classification/)
  configure({ text: { file: 'model_quantized.onnx' } })
  // The other file, which is empty.
  t.regex(runCommand(['inspect', folder, '--no-measure']).stderr, /MODEL_INVALID/)
  configure({ text: { pool: 'cls' } })
  const { code, stderr } = runCommand(['inspect', folder, '--no-measure'])
  t.is(code, 1)
  t.regex(stderr, /minilm\.config\.json: .*pool/s)
})

test.serial('inspect reads the config of a version from the folder of its model', (t) => {
  const dir = temporaryFolder(t)
  const version = writeTextModel(join(dir, 'm', '2'))
  writeFileSync(join(dir, 'm', 'config.json'), '{"text": {"max_length": 16}}')
  const { name, text } = documentOf(t, version)
  t.is(name, 'm')
  t.like(text, { maxLength: 16, configPath: join(dir, 'm', 'config.json') })
})
