import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import * as z from 'zod'
import { runCommand, temporaryFolder } from '../../helpers/server.js'
import { type TextModelOptions, writeTextModel } from '../../helpers/text-models.js'

const Document = z.object({
  text: z.object({
    output: z.string().nullable(),
    problem: z.string().nullable(),
    together: z.object({ texts: z.string(), reason: z.string() }).nullable(),
  }),
})

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
