import test from 'ava'
import { checkSelf, recordSelfCheck, type SelfCheckOptions } from '../../src/compile/self-check.js'
import { SelfCheckSchema } from '../../src/segment/layout.js'
import type { Tensor, TensorSpec } from '../../src/tensor.js'

const INPUTS: TensorSpec[] = [
  { name: 'x', datatype: 'FP32', shape: [-1, 4] },
  { name: 'n', datatype: 'INT64', shape: [] },
]
const OUTPUTS: TensorSpec[] = [
  { name: 'sum', datatype: 'FP32', shape: [-1, 1] },
  { name: 'count', datatype: 'INT64', shape: [1] },
  { name: 'odd', datatype: 'FP64', shape: [3] },
  { name: 'text', datatype: 'BYTES', shape: [1] },
]

/** Depends on all inputs, so that other inputs change the outputs. */
function answer(inputs: readonly Tensor[], factor = 1): Tensor[] {
  const [x, n] = inputs as [Tensor, Tensor]
  const sum = (x.data as Float32Array).reduce((total, value) => total + value, 0) * factor
  return [
    { name: 'sum', datatype: 'FP32', shape: [1, 1], data: Float32Array.of(sum) },
    {
      name: 'count',
      datatype: 'INT64',
      shape: [1],
      data: BigInt64Array.of((n.data[0] as bigint) + 2n ** 60n),
    },
    {
      name: 'odd',
      datatype: 'FP64',
      shape: [3],
      data: Float64Array.of(Number.NaN, Number.POSITIVE_INFINITY, 1e-300),
    },
    { name: 'text', datatype: 'BYTES', shape: [1], data: [`${n.data[0]} of many`] },
  ]
}

function options(run: (inputs: readonly Tensor[]) => Tensor[]): SelfCheckOptions {
  return { inputs: INPUTS, outputs: OUTPUTS, run: async (inputs) => run(inputs) }
}

test('the recorded self-check passes again, also after a JSON round trip', async (t) => {
  const check = await recordSelfCheck(options((inputs) => answer(inputs)))
  const stored = SelfCheckSchema.parse(JSON.parse(JSON.stringify(check)))
  t.deepEqual(stored, check)
  await checkSelf(
    stored,
    options((inputs) => answer(inputs)),
  )
  // Kernels may add in another order.
  await checkSelf(
    stored,
    options((inputs) => answer(inputs, 1 + 1e-6)),
  )
})

test('a different result is rejected with the output and the difference', async (t) => {
  const check = await recordSelfCheck(options((inputs) => answer(inputs)))
  if (check === null) return t.fail('expected a check')
  const refused = (change: (tensors: Tensor[]) => void, message: RegExp) =>
    t.throwsAsync(
      checkSelf(
        check,
        options((inputs) => {
          const tensors = answer(inputs)
          change(tensors)
          return tensors
        }),
      ),
      { code: 'SELF_CHECK_FAILED', message },
    )
  const set = (at: number, part: Partial<Tensor>) => (tensors: Tensor[]) => {
    tensors[at] = { ...(tensors[at] as Tensor), ...part }
  }
  await refused(set(0, { data: Float32Array.of(9) }), /output "sum" .*values that differ by/)
  await refused(set(0, { shape: [1] }), /output "sum" .*shape \[1\] instead of \[1,1\]/)
  await refused(set(1, { data: BigInt64Array.of(2n ** 60n + 1000n) }), /output "count"/)
  await refused(set(2, { data: Float64Array.of(0, Number.POSITIVE_INFINITY, 1e-300) }), /output "odd"/)
  await refused(set(3, { data: ['none'] }), /output "text" .*other text/)
  await refused((tensors) => tensors.pop(), /output "text" .*got nothing/)
})

test('half types are compared as numbers, not as their bits', async (t) => {
  const outputs: TensorSpec[] = [{ name: 'y', datatype: 'FP16', shape: [2] }]
  const one = 0x3c00
  const answering = (bits: number): SelfCheckOptions => ({
    inputs: INPUTS,
    outputs,
    run: async () => [{ name: 'y', datatype: 'FP16', shape: [2], data: Uint16Array.of(one, bits) }],
  })
  const check = await recordSelfCheck(answering(one))
  if (check === null) return t.fail('expected a check')
  await checkSelf(check, answering(one + 1))
  // 1.25 instead of 1.
  await t.throwsAsync(checkSelf(check, answering(one + 0x100)), { code: 'SELF_CHECK_FAILED' })
})

test('a model that is not deterministic or does not run has no self-check', async (t) => {
  let factor = 1
  t.is(await recordSelfCheck(options((inputs) => answer(inputs, factor++))), null)
  t.is(
    await recordSelfCheck(
      options(() => {
        throw new Error('no')
      }),
    ),
    null,
  )
})
