import test from 'ava'
import fc from 'fast-check'
import { requestSkeletonSchema } from '../../../src/protocol/v2/schema.js'
import { checkSkeleton, isPlainSkeleton } from '../../../src/protocol/v2/skeleton.js'
import { DATATYPES } from '../../../src/tensor.js'

const LIMITS = { jsonDepth: 64, maxTensors: 64 }

const value = fc.oneof(fc.string(), fc.boolean(), fc.double({ noNaN: true, noDefaultInfinity: true }))
const parameters = fc.dictionary(fc.string(), value)
const count = fc.nat()
const optional = { requiredKeys: [] as never[] }
const input = fc.record(
  {
    name: fc.string(),
    shape: fc.array(count),
    datatype: fc.constantFrom(...Object.keys(DATATYPES)),
    parameters,
    data: count,
  },
  { requiredKeys: ['name', 'shape', 'datatype'] },
)
const output = fc.record({ name: fc.string(), parameters }, { requiredKeys: ['name'] })
const request = fc.record(
  { id: fc.string(), parameters, inputs: fc.array(input), outputs: fc.array(output) },
  { requiredKeys: ['inputs'] },
)

/** Anything, above all in the places where the schema wants something else. */
const strange = fc.oneof(
  fc.anything(),
  fc.constantFrom(-1, 1.5, Infinity, Number.NaN, 2 ** 53, -0, null, undefined, [], {}, '', 'FP33', [[1]]),
)
const nearly = fc.record(
  {
    id: fc.oneof(fc.string(), strange),
    parameters: fc.oneof(parameters, fc.dictionary(fc.string(), strange), strange),
    inputs: fc.oneof(
      fc.array(
        fc.record(
          {
            name: fc.oneof(fc.string(), strange),
            shape: fc.oneof(fc.array(fc.oneof(count, strange)), strange),
            datatype: fc.oneof(fc.constantFrom(...Object.keys(DATATYPES)), strange),
            parameters: fc.oneof(parameters, strange),
            data: fc.oneof(count, strange),
          },
          optional,
        ),
      ),
      strange,
    ),
    outputs: fc.oneof(
      fc.array(fc.oneof(fc.record({ name: fc.oneof(fc.string(), strange), parameters: strange }), strange)),
      strange,
    ),
  },
  optional,
)

test('the shortcut for requests without errors accepts only what the schema accepts', (t) => {
  fc.assert(
    fc.property(fc.oneof(nearly, request, strange), (root) => {
      if (isPlainSkeleton(root)) t.true(requestSkeletonSchema.safeParse(root).success, JSON.stringify(root))
    }),
    { numRuns: 3000 },
  )
})

test('the shortcut accepts every request of the right form', (t) => {
  fc.assert(
    fc.property(request, (root) => {
      t.true(isPlainSkeleton(root))
    }),
  )
  for (const root of [
    { inputs: [{ name: 'x', shape: [1.5], datatype: 'FP32' }] },
    { inputs: [{ name: 'x', shape: [1], datatype: 'toString' }] },
    { inputs: [{ name: 'x', shape: [1], datatype: 'FP32', parameters: { a: Infinity } }] },
    { inputs: [], outputs: {} },
  ]) {
    t.false(isPlainSkeleton(root))
    t.throws(() => checkSkeleton(root, LIMITS))
  }
})
