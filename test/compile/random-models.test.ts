import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { Compiler } from '../../src/compile/compile.js'
import { parseModel } from '../../src/onnx/graph.js'
import {
  FunctionProtoSchema,
  type GraphProto,
  ModelProtoSchema,
  type NodeProto,
  type TensorProto,
  TensorProtoSchema,
} from '../../src/onnx/onnx_pb.js'
import { describeRandomness, findRandomNode } from '../../src/onnx/randomness.js'
import type { SegmentHeader } from '../../src/segment/layout.js'
import { verifySegment } from '../../src/segment/write.js'
import { imagePathOf } from '../helpers/compile.js'
import {
  ELEMENT,
  floats,
  graph,
  graphAttribute,
  int64s,
  intAttribute,
  modelBytes,
  node,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { runCommand, temporaryFolder } from '../helpers/server.js'

const { float, bool } = ELEMENT
const x = value('x', float, ['n', 1])
const y = value('y', float, ['n', 1])

function flag(name: string, isOn: boolean): TensorProto {
  return create(TensorProtoSchema, { name, dims: [], dataType: bool, rawData: Uint8Array.of(isOn ? 1 : 0) })
}

/** `names` are the final outputs of the nodes: `y`. */
function model(nodes: NodeProto[], initializer: TensorProto[] = [], input = [x]): Uint8Array {
  return modelBytes(graph({ input, output: [y], node: nodes, initializer }))
}

const ratio = floats('ratio', [], [0.5])
const dropout = (training = 'training') => node('Dropout', ['x', 'ratio', training], ['y'])
const scale = floats('scale', [], [1])

/** With few random bits, two runs often give the same result. */
const BERNOULLI = model(
  [node('Mul', ['x', 'zero'], ['p0']), node('Add', ['p0', 'rare'], ['p']), node('Bernoulli', ['p'], ['y'])],
  [floats('zero', [], [0]), floats('rare', [], [1e-9])],
)
const DROPOUT = model([dropout()], [floats('ratio', [], [1e-7]), flag('training', true)])

async function headerOf(t: ExecutionContext, bytes: Uint8Array): Promise<SegmentHeader> {
  const cache = await openCache(temporaryFolder(t))
  const compiler = new Compiler({ cache, timeoutMs: 60_000, signal: new AbortController().signal })
  t.teardown(() => compiler.close())
  const path = join(writeModel(temporaryFolder(t), 'm', bytes), 'm', '1', 'model.onnx')
  await using file = await open(imagePathOf(await compiler.compile(path)))
  return await verifySegment(file)
}

for (const [title, bytes, says] of [
  // The runtime computes Bernoulli from uniform random numbers, as in its definition.
  [
    'draws from a distribution',
    BERNOULLI,
    /^node ".+" \((Bernoulli|RandomUniformLike)\) draws random numbers$/,
  ],
  ['was left in training mode', DROPOUT, /^node "Dropout_y" \(Dropout\) is in training mode/],
] as const) {
  test.serial(
    `a model that ${title}, and gives the same result twice by chance, has no self-check and is not batched`,
    async (t) => {
      const header = await headerOf(t, bytes)
      t.regex(header.random ?? '', says)
      t.is(header.selfCheck, null)
      t.false(header.batching.batchable)
      t.is(header.batching.reason, header.random ?? '')
    },
  )
}

test.serial('a model that does not draw random numbers has a self-check', async (t) => {
  const header = await headerOf(t, model([dropout()], [ratio, flag('training', false)]))
  t.is(header.random, null)
  t.not(header.selfCheck, null)
  t.true(header.batching.batchable)
})

test.serial('inspect reports that a model is random', (t) => {
  const path = join(writeModel(temporaryFolder(t), 'm', DROPOUT), 'm', '1', 'model.onnx')
  const { code, stdout } = runCommand(['inspect', path, '--no-measure'])
  t.is(code, 0)
  t.regex(stdout, /random\s+│\s+yes: node "Dropout_y" \(Dropout\) is in training mode/)
})

function isRandom(bytes: Uint8Array): boolean {
  return findRandomNode(parseModel(bytes)) !== null
}

test('every operator that draws random numbers makes a model random, with a seed or without', (t) => {
  for (const operator of [
    ...['RandomNormal', 'RandomNormalLike', 'RandomUniform', 'RandomUniformLike', 'Bernoulli', 'Multinomial'],
  ]) {
    t.true(isRandom(model([node(operator, ['x'], ['y'])])), operator)
    const seeded = node(operator, ['x'], ['y'], { attribute: [intAttribute('seed', 3)] })
    t.true(isRandom(model([seeded])), `${operator} with a seed`)
    t.true(isRandom(model([node(operator, ['x'], ['y'], { domain: 'ai.onnx' })])), `ai.onnx.${operator}`)
  }
  t.true(isRandom(model([node('Sampling', ['x'], ['y'], { domain: 'com.microsoft' })])))
  t.false(isRandom(model([node('Sampling', ['x'], ['y'], { domain: 'com.example' })])))
  t.false(isRandom(model([node('Relu', ['x'], ['y'])])))
})

test('a Dropout is random if it is or may be in training mode', (t) => {
  const off = flag('training', false)
  t.false(isRandom(model([node('Dropout', ['x'], ['y'])])), 'no mode')
  t.false(isRandom(model([node('Dropout', ['x', 'ratio'], ['y'])], [ratio])), 'a ratio and no mode')
  t.false(isRandom(model([node('Dropout', ['x', 'ratio', ''], ['y'])], [ratio])), 'an empty mode')
  t.false(isRandom(model([dropout()], [ratio, off])), 'off')
  t.true(isRandom(model([dropout()], [ratio, flag('training', true)])), 'on')
  t.false(isRandom(model([dropout()], [floats('ratio', [], [0]), flag('training', true)])), 'nothing dropped')
  const mode = value('training', bool, [])
  t.true(isRandom(model([dropout()], [ratio], [x, mode])), 'a request decides')
  t.true(isRandom(model([dropout()], [ratio, off], [x, mode])), 'a request may decide')
  const constant = node('Constant', [], ['training'], {
    attribute: [
      {
        ...graphAttribute('value', graph({ input: [], output: [], node: [] })),
        type: 4,
        g: undefined,
        t: off,
      } as never,
    ],
  })
  t.false(isRandom(model([constant, dropout()], [ratio])), 'a constant node')
  t.true(
    isRandom(model([node('Not', ['off'], ['training']), dropout()], [ratio, flag('off', false)])),
    'computed',
  )
  // Field 5 of a TensorProto; exporters write booleans there as often as in raw bytes.
  const inline = (isOn: number) => {
    const tensor = create(TensorProtoSchema, { name: 'training', dims: [], dataType: bool })
    tensor.$unknown = [{ no: 5, wireType: 0, data: Uint8Array.of(isOn) }]
    return tensor
  }
  t.true(isRandom(model([dropout()], [ratio, inline(1)])), 'inline, on')
  t.false(isRandom(model([dropout()], [ratio, inline(0)])), 'inline, off')
})

test('before opset 12, a Dropout is random only in versions with an is_test attribute', (t) => {
  const old = (opset: number, attribute = {}) =>
    isRandom(
      modelBytes(graph({ input: [x], output: [y], node: [node('Dropout', ['x'], ['y'], attribute)] }), opset),
    )
  t.true(old(6))
  t.false(old(6, { attribute: [intAttribute('is_test', 1)] }))
  t.false(old(7))
  t.false(old(11))
})

test("the runtime's own Dropout operators have the training mode at other input positions", (t) => {
  const microsoft = { domain: 'com.microsoft' }
  const on = flag('training', true)
  for (const [operator, before] of [
    ['BitmaskDropout', ['x', 'ratio']],
    ['BiasDropout', ['x', 'scale', '', 'ratio']],
    ['BitmaskBiasDropout', ['x', 'scale', '', 'ratio']],
  ] as const) {
    t.true(
      isRandom(model([node(operator, [...before, 'training'], ['y'], microsoft)], [ratio, scale, on])),
      operator,
    )
    t.false(isRandom(model([node(operator, [...before], ['y'], microsoft)], [ratio, scale])), operator)
  }
})

test('branches, loop bodies and functions are searched, with their own name scopes', (t) => {
  const branch = (nodes: NodeProto[]): GraphProto =>
    graph({ input: [], output: [value('z', float, null)], node: nodes })
  const choice = (nodes: NodeProto[]) =>
    node('If', ['condition'], ['y'], { attribute: [graphAttribute('then_branch', branch(nodes))] })
  t.true(isRandom(model([choice([node('RandomNormalLike', ['x'], ['z'])])])))
  const inside = node('Dropout', ['x', 'ratio', 'training'], ['z'])
  t.true(isRandom(model([choice([inside])], [ratio, flag('training', true)])), 'a constant from outside')
  t.false(isRandom(model([choice([inside])], [ratio, flag('training', false)])))
  const shadowed = graph({
    input: [],
    output: [value('z', float, null)],
    node: [inside],
    initializer: [flag('training', true)],
  })
  const loop = node('Loop', ['', 'condition'], ['y'], { attribute: [graphAttribute('body', shadowed)] })
  t.true(isRandom(model([loop], [ratio, flag('training', false)])), 'another constant inside')

  const parsed = parseModel(
    model([node('draw', ['x'], ['y'], { domain: 'own' })], [int64s('unused', [], [1])]),
  )
  t.is(describeRandomness(parsed), null)
  const withFunction = create(ModelProtoSchema, {
    ...parsed,
    functions: [
      create(FunctionProtoSchema, {
        name: 'draw',
        node: [node('Bernoulli', ['a'], ['b'])],
      }),
    ],
  })
  t.is(
    describeRandomness(withFunction as typeof parsed),
    'node "Bernoulli_b" (Bernoulli) draws random numbers',
  )
})
