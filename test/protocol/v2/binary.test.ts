import test from 'ava'
import fc from 'fast-check'
import { decodeBinaryData, encodeBinaryData } from '../../../src/protocol/v2/binary.js'
import type { Datatype } from '../../../src/tensor.js'
import { ALL_DATATYPES, arbitraryData, expectedX, joined, refused, sameElements } from './helpers/requests.js'

const decodeX = (bytes: Uint8Array<ArrayBuffer>, datatype: Datatype, shape: readonly number[]) =>
  decodeBinaryData(bytes, expectedX(datatype, shape))

for (const datatype of ALL_DATATYPES) {
  test(`${datatype} comes back from binary as it went, from any offset`, (t) => {
    fc.assert(
      fc.property(arbitraryData(datatype), fc.nat(9), (data, offset) => {
        const body = joined(new Uint8Array(offset), encodeBinaryData({ data }), 'rest')
        const bytes = body.subarray(offset, body.length - 4)
        return sameElements(decodeX(bytes, datatype, [data.length]), data)
      }),
    )
    t.pass()
  })
}

test('numbers are little-endian', (t) => {
  t.deepEqual(decodeX(Uint8Array.of(0, 0, 0x80, 0x3f), 'FP32', [1]), Float32Array.of(1))
  t.deepEqual(decodeX(Uint8Array.of(1, 2), 'UINT16', [1]), Uint16Array.of(0x0201))
  t.deepEqual([...encodeBinaryData({ data: Int32Array.of(-2) })], [0xfe, 0xff, 0xff, 0xff])
})

test('a NaN keeps its bits', (t) => {
  const bits = Uint8Array.of(1, 2, 0xc0, 0x7f)
  t.deepEqual([...encodeBinaryData({ data: decodeX(bits, 'FP32', [1]) })], [...bits])
})

test('an aligned tensor is a view of the body, an unaligned one a copy', (t) => {
  const body = Uint8Array.from({ length: 64 }, (_, i) => i)
  const aligned = decodeX(body.subarray(16, 32), 'FP64', [2]) as Float64Array
  t.is(aligned.buffer, body.buffer)
  t.is(aligned.byteOffset, 16)
  // A multiple of the element size is not enough: vector registers are wider.
  for (const at of [8, 9]) {
    const unaligned = decodeX(body.subarray(at, at + 16), 'FP64', [2]) as Float64Array
    t.not(unaligned.buffer, body.buffer)
    t.deepEqual([...new Uint8Array(unaligned.buffer)], [...body.subarray(at, at + 16)])
  }
})

test('a Buffer gives the same plain arrays', (t) => {
  const pooled = Buffer.concat([Buffer.of(9), Buffer.of(1, 2, 3, 4)]).subarray(1)
  t.deepEqual(decodeX(pooled, 'UINT8', [4]), Uint8Array.of(1, 2, 3, 4))
  t.deepEqual(decodeX(pooled, 'UINT16', [2]), Uint16Array.of(0x0201, 0x0403))
  t.is(decodeX(pooled, 'UINT8', [4]).constructor, Uint8Array)
})

test('encoding numbers copies nothing', (t) => {
  const data = new Float32Array(new ArrayBuffer(64), 16, 4)
  const bytes = encodeBinaryData({ data })
  t.is(bytes.buffer, data.buffer)
  t.is(bytes.byteOffset, 16)
  t.is(bytes.byteLength, 16)
})

test('the size must be what the shape needs', (t) => {
  for (const datatype of ALL_DATATYPES.filter((each) => each !== 'BYTES')) {
    const size = encodeBinaryData({ data: decodeX(new Uint8Array(), datatype, [0]) }).length
    t.is(size, 0)
    for (const length of [0, 1, 5, 17, 25]) {
      refused(t, 'TENSOR_INVALID', ['input "x"', datatype, `got ${length}`], () =>
        decodeX(new Uint8Array(length), datatype, [3]),
      )
    }
  }
})

test('a BOOL byte is 0 or 1', (t) => {
  t.deepEqual(decodeX(Uint8Array.of(1, 0), 'BOOL', [2]), Uint8Array.of(1, 0))
  for (const byte of [2, 255]) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1', `${byte}`], () =>
      decodeX(Uint8Array.of(0, byte), 'BOOL', [2]),
    )
  }
})

const prefixed = (...texts: (string | number[])[]) =>
  joined(
    ...texts.flatMap((text) => {
      const bytes = typeof text === 'string' ? joined(text) : Uint8Array.from(text)
      return [Uint8Array.of(bytes.length & 0xff, bytes.length >> 8, 0, 0), bytes]
    }),
  )

test('BYTES elements are a length and then text', (t) => {
  const long = 'ä'.repeat(200)
  t.deepEqual(decodeX(prefixed('ab', '', '😀', '\uFEFFbom', long), 'BYTES', [5]), [
    'ab',
    '',
    '😀',
    '\uFEFFbom',
    long,
  ])
  t.deepEqual([...encodeBinaryData({ data: ['ab', '', 'ä'] })], [...prefixed('ab', '', 'ä')])
})

test('BYTES elements that are not UTF-8 are refused by position', (t) => {
  for (const bytes of [[0xff], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xe2, 0x82]]) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1', 'UTF-8'], () =>
      decodeX(prefixed('ok', bytes, 'ok'), 'BYTES', [3]),
    )
  }
})

test('BYTES elements with a NUL are refused by position', (t) => {
  for (const text of ['ab\0cd', '\0', 'ä\0']) {
    refused(t, 'TENSOR_INVALID', ['input "x"', 'element 1', 'NUL'], () =>
      decodeX(prefixed('ok', text, 'ok'), 'BYTES', [3]),
    )
  }
})

test('BYTES lengths past the end, missing elements and left-over bytes are refused', (t) => {
  const past = joined(prefixed('ab'), Uint8Array.of(5, 0, 0, 0, 1, 2, 3, 4))
  refused(t, 'BODY_MALFORMED', ['input "x"', 'element 1', '5', '4'], () => decodeX(past, 'BYTES', [2]))
  const huge = joined(Uint8Array.of(0xff, 0xff, 0xff, 0xff), 'abcd')
  refused(t, 'BODY_MALFORMED', ['input "x"', 'element 0', '4294967295'], () => decodeX(huge, 'BYTES', [1]))
  const cut = joined(prefixed('abcdef'), Uint8Array.of(1, 0))
  refused(t, 'BODY_MALFORMED', ['input "x"', 'element 1'], () => decodeX(cut, 'BYTES', [2]))
  refused(t, 'BODY_MALFORMED', ['input "x"', 'left over'], () => decodeX(prefixed('a', 'b'), 'BYTES', [1]))
  refused(t, 'BODY_MALFORMED', ['input "x"', 'left over'], () => decodeX(prefixed('a'), 'BYTES', [0]))
  refused(t, 'TENSOR_INVALID', ['input "x"', 'at least 8'], () => decodeX(prefixed('a'), 'BYTES', [2]))
  refused(t, 'TENSOR_INVALID', ['input "x"'], () => decodeX(prefixed('a'), 'BYTES', [2 ** 40]))
})
