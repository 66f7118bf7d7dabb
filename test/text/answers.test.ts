import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { applyDense, readDense } from '../../src/text/dense.js'
import { sha256Of } from '../../src/text/hub-files.js'
import { findPaddingProblem } from '../../src/text/padding-check.js'
import { normalize, softmax } from '../../src/text/scores.js'
import { type Aggregation, entitiesOf } from '../../src/text/token-classes.js'
import { temporaryFolder } from '../helpers/server.js'

test('vectors of length 1, and probabilities that add up to 1', (t) => {
  t.deepEqual(
    [...normalize(Float32Array.of(3, 4))].map((x) => x.toFixed(3)),
    ['0.600', '0.800'],
  )
  t.deepEqual([...normalize(Float32Array.of(0, 0))], [0, 0])
  t.deepEqual(softmax([1000, 1000]), [0.5, 0.5])
})

function safetensors(
  tensors: Record<string, { shape: number[]; values: number[] }>,
  dtype = 'F32',
): Uint8Array {
  let at = 0
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } }
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [at, at + 4 * values.length] }
    at += 4 * values.length
  }
  const json = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const data = Object.values(tensors).map(({ values }) => Buffer.from(Float32Array.from(values).buffer))
  return Buffer.concat([length, json, ...data])
}

test('a dense layer out of a safetensors file', async (t) => {
  const path = join(temporaryFolder(t), 'model.safetensors')
  const layer = (bytes: Uint8Array) => {
    writeFileSync(path, bytes)
    const weights = { path, sha256: sha256Of(bytes) }
    return { weights, inputs: 3, outputs: 2, hasBias: true, activation: 'tanh' as const }
  }
  const weight = { shape: [2, 3], values: [1, 0, 0, 0, 1, 1] }
  const bias = { shape: [2], values: [0, 1] }
  const good = safetensors({ 'linear.weight': weight, 'linear.bias': bias })
  const read = await readDense(layer(good))
  const [first = 0, second = 0] = applyDense(read, Float32Array.of(0.5, 1, -2))
  t.true(Math.abs(first - Math.tanh(0.5)) < 1e-6)
  t.true(Math.abs(second - Math.tanh(0)) < 1e-6)
  const refused = (bytes: Uint8Array, message: RegExp) =>
    t.throwsAsync(readDense(layer(bytes)), { code: 'REPOSITORY_INVALID', message })
  await refused(safetensors({ 'linear.weight': weight }), /expected a tensor linear\.bias, found none/)
  await refused(
    safetensors({ 'linear.weight': weight, 'linear.bias': bias }, 'F16'),
    /linear\.weight: expected F32/,
  )
  await refused(good.subarray(0, good.length - 4), /linear\.bias: expected 8 bytes inside the file/)
  await refused(Buffer.from('no'), /expected a safetensors file/)
  await t.throwsAsync(readDense({ ...layer(good), weights: { path, sha256: '' } }), {
    message: /has changed/,
  })
})

/** Two words of two tokens, one of one, and the tokens around them. */
const LOCATED = {
  ids: [2, 10, 11, 12, 13, 14, 3],
  typeIds: [0, 0, 0, 0, 0, 0, 0],
  isTruncated: false,
  tokens: ['[CLS]', 'wol', '##fgang', 'ber', '##lin', '!', '[SEP]'],
  offsets: [
    [0, 0],
    [0, 3],
    [3, 8],
    [9, 12],
    [12, 15],
    [15, 16],
    [0, 0],
  ],
  words: [null, 0, 0, 1, 1, 2, null],
  isSpecial: [true, false, false, false, false, false, true],
}
const LABELS = ['O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC']

function entities(best: readonly number[], aggregation: Aggregation, strength = 9): string[] {
  const logits = new Float32Array(LOCATED.ids.length * LABELS.length)
  for (const [token, label] of best.entries())
    logits[token * LABELS.length + label] = token === 4 ? strength : 9
  const row = { text: 'wolfgang berlin!', located: LOCATED, logits }
  return entitiesOf(row, LABELS, aggregation).map(
    ({ entity, word, start, end }) => `${entity} ${word} ${start}-${end}`,
  )
}

test('tokens become words and words entities, as the aggregation says', (t) => {
  const tags = [0, 1, 2, 3, 4, 0, 0]
  t.deepEqual(entities(tags, 'none'), [
    'B-PER wol 0-3',
    'I-PER fgang 3-8',
    'B-LOC ber 9-12',
    'I-LOC lin 12-15',
  ])
  t.deepEqual(entities(tags, 'simple'), ['PER wolfgang 0-8', 'LOC berlin 9-15'])
  // The second token of a word disagrees with the first.
  const mixed = [0, 1, 2, 3, 2, 0, 0]
  t.deepEqual(entities(mixed, 'simple'), ['PER wolfgang 0-8', 'LOC ber 9-12', 'PER lin 12-15'])
  t.deepEqual(entities(mixed, 'first'), ['PER wolfgang 0-8', 'LOC berlin 9-15'])
  t.deepEqual(entities(mixed, 'max', 20), ['PER wolfgang berlin 0-15'])
  t.deepEqual(entities(mixed, 'average', 1), ['PER wolfgang 0-8', 'LOC berlin 9-15'])
  t.deepEqual(entities([0, 1, 1, 0, 0, 0, 0], 'simple'), ['PER wol 0-3', 'PER fgang 3-8'])
  t.deepEqual(entities([0, 0, 0, 0, 0, 0, 0], 'simple'), [])
})

test('offsets count code points: characters beyond 16 bits are one', (t) => {
  const logits = Float32Array.from([0, 9])
  const located = {
    ...{ ids: [5], typeIds: [0], isTruncated: false, tokens: ['x'] },
    ...{ offsets: [[2, 3]], words: [0], isSpecial: [false] },
  }
  const [entity] = entitiesOf({ text: '👍 x', located, logits }, ['O', 'X'], 'simple')
  t.like(entity, { entity: 'X', word: 'x', start: 2, end: 3 })
})

test('the check finds a model whose results depend on padding, and passes one whose do not', async (t) => {
  const textInterface = {
    inputs: [{ name: 'input_ids', datatype: 'INT64' as const, shape: [-1, -1] }],
    output: { name: 'y', datatype: 'FP32' as const, shape: [-1, -1, 1] },
    pooling: null,
  }
  const check = (value: (ids: readonly number[], longest: number) => number) =>
    findPaddingProblem({
      ...{ textInterface, paddingId: 0, maxLength: 64, vocabularySize: 100 },
      run: async ({ inputs: [ids] }) => {
        const [rows = 0, longest = 0] = ids?.shape ?? []
        const all = Array.from(ids?.data as BigInt64Array, Number)
        const data = Float32Array.from(all, (_, at) => {
          const row = Math.floor(at / longest)
          return value(all.slice(row * longest, (row + 1) * longest), longest) + (all[at] as number) / 1000
        })
        return { outputs: [{ name: 'y', datatype: 'FP32', shape: [rows, longest, 1], data }], computeNs: 1 }
      },
    })
  t.is(await check((ids) => ids.reduce((sum, id) => sum + id, 0)), null)
  t.regex((await check((_, longest) => longest)) ?? '', /^a sequence of 3 tokens differs by .* padded to 5$/)
})
