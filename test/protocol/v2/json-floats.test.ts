import test from 'ava'
import fc from 'fast-check'
import { scanFloat32 } from '../../../src/protocol/v2/json-floats.js'

function scan(text: string, count: number): Float32Array | null {
  return scanFloat32(Buffer.from(text), count)
}

function bitsOf(floats: Float32Array | null): number[] | null {
  return floats === null ? null : [...new Uint32Array(Float32Array.from(floats).buffer)]
}

/** What JSON.parse and a Float32Array make of the same text. */
function reference(text: string): number[] {
  return bitsOf(Float32Array.from(JSON.parse(text) as number[])) as number[]
}

const float32 = fc.float({ noNaN: true, noDefaultInfinity: true }).filter((value) => Math.abs(value) < 3.4e38)
const digits = fc.stringMatching(/^-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?$/)

test('floats as programs print them come out bit for bit', (t) => {
  fc.assert(
    fc.property(fc.array(float32, { minLength: 1 }), (values) => {
      const text = JSON.stringify(values)
      t.deepEqual(bitsOf(scan(text, values.length)), reference(text))
    }),
    { seed: 1, numRuns: 500 },
  )
})

test('doubles and any other digits round as JSON.parse rounds them', (t) => {
  const number = fc.oneof(
    fc.double({ noNaN: true, min: -3e38, max: 3e38 }).map(String),
    digits.filter((text) => Math.abs(Number(text)) < 3e38),
  )
  fc.assert(
    fc.property(fc.array(number, { minLength: 1 }), (texts) => {
      const text = `[${texts.join(', ')}]`
      t.deepEqual(bitsOf(scan(text, texts.length)), reference(text))
    }),
    { seed: 2, numRuns: 2000 },
  )
})

test('the middle between two floats, and what is just beside it, rounds to the right one', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0x00800000, max: 0x7f000000 }), (bits) => {
      const [low, high] = new Float32Array(Uint32Array.of(bits, bits + 1).buffer) as unknown as [
        number,
        number,
      ]
      const middle = (low + high) / 2
      const exact = middle.toPrecision(40).replace(/\.?0+($|e)/, '$1')
      for (const text of [exact, `${middle}`, middle.toPrecision(17), middle.toPrecision(21)]) {
        t.deepEqual(bitsOf(scan(`[${text}]`, 1)), reference(`[${text}]`), text)
      }
    }),
    { seed: 3, numRuns: 2000 },
  )
})

test('minus zero stays, white space is skipped', (t) => {
  t.deepEqual(bitsOf(scan(' [ -0 ,\n0.0,\t-0e5 , 1E2 ]\r\n', 4)), reference('[-0,0,-0,100]'))
  t.deepEqual(bitsOf(scan('[]', 0)), [])
})

test('bare NaN and infinities are read among the numbers', (t) => {
  const expected = [1, Number.NaN, Number.POSITIVE_INFINITY, -0, Number.NEGATIVE_INFINITY, Number.NaN, 2.5]
  const text = '[1,NaN, Infinity ,-0,-Infinity,\tNaN,2.5]'
  t.deepEqual(bitsOf(scan(text, expected.length)), bitsOf(Float32Array.from(expected)))
})

test('what is not a flat array of that many numbers is left to the general way', (t) => {
  const others = [
    '',
    '[',
    '1',
    '[1',
    '[1,]',
    '[,1]',
    '[1 2]',
    '[1]]',
    '[1] x',
    '[01]',
    '[1.]',
    '[.5]',
    '[+1]',
    '[1e]',
    '[1e+]',
    '[--1]',
    '["NaN"]',
    '[null]',
    '[true]',
    '[[1]]',
    '[1e39]',
    '[3.5e38]',
    '[1e999]',
    ...[
      '[nan]',
      '[-NaN]',
      '[+Infinity]',
      '[Inf]',
      '[NaN1]',
      '[1NaN]',
      '[Infinity',
      '[--Infinity]',
      '[NaN.5]',
    ],
    '[1,2]',
    '[]',
    '[0x1]',
    '[1_0]',
  ]
  for (const text of others) t.is(scan(text, 1), null, text)
})
