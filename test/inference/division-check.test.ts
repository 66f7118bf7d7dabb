import test, { type ExecutionContext } from 'ava'
import { checkDivisions } from '../../src/inference/division-check.js'
import { divisionsOf } from '../../src/onnx/divisions.js'
import type { NodeProto, TensorProto } from '../../src/onnx/onnx_pb.js'
import type { Datatype, Tensor, TensorSpec } from '../../src/tensor.js'
import { graph, graphAttribute, int32s, intAttribute, node } from '../helpers/onnx-builder.js'

const MIN = -(2 ** 31)
const MIN64 = -(2n ** 63n)

function specs(datatype: Datatype): TensorSpec[] {
  return ['x', 'y'].map((name) => ({ name, datatype, shape: null }))
}

function divisions(nodes: NodeProto[], datatype: Datatype = 'INT32', initializer: TensorProto[] = []) {
  return divisionsOf(graph({ input: [], output: [], node: nodes, initializer }), specs(datatype))
}

function int32(name: string, values: readonly number[], shape: readonly number[] = [values.length]): Tensor {
  return { name, datatype: 'INT32', shape, data: Int32Array.from(values) }
}

function int64(name: string, values: readonly bigint[]): Tensor {
  return { name, datatype: 'INT64', shape: [values.length], data: BigInt64Array.from(values) }
}

function refused(t: ExecutionContext, found: ReturnType<typeof divisions>, inputs: Tensor[], words: RegExp) {
  const error = t.throws(() => checkDivisions(found, inputs), { message: words })
  t.like(error, { code: 'TENSOR_INVALID', status: 400 })
}

const DIV = [node('Div', ['x', 'y'], ['z'])]
const MOD = [node('Mod', ['x', 'y'], ['z'])]
const FLOATING_MOD = [node('Mod', ['x', 'y'], ['z'], { attribute: [intAttribute('fmod', 1)] })]

test('the smallest INT32 divided by -1 is rejected, naming both elements and the node', (t) => {
  const inputs = [int32('x', [7, MIN, 8]), int32('y', [-1, -1, 2])]
  const words =
    /^input "x": element 1: node "Div_z" \(Div\) divides -2147483648 by -1 \(input "y", element 1\), which has no result in INT32$/
  refused(t, divisions(DIV), inputs, words)
  refused(t, divisions(MOD), inputs, /node "Mod_z" \(Mod\)/)
})

test('the smallest INT64 divided by -1 is rejected, but not numbers that share one of its halves', (t) => {
  refused(t, divisions(DIV, 'INT64'), [int64('x', [MIN64]), int64('y', [-1n])], /-9223372036854775808 by -1/)
  const near = [MIN64 + 1n, -(2n ** 31n), 0x80000000n, 1n]
  t.notThrows(() =>
    checkDivisions(divisions(DIV, 'INT64'), [int64('x', near), int64('y', [-1n, -1n, -1n, -1n])]),
  )
  const divisors = [0xffffffffn, -(2n ** 32n), 1n]
  t.notThrows(() =>
    checkDivisions(divisions(DIV, 'INT64'), [int64('x', [MIN64, MIN64, MIN64]), int64('y', divisors)]),
  )
})

test('a divisor of 0 is rejected in every integer datatype', (t) => {
  const words =
    /^input "y": element 1: expected an integer other than 0, which node "Div_z" \(Div\) divides by, got 0$/
  refused(t, divisions(DIV), [int32('x', [1, 1]), int32('y', [1, 0])], words)
  refused(t, divisions(DIV, 'INT64'), [int64('x', [1n, 1n]), int64('y', [1n, 0n])], words)
  const bytes = (name: string, values: number[]): Tensor => ({
    ...{ name, datatype: 'UINT8', shape: [values.length], data: Uint8Array.from(values) },
  })
  refused(t, divisions(DIV, 'UINT8'), [bytes('x', [1, 1]), bytes('y', [1, 0])], words)
})

test('divisions that do not trap are accepted: fmod, narrow integers, floats, and unrelated elements', (t) => {
  const trap = [int32('x', [MIN]), int32('y', [-1])]
  t.notThrows(() => checkDivisions(divisions(FLOATING_MOD), trap))
  const narrow = (name: string, value: number): Tensor => ({
    ...{ name, datatype: 'INT16', shape: [1], data: Int16Array.of(value) },
  })
  t.notThrows(() => checkDivisions(divisions(DIV, 'INT16'), [narrow('x', -32768), narrow('y', -1)]))
  t.deepEqual(divisions(DIV, 'FP32'), [])
  t.notThrows(() => checkDivisions(divisions(DIV), [int32('x', [MIN, 5]), int32('y', [2, -1])]))
})

test('elements are paired as in broadcasting', (t) => {
  const found = divisions(DIV)
  refused(t, found, [int32('x', [1, 2, MIN]), int32('y', [-1])], /input "x": element 2/)
  refused(t, found, [int32('x', [MIN]), int32('y', [3, -1])], /input "y", element 1/)
  // Row 1 of x, divided by the last of y's two columns.
  const x = int32('x', [1, 2, 3, MIN], [2, 2])
  refused(t, found, [x, int32('y', [5, -1], [2])], /element 3 .*|element 3: /)
  t.notThrows(() => checkDivisions(found, [x, int32('y', [-1, 5], [2])]))
  // Every row, divided by every column.
  refused(t, found, [int32('x', [1, MIN], [2, 1]), int32('y', [4, -1, 4], [1, 3])], /element 1: .*element 1/)
})

test('many elements that are never paired are checked in one pass', (t) => {
  const count = 200_000
  const x = int32(
    'x',
    Array.from({ length: count }, (_, i) => (i % 2 === 0 ? MIN : 1)),
  )
  const y = int32(
    'y',
    Array.from({ length: count }, (_, i) => (i % 2 === 0 ? 1 : -1)),
  )
  t.notThrows(() => checkDivisions(divisions(DIV), [x, y]))
})

test('constants count as operands', (t) => {
  const byConstant = divisions([node('Div', ['x', 'c'], ['z'])], 'INT32', [int32s('c', [2], [3, -1])])
  refused(t, byConstant, [int32('x', [1, MIN])], /input "x": element 1: .* divides -2147483648 by -1, which/)
  t.notThrows(() => checkDivisions(byConstant, [int32('x', [MIN, 1])]))
  const ofConstant = divisions([node('Div', ['c', 'y'], ['z'])], 'INT32', [int32s('c', [], [MIN])])
  refused(t, ofConstant, [int32('y', [4, -1])], /input "y": element 1: .* divides -2147483648 by -1, which/)
})

test('an input is traced through operators that only move its elements', (t) => {
  const moved = divisions([
    node('Reshape', ['y', 'shape'], ['y1']),
    node('Transpose', ['y1'], ['y2']),
    node('Identity', ['x'], ['x1']),
    node('Div', ['x1', 'y2'], ['z']),
  ])
  refused(t, moved, [int32('x', [MIN]), int32('y', [2, -1])], /divides -2147483648 by -1/)
  refused(t, moved, [int32('x', [1]), int32('y', [2, 0])], /got 0/)
  // It is not known which of them are paired.
  t.notThrows(() => checkDivisions(moved, [int32('x', [MIN, 1]), int32('y', [2, -1])]))
})

test('computed operands and divisions in branches are not checked', (t) => {
  const computed = divisions([node('Neg', ['y'], ['n']), node('Div', ['x', 'n'], ['z'])])
  t.notThrows(() => checkDivisions(computed, [int32('x', [MIN]), int32('y', [0])]))
  const branch = graphAttribute('then_branch', graph({ input: [], output: [], node: DIV }))
  t.deepEqual(divisions([node('If', ['c'], ['z'], { attribute: [branch] })]), [])
})
