import test from 'ava'
import { type ConfigurationFacts, modelConfiguration } from '../../../src/protocol/v2/configuration.js'

const FACTS: ConfigurationFacts = {
  model: {
    name: 'm',
    version: '2',
    inputs: [
      { name: 'text', datatype: 'BYTES', shape: [-1, 4] },
      { name: 'weight', datatype: 'FP32', shape: [-1] },
    ],
    outputs: [{ name: 'y', datatype: 'BF16', shape: [-1, -1, 3] }],
  },
  maxBatchSize: 8,
  batching: { preferredBatchSizes: [4, 8], maxQueueDelayMs: 1.5 },
  versionPolicy: { kind: 'all' },
  threads: 2,
}

test('with a batch the first dimension is left out, and a scalar behind it is a reshaped one', (t) => {
  t.deepEqual(modelConfiguration(FACTS), {
    name: 'm',
    platform: 'onnx_onnxv1',
    backend: 'onnxruntime',
    version_policy: { all: {} },
    max_batch_size: 8,
    input: [
      { name: 'text', data_type: 'TYPE_STRING', dims: [4] },
      { name: 'weight', data_type: 'TYPE_FP32', dims: [1], reshape: { shape: [] } },
    ],
    output: [{ name: 'y', data_type: 'TYPE_BF16', dims: [-1, 3] }],
    dynamic_batching: { preferred_batch_size: [4, 8], max_queue_delay_microseconds: 1500 },
    parameters: { intra_op_thread_count: { string_value: '2' } },
  })
})

test('without a batch the shapes are whole, and nothing is said of gathering', (t) => {
  const configuration = modelConfiguration({ ...FACTS, maxBatchSize: 0, batching: null })
  t.is(configuration.max_batch_size, 0)
  t.deepEqual(
    configuration.input.map(({ dims }) => dims),
    [[-1, 4], [-1]],
  )
  t.false('dynamic_batching' in configuration)
})

test('the version policy in Triton’s words', (t) => {
  const policyOf = (versionPolicy: ConfigurationFacts['versionPolicy']) =>
    modelConfiguration({ ...FACTS, versionPolicy }).version_policy
  t.deepEqual(policyOf({ kind: 'latest', count: 2 }), { latest: { num_versions: 2 } })
  t.deepEqual(policyOf({ kind: 'specific', versions: ['1', '3'] }), { specific: { versions: [1, 3] } })
})
