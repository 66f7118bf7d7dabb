import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import test from 'ava'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { publicText } from '../../src/http/public-text.js'
import {
  AttributeProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  type ValueInfoProto,
} from '../../src/onnx/onnx_pb.js'
import {
  addModel,
  ELEMENT,
  floats,
  graph,
  intAttribute,
  modelBytes,
  node,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

/** Text that must never leave the server. */
const SOURCE =
  /onnxruntime|_src\/|\.(h|hpp|cc|cpp)\b[:( ]|::|\bwas false\b|\b(void|static|virtual) |\[with |Stacktrace|0x[0-9a-f]{6}/

const OPSET = 18
const float = (name: string, shape: (string | number)[] | null) => value(name, ELEMENT.float, shape)
const int = (name: string, shape: (string | number)[] | null) => value(name, ELEMENT.int64, shape)
const y = [float('y', null)]
const f = (data: number[], shape: number[]) => new Tensor('float32', Float32Array.from(data), shape)
const i = (data: (number | bigint)[], shape: number[]) =>
  new Tensor('int64', BigInt64Array.from(data.map(BigInt)), shape)
const ones = (name: string, shape: number[]) =>
  floats(name, shape, new Array(shape.reduce((a, b) => a * b, 1)).fill(1))

interface Case {
  /** The operator, whose name is also that of its node. */
  readonly op: string
  readonly input: ValueInfoProto[]
  readonly feeds: Record<string, Tensor>
  readonly initializer?: TensorProto[]
  readonly attribute?: Parameters<typeof node>[3]
  /** The sentence that remains. */
  readonly says: RegExp
}

const pair = [float('a', ['m']), float('b', ['n'])]
const withInts = [float('a', ['m']), int('b', ['n'])]
const two = f([1, 2], [2])
const RUNS: readonly Case[] = [
  {
    op: 'MatMul',
    input: [float('a', ['m', 'k']), float('b', ['l', 'n'])],
    feeds: { a: f([1, 2], [1, 2]), b: f([1, 2, 3], [3, 1]) },
    says: /MatMul dimension mismatch$/,
  },
  { op: 'Add', input: pair, feeds: { a: two, b: f([1, 2, 3], [3]) }, says: /broadcast an axis.*2 by 3$/ },
  { op: 'Gather', input: withInts, feeds: { a: two, b: i([9], [1]) }, says: /out of data bounds, idx=9/ },
  {
    op: 'GatherElements',
    input: withInts,
    feeds: { a: two, b: i([9, 9], [2]) },
    says: /GatherElements op: Out of range value in index tensor$/,
  },
  {
    op: 'Reshape',
    input: withInts,
    feeds: { a: two, b: i([3], [1]) },
    says: /Message: The input tensor cannot be reshaped.*Input shape:\{2\}, requested shape:\{3\}$/,
  },
  {
    op: 'Reshape',
    input: withInts,
    feeds: { a: two, b: i([-1, -1], [2]) },
    says: /Message: At most one dimension can be -1\.$/,
  },
  {
    op: 'Conv',
    input: [float('a', ['n', 'c', 'h', 'w'])],
    initializer: [ones('b', [1, 3, 3, 3])],
    feeds: { a: f(new Array(18).fill(1), [1, 2, 3, 3]) },
    says: /Input channels C is not equal to kernel channels \* group\. C: 2 kernel channels: 3/,
  },
  {
    op: 'Concat',
    input: [float('a', ['m', 'k']), float('b', ['l', 'n'])],
    attribute: { attribute: [intAttribute('axis', 0)] },
    feeds: { a: f([1, 2], [1, 2]), b: f([1, 2, 3], [1, 3]) },
    says: /Message: Non concat axis dimensions must match: Axis 1/,
  },
  {
    op: 'Squeeze',
    input: withInts,
    feeds: { a: two, b: i([0], [1]) },
    says: /Message: Dimension of input 0 must be 1/,
  },
  {
    op: 'Unsqueeze',
    input: withInts,
    feeds: { a: two, b: i([7], [1]) },
    says: /Message: axis 7 is not in valid range/,
  },
  {
    op: 'ReduceSum',
    input: withInts,
    feeds: { a: two, b: i([5], [1]) },
    says: /Message: axis 5 is not in valid range/,
  },
  {
    op: 'CumSum',
    input: [float('a', ['m']), int('b', [])],
    feeds: { a: two, b: i([5], []) },
    says: /Message: axis 5/,
  },
  {
    op: 'Pad',
    input: withInts,
    feeds: { a: two, b: i([1], [1]) },
    says: /Message: Pads tensor size should be equal/,
  },
  {
    op: 'Split',
    input: withInts,
    feeds: { a: two, b: i([5], [1]) },
    says: /Message: Invalid value in 'split'/,
  },
  { op: 'Tile', input: withInts, feeds: { a: two, b: i([-1], [1]) }, says: /Message: Tile repeat value/ },
  {
    op: 'Expand',
    input: withInts,
    feeds: { a: two, b: i([3], [1]) },
    says: /Message: invalid expand shape$/,
  },
  {
    op: 'MaxPool',
    input: [float('a', null)],
    attribute: { attribute: [create(AttributeProtoSchema, { name: 'kernel_shape', type: 7 })] },
    feeds: { a: two },
    says: /Message: Input dimension cannot be less than 3\.$/,
  },
  {
    op: 'ConstantOfShape',
    input: [int('a', ['r'])],
    feeds: { a: i([-5], [1]) },
    says: /Message: Tensor shape\.Size\(\) must be >= 0$/,
  },
  {
    op: 'ConstantOfShape',
    input: [int('a', ['r'])],
    feeds: { a: i([10n ** 13n], [1]) },
    says: /Message: (Failed to allocate memory for requested buffer of size|there was not enough memory)/,
  },
  {
    op: 'ConstantOfShape',
    input: [int('a', ['r'])],
    feeds: { a: i([2n ** 40n, 2n ** 40n], [2]) },
    says: /Message: Integer overflow$/,
  },
]

for (const [at, { op, input, feeds, initializer = [], attribute = {}, says }] of RUNS.entries()) {
  test(`the runtime's message for a failed ${op} is shown without its source location (${at})`, async (t) => {
    const names = [...input.map(({ name }) => name), ...initializer.map(({ name }) => name)]
    const parts = { input, output: y, initializer, node: [node(op, names, ['y'], attribute)] }
    const session = await InferenceSession.create(modelBytes(graph(parts), OPSET), { logSeverityLevel: 4 })
    const error = await t.throwsAsync(session.run(feeds))
    await session.release()
    const text = publicText(error?.message ?? '')
    t.notRegex(text, SOURCE)
    t.regex(text, says)
    t.regex(text, new RegExp(`running ${op} node\\. Name:'`))
  })
}

const LOADS: readonly { readonly about: string; readonly bytes: Uint8Array; readonly says: RegExp }[] = [
  {
    about: 'an output that no node writes',
    bytes: modelBytes(
      graph({ input: [float('a', [2])], output: [float('q', null)], node: [node('Relu', ['a'], ['y'])] }),
    ),
    says: /This is an invalid model\. Graph output \(q\) does not exist in the graph\.$/,
  },
  { about: 'no graph', bytes: new Uint8Array(), says: /ModelProto does not have a graph\.$/ },
  {
    about: 'a future opset',
    bytes: modelBytes(graph({ input: [float('a', [2])], output: y, node: [node('Relu', ['a'], ['y'])] }), 99),
    says: /Opset 99 is under development/,
  },
  {
    about: 'an unknown operator',
    bytes: modelBytes(graph({ input: [float('a', [2])], output: y, node: [node('NoSuch', ['a'], ['y'])] })),
    says: /No Op registered for NoSuch/,
  },
  {
    about: 'missing external data',
    bytes: modelBytes(
      graph({
        input: [float('a', [2])],
        output: y,
        node: [node('Add', ['a', 'w'], ['y'])],
        initializer: [
          create(TensorProtoSchema, {
            name: 'w',
            dims: [2n],
            dataType: ELEMENT.float,
            dataLocation: 1,
            externalData: [create(StringStringEntryProtoSchema, { key: 'location', value: 'w.bin' })],
          }),
        ],
      }),
    ),
    says: /External data path does not exist: "w\.bin"$/,
  },
]

for (const { about, bytes, says } of LOADS) {
  test(`the runtime's message about ${about} is shown without source locations and paths`, async (t) => {
    const folder = join(temporaryFolder(t), 'a folder with blanks')
    mkdirSync(folder)
    const path = join(folder, 'model.onnx')
    writeFileSync(path, bytes)
    const error = await t.throwsAsync(InferenceSession.create(path, { logSeverityLevel: 4 }))
    const text = publicText(error?.message ?? '')
    t.notRegex(text, SOURCE)
    t.false(text.includes(folder))
    t.false(text.includes('blanks/'))
    t.regex(text, says)
  })
}

test('names of nodes that look like paths are kept, and paths of this machine are removed', (t) => {
  const text =
    "running MatMul node. Name:'/encoder/layer.0/MatMul' Status Message: /encoder/layer.0/Add and /etc/passwd"
  t.is(publicText(text), text.replace('/etc/passwd', 'passwd'))
  t.is(
    publicText('model m (/srv/my models/m/1/model.onnx): "/srv/my models" is full', ['/srv/my models']),
    'model m (m/1/model.onnx): "my models" is full',
  )
})

test('the last output of a crashed process is shown without colours, log prefixes, stacks and addresses', (t) => {
  const text = [
    'the compile process ended with code 1: \u001b[1;31m2026-11-26 12:09:53.969 [E:onnxruntime:, sequential_executor.cc:671 ExecuteKernel] Non-zero status\u001b[m',
    'terminate called: std::bad_alloc at 0x7fffdeadbeef',
    '    at file:///srv/dist/x.js:1:2',
    'node:internal/process:1',
    'Stacktrace:',
    '/onnxruntime_src/x.cc',
  ].join('\n')
  t.is(
    publicText(text),
    'the compile process ended with code 1: Non-zero status\nterminate called: there was not enough memory at',
  )
})

test('only the log has the source location of a failure; the response and the repository index do not', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const reshape = graph({
    input: withInts,
    output: y,
    node: [node('Reshape', ['a', 'b'], ['y'])],
  })
  writeModel(models, 'reshape', modelBytes(reshape))
  const { server, url, adminUrl } = await startServer(t, {
    models,
    args: ['--workers', '1', '--model-control', 'explicit', '--load-model', 'reshape'],
  })
  const failed = await fetch(`${url}/v2/models/reshape/infer`, {
    method: 'POST',
    body: JSON.stringify({
      inputs: [
        { name: 'a', shape: [2], datatype: 'FP32', data: [1, 2] },
        { name: 'b', shape: [1], datatype: 'INT64', data: [3] },
      ],
    }),
  })
  t.is(failed.status, 500)
  const { error } = (await failed.json()) as { error: string }
  t.notRegex(error, SOURCE)
  t.regex(error, /the model failed while running: .*Reshape_y.*requested shape:\{3\}$/)
  await server.logged(({ msg, reason }) => msg === 'request failed' && /reshape_helper/.test(String(reason)))

  writeModel(
    models,
    'bad',
    modelBytes(graph({ input: [float('a', [2])], output: [float('q', [2])], node: [] })),
  )
  const load = await fetch(`${adminUrl}/v2/repository/models/bad/load`, { method: 'POST', body: '{}' })
  t.is(load.status, 500)
  const index = await fetch(`${adminUrl}/v2/repository/index`, { method: 'POST', body: '{}' })
  const entries = (await index.json()) as { name: string; reason: string }[]
  for (const text of [((await load.json()) as { error: string }).error, entries[1]?.reason ?? '']) {
    t.regex(text, /\(bad\/1\/model\.onnx\): the runtime rejects the model/)
    t.false(text.includes(models))
    t.notRegex(text, SOURCE)
  }
  await server.logged(
    ({ msg, reason }) => msg === 'the model is not served' && String(reason).includes(models),
  )
  await stopCleanly(t, server)
})
