import test from 'ava'
import { decodeInferRequest } from '../../../src/protocol/v2/request.js'
import { encodeInferResponse } from '../../../src/protocol/v2/response.js'
import type { ReadShared, SharedPlace } from '../../../src/protocol/v2/shared-place.js'
import { LIMITS, modelOfX, refused, utf8 } from './helpers/requests.js'

const REGION = { shared_memory_region: 'r', shared_memory_byte_size: 8, shared_memory_offset: 16 }

function decode(parameters: object, readShared: ReadShared | undefined, outputs?: unknown) {
  const input = { name: 'x', shape: [2], datatype: 'FP32', parameters }
  const body = utf8(JSON.stringify({ inputs: [input], outputs }))
  return decodeInferRequest({
    body,
    jsonBytes: null,
    model: modelOfX('FP32', [-1]),
    limits: LIMITS,
    ...(readShared === undefined ? {} : { readShared }),
  })
}

test('an input is read where its parameters say', (t) => {
  const read: SharedPlace[] = []
  const { inputs } = decode(REGION, (place) => {
    read.push(place)
    return new Uint8Array(Float32Array.of(1, 2).buffer)
  })
  t.deepEqual(read, [{ region: 'r', offsetBytes: 16, bytes: 8 }])
  t.deepEqual(inputs[0]?.data, Float32Array.of(1, 2))
})

test('parameters that do not fit together or the tensor are refused before anything is read', (t) => {
  const never: ReadShared = () => {
    throw new Error('read')
  }
  const { shared_memory_byte_size: _size, ...unsized } = REGION
  const cases: [object, 'REQUEST_INVALID' | 'TENSOR_INVALID', string[]][] = [
    [unsized, 'REQUEST_INVALID', ['input "x"', 'shared_memory_byte_size']],
    [{ ...REGION, shared_memory_region: 1 }, 'REQUEST_INVALID', ['input "x"', 'shared_memory_region']],
    [{ ...REGION, shared_memory_region: '' }, 'REQUEST_INVALID', ['input "x"', 'shared_memory_region']],
    [{ ...REGION, shared_memory_offset: -1 }, 'REQUEST_INVALID', ['shared_memory_offset', '-1']],
    [{ ...REGION, shared_memory_byte_size: '8' }, 'REQUEST_INVALID', ['shared_memory_byte_size', '"8"']],
    [{ ...REGION, binary_data_size: 8 }, 'REQUEST_INVALID', ['exactly one', '2']],
    [{ binary_data_size: 0, shared_memory_offset: 1 }, 'REQUEST_INVALID', ['without']],
    [{ ...REGION, shared_memory_byte_size: 4 }, 'TENSOR_INVALID', ['input "x"', '8 bytes', '4']],
  ]
  for (const [parameters, code, words] of cases) refused(t, code, words, () => decode(parameters, never))
})

test('an output is in shared memory or classified, not both', (t) => {
  const read: ReadShared = () => new Uint8Array(8)
  const place = { region: 'r', offsetBytes: 16, bytes: 8 }
  t.deepEqual(decode(REGION, read, [{ name: 'y', parameters: REGION }]).outputs, [
    { name: 'y', binary: false, place },
  ])
  refused(t, 'REQUEST_INVALID', ['output "y"', 'both'], () =>
    decode(REGION, read, [{ name: 'y', parameters: { ...REGION, classification: 1 } }]),
  )
})

test('the response describes an output in shared memory, without data and parameters', (t) => {
  const y = { name: 'y', datatype: 'FP32' as const, shape: [2], data: Float32Array.of(1, 2) }
  const { chunks, headers } = encodeInferResponse({
    model: { name: 'm', version: '1' },
    outputs: [y, { ...y, name: 'z' }],
    binary: [true, true],
    places: [{ region: 'r', offsetBytes: 0, bytes: 8 }, null],
  })
  const text = String(chunks[0])
  t.deepEqual(JSON.parse(text).outputs, [
    { name: 'y', shape: [2], datatype: 'FP32' },
    { name: 'z', shape: [2], datatype: 'FP32', parameters: { binary_data_size: 8 } },
  ])
  t.is(headers['Inference-Header-Content-Length'], String(text.length))
  t.deepEqual(chunks.slice(1), [new Uint8Array(y.data.buffer)])
})
