import test from 'ava'
import type { Datatype } from '../../../src/tensor.js'
import { decode, modelOf, modelOfX, refused } from './helpers/requests.js'

const RAW = { jsonBytes: 0 }
const floats = (count: number) => new Uint8Array(Float32Array.from({ length: count }, (_, i) => i).buffer)

function rawShape(count: number, shape: readonly number[], datatype: Datatype = 'FP32') {
  return decode(floats(count), modelOfX(datatype, shape), RAW).inputs[0]?.shape
}

test('a raw body is the one input, and every output is binary', (t) => {
  t.deepEqual(decode(floats(2), modelOfX('FP32', [-1, 2]), RAW), {
    parameters: {},
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], data: Float32Array.of(0, 1) }],
    outputs: [{ name: 'y', binary: true }],
  })
})

test('the batch is 1, and one other variable dimension follows from the bytes', (t) => {
  t.deepEqual(rawShape(6, [-1, -1, 2]), [1, 3, 2])
  t.deepEqual(rawShape(6, [-1, -1]), [1, 6])
  t.deepEqual(rawShape(6, [2, -1]), [2, 3])
  t.deepEqual(rawShape(6, [2, 3]), [2, 3])
  t.deepEqual(rawShape(1, [-1]), [1])
  t.deepEqual(rawShape(1, []), [])
  t.deepEqual(rawShape(0, [-1, -1]), [1, 0])
  t.deepEqual(rawShape(0, [-1, 0, -1]), [1, 0, 0])
})

test('a variable batch is never inferred from the bytes', (t) => {
  refused(t, 'TENSOR_INVALID', ['input "x"', '[-1, 2]', '4 elements'], () => rawShape(4, [-1, 2]))
  refused(t, 'TENSOR_INVALID', ['input "x"'], () => rawShape(2, [-1]))
  refused(t, 'TENSOR_INVALID', ['input "x"'], () => rawShape(0, [-1]))
})

test('bytes that no shape fits are refused', (t) => {
  refused(t, 'TENSOR_INVALID', ['input "x"', '[2, 3]', '5 elements'], () => rawShape(5, [2, 3]))
  refused(t, 'TENSOR_INVALID', ['input "x"'], () => rawShape(5, [-1, -1, 2]))
  refused(t, 'TENSOR_INVALID', ['input "x"'], () => rawShape(5, [0, -1]))
  refused(t, 'TENSOR_INVALID', ['input "x"'], () => rawShape(5, [2 ** 52, 2 ** 52, -1]))
  refused(t, 'TENSOR_INVALID', ['input "x"', '5 bytes'], () =>
    decode(new Uint8Array(5), modelOfX('FP32', [-1]), RAW),
  )
})

test('models whose shape does not follow from the bytes take no raw requests', (t) => {
  refused(t, 'REQUEST_INVALID', ['input "x"', 'one variable'], () => rawShape(4, [-1, -1, -1]))
  refused(t, 'REQUEST_INVALID', ['input "x"', 'one variable'], () => rawShape(4, [1, -1, -1]))
  refused(t, 'REQUEST_INVALID', ['input "x"', 'rank'], () => decode(floats(1), modelOfX('FP32', null), RAW))
  const two = modelOf(
    { name: 'a', datatype: 'FP32', shape: [1] },
    { name: 'b', datatype: 'FP32', shape: [1] },
  )
  refused(t, 'REQUEST_INVALID', ['"m"', '2 inputs'], () => decode(floats(2), two, RAW))
  refused(t, 'REQUEST_INVALID', ['0 inputs'], () => decode(floats(2), modelOf(), RAW))
})

test('a raw body for BYTES is one text, without a length in front', (t) => {
  for (const [declared, shape] of [
    [[1], [1]],
    [[-1], [1]],
    [
      [-1, -1],
      [1, 1],
    ],
    [[], []],
  ]) {
    const [input] = decode('a text, ä', modelOfX('BYTES', declared as number[]), RAW).inputs
    t.deepEqual(input, { name: 'x', datatype: 'BYTES', shape, data: ['a text, ä'] })
  }
  t.deepEqual(decode('', modelOfX('BYTES', [1]), RAW).inputs[0]?.data, [''])
  refused(t, 'TENSOR_INVALID', ['input "x"', '1 elements'], () =>
    decode('ab', modelOfX('BYTES', [-1, 2]), RAW),
  )
  refused(t, 'TENSOR_INVALID', ['input "x"', 'UTF-8'], () =>
    decode(Uint8Array.of(0xff), modelOfX('BYTES', [1]), RAW),
  )
  refused(t, 'TENSOR_INVALID', ['input "x"', 'element 0', 'NUL'], () =>
    decode('ab\0cd', modelOfX('BYTES', [1]), RAW),
  )
})

test('raw BOOL bytes are checked too', (t) => {
  const model = modelOfX('BOOL', [-1, -1])
  t.deepEqual(decode(Uint8Array.of(1, 0), model, RAW).inputs[0]?.shape, [1, 2])
  refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1'], () => decode(Uint8Array.of(1, 2), model, RAW))
})
