/** Trial runs without the proof: influences that only extreme rows among ordinary ones reveal. */
import test, { type ExecutionContext } from 'ava'
import { probeBatching } from '../../src/batchability/batchability.js'
import { indexLimitsOf } from '../../src/batchability/index-limits.js'
import { parseModel } from '../../src/onnx/graph.js'
import type { NodeProto, TensorProto, ValueInfoProto } from '../../src/onnx/onnx_pb.js'
import { readInterface } from '../../src/repository/interface.js'
import { Session } from '../../src/runtime/session.js'
import type { Batching } from '../../src/segment/layout.js'
import type { Tensor, TensorSpec } from '../../src/tensor.js'
import {
  ELEMENT,
  floats,
  graph,
  int64s,
  intAttribute,
  modelBytes,
  node,
  value,
  weights,
} from '../helpers/onnx-builder.js'

const { float, int64 } = ELEMENT
const WIDTH = 256
const x = value('x', float, ['n', WIDTH])
const y = value('y', float, ['n', WIDTH])
const ids = value('ids', int64, ['n', WIDTH])

interface Case {
  readonly input?: ValueInfoProto[]
  readonly output?: ValueInfoProto[]
  readonly node: NodeProto[]
  readonly initializer?: TensorProto[]
}

async function probed(t: ExecutionContext, parts: Case): Promise<Batching> {
  const bytes = modelBytes(graph({ input: [x], output: [y], ...parts }))
  const model = parseModel(bytes)
  const { inputs, outputs } = readInterface(model.graph)
  const session = Session.load({
    ...{ graph: bytes, folder: null, form: 'original' },
    inputs,
    outputs,
    threads: 1,
  })
  t.teardown(() => session.close())
  const run = async (tensors: readonly Tensor[], names: readonly string[]) => [
    ...session.run(tensors, names).outputs,
  ]
  return await probeBatching({ inputs, outputs, run, indexLimits: indexLimitsOf(model.graph) })
}

function agree(title: string, parts: Case): void {
  test.serial(`agree: ${title}`, async (t) => {
    t.deepEqual(await probed(t, parts), {
      batchable: true,
      reason: 'rows run alone and together agree (sizes 2, 3, 8, 17)',
    })
  })
}

function differ(title: string, parts: Case, says = /^rows influence each other: output "y" differs/): void {
  test.serial(`differ: ${title}`, async (t) => {
    const { batchable, reason } = await probed(t, parts)
    t.regex(reason, says)
    t.false(batchable)
  })
}

const scalar = (name: string, number: number) => floats(name, [], [number])
const whole = { attribute: [intAttribute('keepdims', 0)] }
const castTo = (type: number) => ({ attribute: [intAttribute('to', type)] })

differ('the log-mel floor of speech models', {
  node: [
    ...[
      node('Abs', ['x'], ['abs']),
      node('Add', ['abs', 'tiny'], ['above']),
      node('Log', ['above'], ['log']),
    ],
    node('ReduceMax', ['log'], ['max'], whole),
    ...[node('Sub', ['max', 'range'], ['floor']), node('Max', ['log', 'floor'], ['y'])],
  ],
  initializer: [scalar('tiny', 1e-10), scalar('range', 8 * Math.log(10))],
})

differ('a scale for all rows determined by one large row', {
  node: [
    node('ReduceMax', ['x'], ['max'], whole),
    ...[
      node('Greater', ['max', 'limit'], ['isLarge']),
      node('Where', ['isLarge', 'large', 'small'], ['scale']),
    ],
    node('Div', ['x', 'scale'], ['y']),
  ],
  initializer: [scalar('limit', 16), scalar('large', 255), scalar('small', 1)],
})

differ('ids divided by the maximum over all rows', {
  input: [ids],
  node: [
    node('ReduceMax', ['ids'], ['max'], whole),
    ...[node('Max', ['max', 'ten'], ['divisor']), node('Cast', ['ids'], ['number'], castTo(float))],
    ...[node('Cast', ['divisor'], ['by'], castTo(float)), node('Div', ['number', 'by'], ['y'])],
  ],
  initializer: [int64s('ten', [], [10])],
})

differ('a scale determined by one strongly negative row', {
  node: [
    node('ReduceMin', ['x'], ['min'], whole),
    ...[node('Less', ['min', 'limit'], ['isLow']), node('Where', ['isLow', 'large', 'small'], ['scale'])],
    node('Div', ['x', 'scale'], ['y']),
  ],
  initializer: [scalar('limit', -500), scalar('large', 255), scalar('small', 1)],
})

differ('a mode switched by one row of zeros', {
  node: [
    node('Abs', ['x'], ['abs']),
    node('ReduceMax', ['abs', 'columns'], ['size'], { attribute: [intAttribute('keepdims', 0)] }),
    node('ReduceMin', ['size'], ['least'], whole),
    ...[
      node('Less', ['least', 'limit'], ['isSilent']),
      node('Where', ['isSilent', 'large', 'small'], ['scale']),
    ],
    node('Mul', ['x', 'scale'], ['y']),
  ],
  initializer: [int64s('columns', [1], [1]), scalar('limit', 1e-4), scalar('large', 2), scalar('small', 1)],
})

differ('a NaN that reaches other rows with weight zero', {
  node: [
    node('ReduceSum', ['x', 'rows'], ['sum']),
    ...[node('Mul', ['sum', 'zero'], ['nothing']), node('Add', ['x', 'nothing'], ['y'])],
  ],
  initializer: [int64s('rows', [1], [0]), scalar('zero', 0)],
})

differ('a scale determined by any NaN', {
  node: [
    ...[node('IsNaN', ['x'], ['isNan']), node('Cast', ['isNan'], ['ones'], castTo(float))],
    node('ReduceMax', ['ones'], ['any'], whole),
    node('Where', ['isNan', 'one', 'x'], ['numbers']),
    ...[node('Add', ['any', 'one'], ['scale']), node('Mul', ['numbers', 'scale'], ['y'])],
  ],
  initializer: [scalar('one', 1)],
})

differ('a scale determined by any infinity', {
  node: [
    ...[node('IsInf', ['x'], ['isInf']), node('Cast', ['isInf'], ['ones'], castTo(float))],
    node('ReduceMax', ['ones'], ['any'], whole),
    node('Where', ['isInf', 'one', 'x'], ['numbers']),
    ...[node('Add', ['any', 'one'], ['scale']), node('Mul', ['numbers', 'scale'], ['y'])],
  ],
  initializer: [scalar('one', 1)],
})

differ('an influence that a tolerance based on the largest row would hide', {
  // For rows of one scale it is within the rounding tolerance.
  node: [
    node('ReduceMax', ['x'], ['max'], whole),
    ...[node('Mul', ['max', 'share'], ['drop']), node('Add', ['x', 'drop'], ['y'])],
  ],
  initializer: [scalar('share', 1e-5)],
})

differ('a table entry used by one row that affects all rows', {
  input: [ids],
  output: [value('y', float, ['n', WIDTH, 2])],
  node: [
    node('Gather', ['table', 'ids'], ['looked']),
    node('ReduceMax', ['ids'], ['max'], whole),
    node('Equal', ['max', 'last'], ['isLast']),
    ...[node('Where', ['isLast', 'two', 'one'], ['scale']), node('Mul', ['looked', 'scale'], ['y'])],
  ],
  initializer: [
    weights('table', [30_000, 2]),
    int64s('last', [], [29_999]),
    scalar('two', 2),
    scalar('one', 1),
  ],
})

agree('an embedding with ids up to the end of its table, which rejects larger ones', {
  input: [ids],
  output: [value('y', float, ['n', WIDTH, 4])],
  node: [node('Gather', ['table', 'ids'], ['y'])],
  initializer: [weights('table', [300, 4])],
})

agree('an embedding whose ids are not traced, which rejects large ones', {
  input: [ids],
  output: [value('y', float, ['n', WIDTH, 4])],
  node: [node('Add', ['ids', 'two'], ['shifted']), node('Gather', ['table', 'shifted'], ['y'])],
  initializer: [weights('table', [300, 4]), int64s('two', [], [2])],
})

const MLP = [
  node('MatMul', ['x', 'w1'], ['h']),
  node('Relu', ['h'], ['a']),
  node('MatMul', ['a', 'w2'], ['o']),
]
const MLP_WEIGHTS = [weights('w1', [WIDTH, 300]), weights('w2', [300, WIDTH])]

agree('a function sensitive to the rounding of large numbers, which depends on the batch size', {
  node: [...MLP, node('Sin', ['o'], ['y'])],
  initializer: MLP_WEIGHTS,
})

agree('a softmax, a normalisation and a label within each row', {
  output: [y, value('label', int64, ['n', 1])],
  node: [
    ...MLP,
    node('LayerNormalization', ['o', 'scale', 'bias'], ['normal']),
    node('Softmax', ['normal'], ['y']),
    node('ArgMax', ['y'], ['label'], { attribute: [intAttribute('axis', 1)] }),
  ],
  initializer: [
    ...MLP_WEIGHTS,
    floats('scale', [WIDTH], new Array(WIDTH).fill(1)),
    floats('bias', [WIDTH], new Array(WIDTH).fill(0)),
  ],
})

agree('one number for each row, near zero for some', {
  output: [value('y', float, ['n', 1])],
  node: [...MLP, node('ReduceMean', ['o', 'columns'], ['y'])],
  initializer: [...MLP_WEIGHTS, int64s('columns', [1], [1])],
})

agree('integers truncated from floats, undefined for NaN and infinity', {
  output: [value('y', int64, ['n', WIDTH]), value('z', float, ['n', WIDTH])],
  node: [node('Cast', ['x'], ['y'], castTo(int64)), node('Neg', ['x'], ['z'])],
})

/** A model in JavaScript with one input, FP32 [n, 2] or as in `spec`. */
async function probedRun(
  run: (input: Tensor) => number[][],
  spec: Partial<TensorSpec> = {},
): Promise<Batching> {
  const input: TensorSpec = { name: 'x', datatype: 'FP32', shape: [-1, 2], ...spec }
  return await probeBatching({
    inputs: [input],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 1] }],
    run: async ([tensor]) => {
      const answer = run(tensor as Tensor)
      return [
        { name: 'y', datatype: 'FP32', shape: [answer.length, 1], data: Float32Array.from(answer.flat()) },
      ]
    },
  })
}

function rowsOf({ shape, data }: Tensor): unknown[][] {
  const [rows = 0, ...rest] = shape
  const width = rest.reduce((product, size) => product * size, 1)
  return Array.from({ length: rows }, (_, row) =>
    Array.from(data.slice(row * width, (row + 1) * width) as never),
  )
}

test('a row rejected alone is ignored, a row that only fails among others counts', async (t) => {
  const refusing = (limit: number) => (input: Tensor) => {
    const rows = rowsOf(input) as number[][]
    if (rows.length === 1 && rows.flat().some((one) => !(Math.abs(one) < limit))) throw new Error('too large')
    if (rows.length > 1 && rows.flat().some((one) => Math.abs(one) > 1e5)) throw new Error('too large')
    return rows.map(([one = 0]) => [one])
  }
  t.true((await probedRun(refusing(1e4))).batchable)
  const { batchable, reason } = await probedRun(refusing(1e40))
  t.false(batchable)
  t.regex(reason, /^rows run alone, but \d+ rows together do not: too large$/)
})

test('a result that depends on the batch size is not a rounding difference', async (t) => {
  const { batchable } = await probedRun((input) => {
    const rows = rowsOf(input) as number[][]
    return rows.map(([one = 0]) => [one * rows.length])
  })
  t.false(batchable)
})

test('unusual strings are mixed with ordinary ones', async (t) => {
  const seen = new Set<string>()
  const { batchable, reason } = await probedRun(
    (input) => {
      const rows = rowsOf(input) as string[][]
      for (const word of rows.flat()) seen.add(word)
      // Padded to the longest string of all rows, and the padding counts.
      const longest = Math.max(...rows.flat().map((word) => word.length))
      return rows.map(([word = '']) => [word.length + word.charCodeAt(0) + (longest > 100 ? longest : 0)])
    },
    { datatype: 'BYTES' },
  )
  t.false(batchable)
  t.regex(reason, /rows influence each other/)
  t.true(seen.has(''))
  t.true([...seen].some((word) => word.length > 1000))
})

test('rows of one run span many orders of magnitude and include NaN and infinities', async (t) => {
  const joint: number[][] = []
  await probedRun((input) => {
    const rows = rowsOf(input) as number[][]
    if (rows.length === 17) joint.push(rows.map((row) => row[0] as number))
    return rows.map(([one = 0]) => [one])
  })
  // Each round has two runs of all rows, in both orders.
  const [finite = [], , special = []] = joint
  const sizes = finite.map(Math.abs)
  t.true(finite.every(Number.isFinite))
  t.true(Math.max(...sizes) > 1e5)
  t.true(sizes.includes(0))
  t.true(sizes.some((one) => one > 0 && one < 1e-5))
  t.true(finite.some((one) => one < -1e5))
  t.true(special.some(Number.isNaN))
  t.true(special.includes(Number.POSITIVE_INFINITY))
  t.true(special.includes(Number.NEGATIVE_INFINITY))
})

test('integer inputs are traced to the tables they index', (t) => {
  const limits = (nodes: NodeProto[], initializer: TensorProto[]) =>
    Object.fromEntries(indexLimitsOf(graph({ input: [ids], output: [y], node: nodes, initializer })))
  const table = weights('table', [30, 4])
  t.deepEqual(limits([node('Gather', ['table', 'ids'], ['y'])], [table]), { ids: 30 })
  const second = { attribute: [intAttribute('axis', 1)] }
  t.deepEqual(limits([node('Gather', ['table', 'ids'], ['y'], second)], [table]), { ids: 4 })
  const last = { attribute: [intAttribute('axis', -1)] }
  t.deepEqual(limits([node('GatherElements', ['table', 'ids'], ['y'], last)], [table]), { ids: 4 })
  const passing = [
    node('Cast', ['ids'], ['cast'], castTo(6)),
    node('Reshape', ['cast', 'shape'], ['flat']),
    node('Unsqueeze', ['flat', 'shape'], ['deep']),
  ]
  t.deepEqual(limits([...passing, node('Gather', ['table', 'deep'], ['y'])], [table]), { ids: 30 })
  const both = [node('Gather', ['table', 'ids'], ['a']), node('Gather', ['small', 'ids'], ['b'])]
  t.deepEqual(limits(both, [table, weights('small', [7, 4])]), { ids: 7 })
  t.deepEqual(limits([node('OneHot', ['ids', 'depth', 'values'], ['y'])], [int64s('depth', [1], [12])]), {
    ids: 12,
  })
  const embed = node('EmbedLayerNormalization', ['ids', '', 'table', 'places', ''], ['y', 'mask'], {
    domain: 'com.microsoft',
  })
  t.deepEqual(limits([embed], [table, weights('places', [512, 4])]), { ids: 30 })
  t.deepEqual(
    limits([node('Mul', ['ids', 'ids'], ['m']), node('Gather', ['table', 'm'], ['y'])], [table]),
    {},
  )
})
