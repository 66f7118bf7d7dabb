import test from 'ava'
import fc from 'fast-check'
import { OnecopyError } from '../../src/errors.js'
import type { Tensor, TensorSpec } from '../../src/tensor.js'
import { type SelectionLimits, selectBatch } from '../../src/text/batch-selection.js'
import { BatchSizes } from '../../src/text/batch-sizes.js'
import { CostModel } from '../../src/text/cost-model.js'
import { paddedInputs, type Sequence, textInterface } from '../../src/text/interface.js'
import { LengthBatcher, type LengthBatcherOptions, type RunBatch } from '../../src/text/length-batcher.js'

const inputs: TensorSpec[] = ['input_ids', 'attention_mask', 'token_type_ids'].map((name) => ({
  name,
  datatype: 'INT64',
  shape: [-1, -1],
}))
const outputs: TensorSpec[] = [{ name: 'last_hidden_state', datatype: 'FP32', shape: [-1, -1, 1] }]
const EMBEDDING = textInterface({ task: 'embedding', labels: [], pooling: 'max' }, { inputs, outputs })

function sequence(...ids: number[]): Sequence {
  return { ids, typeIds: ids.map(() => 0) }
}

const lengthsArbitrary = fc.array(fc.integer({ min: 1, max: 512 }), { minLength: 1, maxLength: 80 })
const limitsArbitrary = fc.record({
  maxRows: fc.integer({ min: 1, max: 64 }),
  maxTokens: fc.integer({ min: 1, max: 4096 }),
  maxPaddingTokens: fc.integer({ min: 0, max: 1024 }),
})

function limitsOf({ maxRows = 1000, maxTokens = 1e6, maxPaddingTokens = 1e6 }): SelectionLimits {
  return {
    maxRows: (length) => Math.min(maxRows, Math.floor(maxTokens / length)),
    maxPaddingTokens: () => maxPaddingTokens,
  }
}

test('a batch has the oldest sequence, longest first, and stays within rows, tokens and padding', (t) => {
  fc.assert(
    fc.property(lengthsArbitrary, limitsArbitrary, (lengths, limits) => {
      const places = selectBatch(lengths, limitsOf(limits))
      const chosen = places.map((place) => lengths[place] as number)
      const padded = places.length * Math.max(...chosen)
      const padding = padded - chosen.reduce((sum, length) => sum + length, 0)
      return (
        places.includes(0) &&
        new Set(places).size === places.length &&
        chosen.every((length, i) => i === 0 || length <= (chosen[i - 1] as number)) &&
        (places.length === 1 ||
          (places.length <= limits.maxRows &&
            padded <= limits.maxTokens &&
            padding <= limits.maxPaddingTokens))
      )
    }),
  )
  t.pass()
})

test('the sequences closest in length join, longer or shorter', (t) => {
  const chosen = selectBatch([20, 100, 19, 5, 22, 21], limitsOf({ maxRows: 3 }))
  t.deepEqual(
    chosen.map((place) => [20, 100, 19, 5, 22, 21][place]),
    [21, 20, 19],
  )
})

test('padding may cost as much as a separate execution, once that cost is known', (t) => {
  const costs = new CostModel()
  t.is(costs.maxPaddingTokens(1000), 200)
  // 1 ms an execution and 10 us a token: 100 tokens.
  for (let i = 1; i <= 40; i++) costs.record(i * 10, 1e6 + i * 10 * 1e4)
  t.true(Math.abs(costs.maxPaddingTokens(1000) - 100) <= 1)
  t.is(costs.maxPaddingTokens(50), 25)
})

test('shorter sequences are padded with the padding id, and masked there', (t) => {
  const [ids, mask, types] = paddedInputs(EMBEDDING, [{ ids: [5, 6, 7], typeIds: [0, 1, 1] }, sequence(8)], 9)
  const values = (tensor: Tensor | undefined) => Array.from(tensor?.data as BigInt64Array, Number)
  t.deepEqual(ids?.shape, [2, 3])
  t.deepEqual(values(ids), [5, 6, 7, 8, 9, 9])
  t.deepEqual(values(mask), [1, 1, 1, 1, 0, 0])
  t.deepEqual(values(types), [0, 1, 1, 0, 0, 0])
})

test('a graph with other inputs or outputs than a text model has is refused by name', (t) => {
  const refused = (change: object, says: RegExp, task = 'embedding' as const) =>
    t.throws(() => textInterface({ task, labels: [], pooling: 'mean' }, { inputs, outputs, ...change }), {
      code: 'MODEL_UNSUPPORTED',
      message: says,
    })
  refused(
    { inputs: [...inputs, { name: 'pixels', datatype: 'FP32', shape: [-1, 3] }] },
    /input "pixels": a text/,
  )
  refused({ inputs: inputs.slice(1) }, /expected an input input_ids, found none/)
  refused(
    { inputs: [{ ...inputs[0], shape: [-1, 128] }] },
    /input input_ids: expected a variable length, got \[-1, 128\]/,
  )
  refused(
    { outputs: [{ ...outputs[0], datatype: 'FP64' }] },
    /output last_hidden_state: expected FP32 or FP16, got FP64/,
  )
  const logits = [{ name: 'logits', datatype: 'FP32' as const, shape: [-1, 3] }]
  t.throws(
    () =>
      textInterface(
        { task: 'classification', labels: ['a', 'b'], pooling: 'mean' },
        { inputs, outputs: logits },
      ),
    {
      message: /output logits: expected a logit for each of the 2 labels in config\.json, got 3/,
    },
  )
})

test('the sequences that pay together are learnt for each class of lengths', (t) => {
  const sizes = new BatchSizes({ maxRows: 64, maxTokens: 4096 })
  t.is(sizes.maxRows(8), 1)
  for (let i = 0; i < 12; i++) {
    const [short, long] = [sizes.maxRows(8), sizes.maxRows(300)]
    // An execution of short ones costs 1 ms and a tenth more a row; long ones cost more together.
    sizes.record({ rows: short, length: 8, computeNs: 1e6 + short * 1e5 })
    sizes.record({ rows: long, length: 300, computeNs: long * (long > 1 ? 12e6 : 10e6) })
  }
  t.true(sizes.maxRows(8) > 31, 'short ones')
  t.is(sizes.maxRows(15), sizes.maxRows(8), 'of one class')
  t.is(sizes.maxRows(300), 1, 'long ones')
  t.is(sizes.maxRows(5000), 1, 'one that passes the bound on tokens is computed alone')
  t.false(sizes.isWorthWaiting({ length: 300, fewer: 1, more: 2 }))
})

test('the next batch is with the model while one is computed, where it could not be fuller', async (t) => {
  const releases: (() => void)[] = []
  const { run, shapes } = fakeModel(() => new Promise((resolve) => releases.push(resolve)))
  const batcher = batcherOf(run, { maxRows: 1 })
  const answers = [1, 2, 3].map((id) => idsOf(batcher, [sequence(id)]))
  await settle()
  t.is(shapes.length, 2)
  releases.shift()?.()
  t.deepEqual(await answers[0], [[1]])
  await settle()
  t.is(shapes.length, 3)
  for (const release of releases) release()
  t.deepEqual(await Promise.all(answers), [[[1]], [[2]], [[3]]])
})

function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0))
}

/** Answers each place with its id, and remembers the shapes. */
function fakeModel(hook: (job: { rows: number; length: number }) => void | Promise<void> = () => {}) {
  const shapes: (readonly number[])[] = []
  const run: RunBatch = async ({ inputs: [ids] }) => {
    const [rows = 0, length = 0] = ids?.shape ?? []
    shapes.push([rows, length])
    await hook({ rows, length })
    await new Promise((resolve) => setImmediate(resolve))
    const data = Float32Array.from(ids?.data as BigInt64Array, Number)
    const output = { name: 'last_hidden_state', datatype: 'FP32' as const, shape: [rows, length, 1], data }
    return { outputs: [output], computeNs: 1e6 + rows * length * 1e3 }
  }
  return { shapes, run }
}

function batcherOf(run: RunBatch, options: Partial<LengthBatcherOptions> = {}): LengthBatcher {
  return new LengthBatcher({
    ...{ textInterface: EMBEDDING, paddingId: 0, maxRows: 64, maxTokens: 4096, maxRequests: 100 },
    ...{ maxBytes: 1e6, isBatchable: true, isPaddable: true, run },
    ...options,
  })
}

async function idsOf(batcher: LengthBatcher, sequences: readonly Sequence[]): Promise<number[][]> {
  const results: number[][] = []
  const take = (row: { data: Float32Array; length: number }, place: number) => {
    results[place] = [...row.data.subarray(0, row.length)]
  }
  await batcher.run(sequences, take, { isCancelled: () => false })
  return results
}

test('every request gets its own rows for all lengths, within the limits', async (t) => {
  const requests = fc.array(
    fc.array(fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 60 }), { maxLength: 12 }),
    { maxLength: 12 },
  )
  await fc.assert(
    fc.asyncProperty(requests, fc.boolean(), fc.boolean(), async (all, isBatchable, isPaddable) => {
      const { run, shapes } = fakeModel()
      const batcher = batcherOf(run, { maxRows: 8, maxTokens: 200, isBatchable, isPaddable })
      const answers = await Promise.all(
        all.map((ids) =>
          idsOf(
            batcher,
            ids.map((one) => sequence(...one)),
          ),
        ),
      )
      t.deepEqual(answers, all)
      for (const [rows = 0, length = 0] of shapes) {
        t.true(rows === 1 || (isBatchable && rows <= 8 && rows * length <= 200))
      }
    }),
    { numRuns: 60 },
  )
})

test('if padding changes results, only sequences of equal length are batched', async (t) => {
  const { run, shapes } = fakeModel()
  const batcher = batcherOf(run, { isPaddable: false })
  const lengths = [3, 5, 3, 5, 3, 7]
  const sequences = lengths.map((length) => sequence(...new Array(length).fill(length)))
  for (let round = 0; round < 12; round++) await idsOf(batcher, sequences)
  t.true(shapes.some(([rows = 0]) => rows > 1))
  // The fake answers with what it was given: padding would show as zeros.
  t.deepEqual((await idsOf(batcher, sequences)).flat().includes(0), false)
})

test('a sequence that fails its batch fails its own request only', async (t) => {
  const { run } = fakeModel(({ length }) => {
    if (length === 13) throw new OnecopyError('MODEL_RUN_FAILED', 'no 13')
  })
  const batcher = batcherOf(run)
  for (let i = 0; i < 12; i++) await idsOf(batcher, [sequence(...new Array(12).fill(1)), sequence(2)])
  const bad = idsOf(batcher, [sequence(...new Array(13).fill(1))])
  const good = idsOf(batcher, [sequence(...new Array(12).fill(4)), sequence(5)])
  await t.throwsAsync(bad, { code: 'MODEL_RUN_FAILED', message: 'no 13' })
  t.deepEqual(await good, [new Array(12).fill(4), [5]])
})

test('a request over the limits is refused immediately, and that of a disconnected client is not computed', async (t) => {
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const { run, shapes } = fakeModel(() => held)
  const batcher = batcherOf(run, { maxRequests: 3, maxBytes: 80 })
  await t.throwsAsync(idsOf(batcher, [sequence(...new Array(11).fill(1))]), { code: 'REQUEST_TOO_LARGE' })
  const first = idsOf(batcher, [sequence(1)])
  let isGone = false
  const second = idsOf(batcher, [sequence(2, 2)])
  const third = batcher.run([sequence(3, 3, 3)], () => {}, { isCancelled: () => isGone })
  await t.throwsAsync(idsOf(batcher, [sequence(3)]), { code: 'QUEUE_FULL' })
  // The first two are with the model, each alone: nothing was known of sizes.
  await new Promise((resolve) => setImmediate(resolve))
  isGone = true
  release()
  await t.throwsAsync(third, { code: 'REQUEST_CANCELLED' })
  t.deepEqual(await first, [[1]])
  t.deepEqual(await second, [[2, 2]])
  t.deepEqual(shapes, [
    [1, 1],
    [1, 2],
  ])
  t.deepEqual(await idsOf(batcher, [sequence(4)]), [[4]])
})

test('no sequences are no work', async (t) => {
  const { run, shapes } = fakeModel()
  t.deepEqual(await idsOf(batcherOf(run), []), [])
  t.deepEqual(shapes, [])
})
