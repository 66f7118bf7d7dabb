import test from 'ava'
import type { Tensor } from '../../src/tensor.js'
import {
  InputChoiceSchema,
  inputTransform,
  OutputChoiceSchema,
  outputTransform,
} from '../../src/transform/registry.js'
import { TransformRunner } from '../../src/transform/runner.js'
import { tokenize } from '../../src/transform/smiles-tokens.js'

const VOCABULARY = { C: 3, O: 4, Cl: 5, c: 6, '1': 7, '[nH]': 8, '=': 9, '(': 10, ')': 11 }

test('SMILES are split into atoms, bonds and ring numbers', (t) => {
  t.deepEqual(tokenize('ClC(=O)c1cc[nH]c1', 100), [
    ...['Cl', 'C', '(', '=', 'O', ')', 'c', '1', 'c', 'c', '[nH]', 'c', '1'],
  ])
  t.is(tokenize('C!C', 100), null)
  t.is(tokenize('CCCC', 3), null)
})

test('a tokeniser runs in the transform thread and produces two tensors', async (t) => {
  const choice = InputChoiceSchema.parse({
    kind: 'smiles-tokens',
    vocabulary: VOCABULARY,
    length: 6,
    begin: 1,
    end: 2,
  })
  await using runner = await TransformRunner.open({ choice })
  t.deepEqual(runner.rows, [
    { datatype: 'INT64', shape: [6] },
    { datatype: 'INT64', shape: [6] },
  ])
  const { accepted, rows } = await runner.encode(['CCl', 'CN', '', 'CCCCC', 'O'])
  t.deepEqual([...accepted], [1, 0, 0, 0, 1])
  t.deepEqual([...(rows[0] ?? [])], [1n, 3n, 5n, 2n, 0n, 0n, 1n, 4n, 2n, 0n, 0n, 0n])
  t.deepEqual([...(rows[1] ?? [])], [1n, 1n, 1n, 1n, 0n, 0n, 1n, 1n, 1n, 0n, 0n, 0n])
})

test('numbers are parsed from text, and rows with missing numbers are rejected', async (t) => {
  const choice = InputChoiceSchema.parse({ kind: 'numbers', length: 2 })
  await using runner = await TransformRunner.open({ choice })
  const { accepted, rows } = await runner.encode([['1', '2.5'], ['1'], ['1', ''], ['x', '2'], [3, 4]])
  t.deepEqual([...accepted], [1, 0, 0, 0, 1])
  t.deepEqual([...(rows[0] ?? [])], [1, 2.5, 3, 4])
})

test('numbers outside their datatype are rejected, not truncated, wrapped or made infinite', async (t) => {
  const cases = {
    UINT8: [
      ['255', '-0', '7.0'],
      ['256', '-1', '1.5', '1e3', 'Infinity', '0x10', 'nan'],
    ],
    INT32: [
      ['-2147483648', '+5', '1e3'],
      ['2147483648', '0.5', '12345678901234567890'],
    ],
    INT64: [
      ['9223372036854775807', '-9007199254740993', '2.0'],
      ['9223372036854775808', '0.5', '1e400'],
    ],
    FP32: [
      ['3.4e38', 'Infinity', '-0'],
      ['1e39', '1e400', 'nan', ''],
    ],
    FP64: [
      ['1e39', '-inf', '1e-400'],
      ['1e400', '1_0'],
    ],
  } as const
  for (const [datatype, [good, bad]] of Object.entries(cases)) {
    const choice = InputChoiceSchema.parse({ kind: 'numbers', length: 1, datatype })
    await using runner = await TransformRunner.open({ choice })
    const { accepted, rows } = await runner.encode([...bad, ...good].map((cell) => [cell]))
    t.deepEqual([...accepted], [...bad.map(() => 0), ...good.map(() => 1)], datatype)
    if (datatype === 'INT64') t.deepEqual([...(rows[0] ?? [])], [2n ** 63n - 1n, -9007199254740993n, 2n])
    if (datatype === 'FP32') t.true(Object.is(rows[0]?.[2], -0))
  }
})

test('options of a kind are validated, and unknown ones are named', (t) => {
  const problem = (value: unknown) => InputChoiceSchema.safeParse(value).error?.issues[0]?.message ?? ''
  t.regex(
    problem({ kind: 'daylight' }),
    /expected one of morgan, smiles-tokens, tokenizer, numbers, got "daylight"/,
  )
  t.regex(problem({ kind: 'morgan', bits: 100 }), /multiple of 8/)
  t.regex(problem({ kind: 'morgan', useChirality: true }), /useChirality/)
  const { options } = InputChoiceSchema.parse({ kind: 'morgan' })
  t.deepEqual(inputTransform({ kind: 'morgan', options } as never).rows(options), [
    { datatype: 'FP32', shape: [2048] },
  ])
})

function fp32(name: string, shape: number[], data: number[]): Tensor {
  return { name, datatype: 'FP32', shape, data: Float32Array.from(data) }
}

function openOutput(value: unknown, outputs: { name: string; shape: number[] }[], columns: string[]) {
  const choice = OutputChoiceSchema.parse(value)
  return outputTransform(choice).open(choice.options, { outputs, columns })
}

test('outputs fill columns in order, or by name', (t) => {
  const outputs = [
    { name: 'a', shape: [-1, 2] },
    { name: 'b', shape: [-1] },
  ]
  const inOrder = openOutput({ kind: 'values' }, outputs, ['x', 'y', 'z'])
  t.deepEqual(inOrder.outputNames, ['a', 'b'])
  t.deepEqual(inOrder.decode([fp32('a', [2, 2], [1, 2, 3, 4]), fp32('b', [2], [5, 6])], 1), [3, 4, 6])
  const named = openOutput(
    { kind: 'values', columns: { b: ['x'] }, activation: 'sigmoid', decimals: 2 },
    outputs,
    ['x'],
  )
  t.deepEqual(named.decode([fp32('b', [2], [0, 100])], 0), [0.5])
  const second = openOutput({ kind: 'values', columns: { a: [null, 'x'] } }, outputs, ['x'])
  t.deepEqual(second.decode([fp32('a', [2, 2], [1, 2, 3, 4])], 1), [4])
  t.throws(() => openOutput({ kind: 'values', columns: { c: ['x'] } }, outputs, ['x']), {
    message: /columns for unknown output "c", the model has a, b/,
  })
  t.throws(() => openOutput({ kind: 'values' }, outputs, ['x', 'y', 'z', 'w']), {
    message: /no model output fills w/,
  })
  const labels = openOutput({ kind: 'values' }, [{ name: 'a', shape: [-1] }], ['x'])
  const int64 = (...data: bigint[]) => [
    { name: 'a', datatype: 'INT64' as const, shape: [data.length], data: BigInt64Array.from(data) },
  ]
  t.deepEqual(labels.decode(int64(5n, -(2n ** 63n)), 1), [-(2 ** 63)])
  t.throws(() => labels.decode(int64(2n ** 53n + 1n), 0), {
    code: 'MODEL_RUN_FAILED',
    message: /9007199254740993 exceeds the integers/,
  })
})

test('a label is the name of the class with the highest score', (t) => {
  const outputs = [{ name: 'scores', shape: [-1, 3] }]
  const decoder = openOutput({ kind: 'label', labels: ['low', 'mid', 'high'] }, outputs, ['class', 'score'])
  t.deepEqual(decoder.decode([fp32('scores', [2, 3], [0.5, 0.25, 0.25, 0, 0.25, 0.75])], 1), ['high', 0.75])
})
