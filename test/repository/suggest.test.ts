import test from 'ava'
import fc from 'fast-check'
import { MODEL_CONFIG_KEYS, ModelConfigSchema } from '../../src/repository/config.js'
import { configText, suggestConfig } from '../../src/repository/suggest.js'
import type { SegmentHeader } from '../../src/segment/layout.js'
import { DATATYPES, type Datatype } from '../../src/tensor.js'

const size = fc.oneof(fc.constant(-1), fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 2 ** 40 }))
const spec = fc.record({
  name: fc.string(),
  datatype: fc.constantFrom(...(Object.keys(DATATYPES) as Datatype[])),
  shape: fc.option(fc.array(size, { maxLength: 5 })),
})
const header = fc.record({
  inputs: fc.array(spec, { maxLength: 3 }),
  outputs: fc.array(spec, { minLength: 1, maxLength: 3 }),
  batching: fc.record({ batchable: fc.boolean(), reason: fc.string() }),
})

test('for any shapes, the suggested config has every key, is valid and admits a request', (t) => {
  fc.assert(
    fc.property(header, (shapes) => {
      const keys = suggestConfig(shapes as unknown as SegmentHeader)
      t.deepEqual(
        keys.map(({ key }) => key),
        MODEL_CONFIG_KEYS,
      )
      for (const { does, change, valueText } of keys)
        t.true(Math.min(does.length, change.length, valueText.length) > 0)
      const config = ModelConfigSchema.parse(JSON.parse(configText(keys)))
      t.true(config.maxQueueBytes >= 64 * 1024 * 1024)
      t.true(config.maxQueueRequests === null || config.maxQueueRequests >= 2)
    }),
    { numRuns: 500 },
  )
})
