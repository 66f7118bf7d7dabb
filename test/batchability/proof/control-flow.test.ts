/**
 * Proofs of small graphs, many of which look row-wise but are not: branches, loops, and operators without
 * rules.
 */
import test from 'ava'
import { proveRowsApart } from '../../../src/batchability/proof/prove.js'
import { parseModel } from '../../../src/onnx/graph.js'
import type { NodeProto, TensorProto } from '../../../src/onnx/onnx_pb.js'
import {
  ELEMENT,
  floats,
  graph,
  graphAttribute,
  intAttribute,
  modelBytes,
  node,
  value,
  weights,
} from '../../helpers/onnx-builder.js'
import {
  attributes,
  axis,
  int,
  ints,
  keep,
  notProven,
  prove,
  proven,
  shaped,
  x,
  zero,
} from './small-graphs.js'

const { float, int64, bool } = ELEMENT

// Control flow.
const flag = { ...floats('flag', [], [0]), dataType: bool, rawData: new Uint8Array([1]) } as TensorProto
const branch = (name: string, from: string) =>
  graph({ input: [], output: [value(`${name}_o`, float, null)], node: [node(name, [from], [`${name}_o`])] })
const either = (a: string, b: string, from = 'x') =>
  attributes(graphAttribute('then_branch', branch(a, from)), graphAttribute('else_branch', branch(b, from)))
proven('a branch of the model', {
  nodes: [node('If', ['flag'], ['y'], either('Relu', 'Tanh'))],
  constants: [flag],
})
notProven(
  'a branch that depends on the data',
  {
    nodes: [
      node('ReduceMax', ['x'], ['m'], attributes(keep(0))),
      node('Greater', ['m', 'm'], ['c']),
      node('If', ['c'], ['y'], either('Relu', 'Tanh')),
    ],
  },
  /reduces/,
)
notProven(
  'a branch that depends on one row',
  { inputs: [x(4), value('c', bool, ['n'])], nodes: [node('If', ['c'], ['y'], either('Relu', 'Tanh'))] },
  /takes its condition from the data of rows/,
)
notProven(
  'a branch that depends on the number of rows',
  {
    nodes: [
      ...shaped,
      node('Greater', ['count', 'one'], ['c']),
      node('If', ['c'], ['y'], either('Relu', 'Tanh')),
    ],
    constants: [zero, ints('one', 1)],
  },
  /takes its condition from the number of rows/,
)
notProven(
  'rows in one branch, their transpose in the other',
  { nodes: [node('If', ['flag'], ['y'], either('Relu', 'Transpose'))], constants: [flag] },
  /something else/,
)
const body = (next: NodeProto[], carried = ['s'], outs = ['t'], scans: string[] = []) =>
  graph({
    input: [value('i', int64, []), value('g', bool, []), ...carried.map((name) => value(name, float, null))],
    output: [value('h', bool, []), ...[...outs, ...scans].map((name) => value(name, float, null))],
    node: [node('Identity', ['g'], ['h']), ...next],
  })
proven('a loop', {
  nodes: [
    node(
      'Loop',
      ['three', '', 'x'],
      ['y'],
      attributes(graphAttribute('body', body([node('Relu', ['s'], ['t'])]))),
    ),
  ],
  constants: [int('three', 3)],
})
notProven(
  'a loop whose state mixes rows in its second iteration',
  {
    nodes: [
      node(
        'Loop',
        ['three', '', 'x', 'w'],
        ['y', 'z'],
        attributes(
          graphAttribute(
            'body',
            body(
              [node('Add', ['s', 'u'], ['t']), node('ReduceMax', ['s'], ['v'], attributes(keep(0)))],
              ['s', 'u'],
              ['t', 'v'],
            ),
          ),
        ),
      ),
    ],
    constants: [int('three', 3), floats('w', [], [0])],
  },
  /reduces/,
)
notProven(
  'a loop that swaps its carried values',
  {
    nodes: [
      node('Transpose', ['x'], ['xt']),
      node(
        'Loop',
        ['three', '', 'x', 'xt'],
        ['y', 'z'],
        attributes(
          graphAttribute(
            'body',
            body([node('Identity', ['u'], ['t']), node('Identity', ['s'], ['v'])], ['s', 'u'], ['t', 'v']),
          ),
        ),
      ),
    ],
    constants: [int('three', 3)],
  },
  /something else/,
)
notProven(
  'as many iterations as rows',
  {
    nodes: [
      ...shaped,
      node(
        'Loop',
        ['count', '', 'x'],
        ['y'],
        attributes(graphAttribute('body', body([node('Relu', ['s'], ['t'])]))),
      ),
    ],
    constants: [zero],
  },
  /trip count from the number of rows/,
)
notProven(
  'a loop that continues while a row is large',
  {
    nodes: [
      node(
        'Loop',
        ['three', 'flag', 'x'],
        ['y'],
        attributes(
          graphAttribute(
            'body',
            graph({
              input: [value('i', int64, []), value('g', bool, []), value('s', float, null)],
              output: [value('h', bool, []), value('t', float, null)],
              node: [
                node('ReduceMax', ['s'], ['m'], attributes(keep(0))),
                node('Greater', ['m', 'limit'], ['h']),
                node('Relu', ['s'], ['t']),
              ],
            }),
          ),
        ),
      ),
    ],
    constants: [int('three', 3), flag, floats('limit', [], [0])],
  },
  /continues depending on a mixture/,
)

// Unknown operators and values.
notProven('an unknown operator', { nodes: [node('Frobnicate', ['x'], ['y'])] }, /without a rule \(Frobnicate/)
notProven('an unknown operator version', { opset: 99, nodes: [node('Relu', ['x'], ['y'])] }, /without a rule/)
notProven(
  'a broadcast of opset 6, which has an axis',
  {
    opset: 6,
    nodes: [
      node('Add', ['x', 'w'], ['y'], attributes(intAttribute('broadcast', 1), intAttribute('axis', 0))),
    ],
    constants: [weights('w', [4])],
  },
  /without a rule/,
)
notProven(
  'dropout in training',
  { nodes: [node('Dropout', ['x', '', 'flag'], ['y'])], constants: [flag] },
  /training/,
)
notProven(
  'random numbers',
  { nodes: [node('RandomNormalLike', ['x'], ['r']), node('Add', ['x', 'r'], ['y'])] },
  /random/,
)
notProven('a triangle of the batch', { nodes: [node('Trilu', ['x'], ['y'])] }, /position in the batch/)
notProven('where something is', { nodes: [node('NonZero', ['x'], ['y'])] }, /shape that depends on the data/)
// The number of rows as a shape that no rule tracks, read back by Shape or Size.
for (const [title, nodes] of Object.entries({
  'NonZero and Shape': [
    node('Equal', ['count', 'one'], ['equal']),
    node('NonZero', ['equal'], ['places']),
    node('Shape', ['places'], ['length']),
  ],
  'NonZero and Size': [
    node('Sub', ['count', 'one'], ['less']),
    node('NonZero', ['less'], ['places']),
    node('Size', ['places'], ['length']),
  ],
  'Unique and Shape': [
    node('Concat', ['count', 'one'], ['both'], axis(0)),
    node('Unique', ['both'], ['different']),
    node('Shape', ['different'], ['length']),
  ],
}))
  notProven(
    `the number of rows by ${title}`,
    {
      nodes: [
        ...shaped,
        ...nodes,
        node('Gather', ['length', 'last'], ['single']),
        node('Cast', ['single'], ['number'], attributes(intAttribute('to', 1))),
        node('Add', ['x', 'number'], ['y']),
      ],
      constants: [zero, ints('one', 1), ints('last', -1)],
    },
    /shape that depends on the number of rows/,
  )

test('an input with a default is not treated as rows', (t) => {
  const bytes = modelBytes(
    graph({
      input: [x(4), value('w', float, ['n', 4])],
      output: [value('y', float, null)],
      node: [node('Add', ['x', 'w'], ['y'])],
      initializer: [weights('w', [1, 4])],
    }),
  )
  const model = parseModel(bytes)
  const proof = proveRowsApart({ model, inputs: ['x', 'w'], outputs: ['y'] })
  t.like(proof, { isProven: false, node: 'w', reason: 'can be omitted from a request' })
  // Treated as a constant if requests cannot send it.
  t.true(proveRowsApart({ model, inputs: ['x'], outputs: ['y'] }).isProven)
})

test('declared shapes of intermediate tensors prove nothing', (t) => {
  const bytes = modelBytes(
    graph({
      input: [x(4)],
      output: [value('y', float, ['n', 4])],
      node: [
        node('Transpose', ['x'], ['h']),
        node('Softmax', ['h'], ['s'], axis(1)),
        node('Transpose', ['s'], ['y']),
      ],
    }),
  )
  const model = parseModel(bytes)
  model.graph.valueInfo.push(value('h', float, ['n', 4]))
  t.false(proveRowsApart({ model, inputs: ['x'], outputs: ['y'] }).isProven)
})

test('an operator defined by the model has no rule, whatever its name', (t) => {
  const model = parseModel(
    modelBytes(
      graph({ input: [x(4)], output: [value('y', float, null)], node: [node('Relu', ['x'], ['y'])] }),
    ),
  )
  t.true(proveRowsApart({ model, inputs: ['x'], outputs: ['y'] }).isProven)
  model.functions.push({ name: 'Relu', node: [] } as never)
  t.like(proveRowsApart({ model, inputs: ['x'], outputs: ['y'] }), { isProven: false, operator: 'Relu' })
})

test('a graph of 50,000 nodes is interpreted in linear time', (t) => {
  const nodes = Array.from({ length: 50_000 }, (_, i) =>
    node('Relu', [i === 0 ? 'x' : `t${i}`], [i === 49_999 ? 'y' : `t${i + 1}`]),
  )
  t.true(prove({ nodes }).isProven)
})

test('nested loops terminate', (t) => {
  let inner = body([node('Relu', ['s'], ['t'])])
  for (let depth = 0; depth < 30; depth++) {
    const [i, g, s, h, u] = ['i', 'g', 's', 'h', 't'].map((name) => `${name}${depth}`) as [
      string,
      string,
      string,
      string,
      string,
    ]
    inner = graph({
      input: [value(i, int64, []), value(g, bool, []), value(s, float, null)],
      output: [value(h, bool, []), value(u, float, null)],
      node: [
        node('Identity', [g], [h]),
        node('Loop', ['three', '', s], [u], attributes(graphAttribute('body', inner))),
      ],
    })
  }
  const proof = prove({
    nodes: [node('Loop', ['three', '', 'x'], ['y'], attributes(graphAttribute('body', inner)))],
    constants: [int('three', 3)],
  })
  t.is(typeof proof.isProven, 'boolean')
})
