import { create } from '@bufbuild/protobuf'
import test from 'ava'
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../../src/onnx/onnx_pb.js'
import { ModelProtoSchema } from '../../src/onnx/onnx_pb.js'
import { valueDependentOperator } from '../../src/onnx/value-dependent.js'
import { graph, graphAttribute, int64s, node } from '../helpers/onnx-builder.js'

function operatorOf(nodes: NodeProto[], initializer: TensorProto[] = []): string | null {
  const model = create(ModelProtoSchema, {
    graph: graph({ input: [], output: [], node: nodes, initializer }),
  })
  return valueDependentOperator(model as ModelProto & { graph: GraphProto })
}

test('sizes alone decide over the cost of layers', (t) => {
  t.is(operatorOf([node('MatMul', ['x', 'w'], ['h']), node('Relu', ['h'], ['y'])]), null)
})

test('a loop, a branch, and outputs whose size is a value do not depend on sizes alone', (t) => {
  for (const operator of ['Loop', 'Scan', 'If', 'NonZero', 'NonMaxSuppression'])
    t.is(operatorOf([node(operator, ['x'], ['y'])]), operator)
})

test('a size that is an input counts, and one that is a constant does not', (t) => {
  const tile = node('Tile', ['x', 'repeats'], ['y'])
  t.is(operatorOf([tile]), 'Tile')
  t.is(operatorOf([tile], [int64s('repeats', [2], [2, 2])]), null)
  t.is(operatorOf([node('ConstantOfShape', ['x'], ['y'])]), 'ConstantOfShape')
})

test('a size that follows from the sizes of inputs does not count, one that follows from a value does', (t) => {
  const places = (length: NodeProto) =>
    operatorOf(
      [
        length,
        node('Squeeze', ['n', 'zero'], ['limit']),
        node('Range', ['zero', 'limit', 'one'], ['places']),
      ],
      [int64s('zero', [], [0]), int64s('one', [], [1])],
    )
  t.is(places(node('Shape', ['ids'], ['n'])), null)
  t.is(places(node('ReduceMax', ['ids'], ['n'])), 'Range')
  t.is(places(node('RandomUniformLike', ['one'], ['n'])), 'Range')
})

test('a body in an attribute counts, whatever operator has it', (t) => {
  const body = graphAttribute('body', graph({ input: [], output: [], node: [] }))
  t.is(operatorOf([node('Custom', ['x'], ['y'], { attribute: [body] })]), 'Custom')
})
