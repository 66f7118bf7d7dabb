import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import test from 'ava'
import fc from 'fast-check'
import { inferResponseBytes, streamResponseBytes } from '../../src/grpc/infer-bytes.js'
import {
  ModelInferResponseSchema,
  ModelStreamInferResponseSchema,
} from '../../src/grpc/schema/inference_pb.js'

/** Around the lengths at which the length itself takes another byte. */
const lengths = fc.oneof(fc.nat(300), fc.constantFrom(127, 128, 16_383, 16_384, 2 ** 21, 2 ** 21 + 1))

const responses = fc.record({
  modelName: fc.string(),
  id: fc.string(),
  outputs: fc.array(
    fc.record({ name: fc.string(), datatype: fc.string(), shape: fc.array(fc.bigInt(0n, 2n ** 40n)) }),
    { maxLength: 3 },
  ),
  rawOutputContents: fc.array(
    lengths.map((length) => Uint8Array.from({ length }, (_, i) => i % 251)),
    { maxLength: 3 },
  ),
})

test('responses have the bytes that the generated writer gives them', (t) => {
  fc.assert(
    fc.property(responses, fc.string(), (fields, errorMessage) => {
      const response = create(ModelInferResponseSchema, fields)
      t.true(inferResponseBytes(response).equals(toBinary(ModelInferResponseSchema, response)))
      const streamed = create(ModelStreamInferResponseSchema, { errorMessage, inferResponse: response })
      const bytes = streamResponseBytes(streamed)
      t.true(bytes.equals(toBinary(ModelStreamInferResponseSchema, streamed)))
    }),
    { numRuns: 60 },
  )
  const failed = create(ModelStreamInferResponseSchema, { errorMessage: 'no' })
  t.deepEqual(fromBinary(ModelStreamInferResponseSchema, streamResponseBytes(failed)), failed)
})
