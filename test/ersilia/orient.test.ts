import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import {
  convertCell,
  ORIENTS,
  type Orient,
  type OutputType,
  orientRows,
  type Row,
} from '../../src/ersilia/orient.js'
import { sharedPath, testWithShared } from '../helpers/shared.js'

interface Vector {
  readonly index: string[]
  readonly columns: string[]
  readonly values: Row[]
  readonly output_type: string[]
  readonly orient: Orient
  readonly expected: unknown
}

/** As text, because Python writes "1.0" and JSON numbers do not distinguish 1.0 from 1. */
function readVectors(): Vector[] {
  const text = readFileSync(join(sharedPath('ersilia'), 'orient-golden.json'), 'utf8')
  const vectors = JSON.parse(text) as Vector[]
  const asWritten = JSON.parse(text.replaceAll(/(?<=^\s*)(-?\d+\.\d+)(?=,?$)/gm, '"$1"')) as Vector[]
  return vectors.map((vector, i) => {
    const isText = vector.output_type.length > 1 || vector.output_type[0] === 'String'
    return isText ? { ...vector, values: asWritten[i]?.values ?? [] } : vector
  })
}

function typeOf({ output_type: types }: Vector): OutputType {
  return types.length > 1 ? 'string' : (types[0]?.toLowerCase() as OutputType)
}

/** Cases in which upstream loses the row: docs/ersilia.md. */
function isLost({ output_type: types, values, expected }: Vector): boolean {
  return (
    types.join() === 'Integer' && values.length > 0 && (expected as { data?: unknown[] }).data?.length === 0
  )
}

testWithShared('rows are oriented as by the upstream function, in its 80 vectors', ['ersilia'], async (t) => {
  const vectors = readVectors()
  t.is(vectors.length, 80)
  let lost = 0
  for (const vector of vectors) {
    const { index, columns, values, orient, expected } = vector
    const got = orientRows({ rows: values, columns, index, orient, outputType: typeOf(vector) })
    if (isLost(vector)) {
      lost++
      t.deepEqual((got as { data: unknown }).data, [[null]])
    } else t.deepEqual(got, expected, JSON.stringify(vector))
  }
  t.is(lost, 2)
})

test('values without a JSON number are null', (t) => {
  for (const cell of [
    'nan',
    'inf',
    'NaN',
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '',
    null,
    'x',
    '0x10',
    '1,5',
  ])
    t.is(convertCell(cell, 'float'), null, String(cell))
  t.is(convertCell(' 1e3 ', 'float'), 1000)
  t.is(convertCell('-3.9', 'integer'), -3)
  t.true(Object.is(convertCell('-0.5', 'integer'), 0))
})

test('inputs cannot collide with Object.prototype', (t) => {
  const index = ['__proto__', 'constructor', 'toString']
  const rows = [[1], [2], [3]]
  for (const orient of ORIENTS) {
    const text = JSON.stringify(
      orientRows({ rows, columns: ['__proto__'], index, orient, outputType: 'float' }),
    )
    t.true(text.includes('3'), text)
  }
  t.is(({} as { 1?: number })[1], undefined)
  const byInput = orientRows({ rows, columns: ['a'], index, orient: 'index', outputType: 'float' })
  t.is(JSON.stringify(byInput), '{"__proto__":{"a":1},"constructor":{"a":2},"toString":{"a":3}}')
})
