import test from 'ava'
import fc from 'fast-check'
import {
  decodeInputs,
  decodeOutputs,
  encodeHeavy,
  encodeInputs,
  encodeOutputs,
} from '../../src/ersilia/binary.js'

test('molecules survive the binary format, whatever their content', (t) => {
  fc.assert(
    fc.property(fc.array(fc.string({ unit: 'grapheme' })), (inputs) => {
      t.deepEqual(decodeInputs(encodeInputs(inputs)), inputs)
    }),
  )
})

test('the binary input is a line of JSON, then big-endian lengths and UTF-8', (t) => {
  t.deepEqual(
    encodeInputs(['CO', 'é']),
    Buffer.concat([
      Buffer.from('{"columns":["input"],"count":2}\n'),
      Buffer.from([0, 0, 0, 2, 0x43, 0x4f, 0, 0, 0, 2, 0xc3, 0xa9]),
    ]),
  )
})

test('the heavy format is a line of JSON, then little-endian values, row by row', (t) => {
  const table = {
    columns: ['a', 'b'],
    rows: [
      [1, null],
      [2.5, -1],
    ],
  }
  t.deepEqual(
    encodeHeavy(table, 'float'),
    Buffer.concat([
      Buffer.from('{"dims": ["a", "b"], "shape": [2, 2], "dtype": "<f4"}\n'),
      Buffer.from(Float32Array.of(1, Number.NaN, 2.5, -1).buffer),
    ]),
  )
  t.deepEqual(
    encodeHeavy(table, 'integer'),
    Buffer.concat([
      Buffer.from('{"dims": ["a", "b"], "shape": [2, 2], "dtype": "<i4"}\n'),
      Buffer.from(Int32Array.of(1, 0, 2, -1).buffer),
    ]),
  )
  t.throws(() => encodeHeavy(table, 'string'), { code: 'INPUT_INVALID' })
})

test('binary outputs are decoded', (t) => {
  const table = { columns: ['a'], rows: [[1], [null], [0.5]] }
  t.deepEqual(decodeOutputs(encodeOutputs(table, 'float')), table)
})

test('inconsistent lengths are rejected with the expected value', (t) => {
  const good = encodeInputs(['CCO'])
  for (const [bytes, message] of [
    [Buffer.from('no line'), /found none/],
    [Buffer.from('[]\n'), /expected a line of JSON/],
    [good.subarray(0, -1), /ends in input 1/],
    [Buffer.concat([good, Buffer.from('x')]), /1 more bytes follow/],
    [Buffer.from('{"columns":["input"],"count":9}\n'), /expected 9 inputs/],
  ] as const) {
    t.throws(() => decodeInputs(bytes), { code: 'INPUT_INVALID', message })
  }
})
