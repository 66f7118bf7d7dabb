import { readdirSync, readFileSync } from 'node:fs'
import { open, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { probeBatching } from '../../src/batchability/batchability.js'
import { openCache } from '../../src/compile/cache.js'
import { Compiler } from '../../src/compile/compile.js'
import { updateHeader } from '../../src/compile/image-header.js'
import type { AttributeProto, NodeProto, TensorProto, ValueInfoProto } from '../../src/onnx/onnx_pb.js'
import { Session } from '../../src/runtime/session.js'
import { readExactly } from '../../src/segment/io.js'
import {
  type Batching,
  encodeHeader,
  headerRoomBytes,
  MAX_BATCHING_REASON_CHARACTERS,
  SEGMENT_FILE_NAME,
} from '../../src/segment/layout.js'
import { verifySegment } from '../../src/segment/write.js'
import type { Tensor } from '../../src/tensor.js'
import { imagePathOf } from '../helpers/compile.js'
import {
  addModel,
  ELEMENT,
  floats,
  graph,
  graphAttribute,
  int64s,
  intAttribute,
  modelBytes,
  node,
  value,
  weights,
  writeModel,
} from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { sharedPath, testWithShared } from '../helpers/shared.js'

const { float, int64, bool } = ELEMENT
const [_INT32, FLOAT16, DOUBLE, BFLOAT16, STRING] = [6, 10, 11, ELEMENT.bfloat16, 8]
const COMPILE_TIMEOUT_MS = 60_000
const ALL_SIZES = 'rows run alone and together agree (sizes 2, 3, 8, 17)'

interface CompileOptions {
  readonly probeTimeoutMs?: number
}

/** The image that the compile process writes into the cache, compared byte for byte. */
async function imageOf(
  t: ExecutionContext,
  modelPath: string,
  options: CompileOptions = {},
): Promise<string> {
  const cacheDir = temporaryFolder(t)
  const cache = await openCache(cacheDir)
  const signal = new AbortController().signal
  const compiler = new Compiler({ cache, timeoutMs: COMPILE_TIMEOUT_MS, signal, ...options })
  t.teardown(() => compiler.close())
  return imagePathOf(await compiler.compile(modelPath))
}

async function batchingAt(
  t: ExecutionContext,
  modelPath: string,
  options: CompileOptions = {},
): Promise<Batching> {
  const file = await open(await imageOf(t, modelPath, options))
  try {
    return (await verifySegment(file)).batching
  } finally {
    await file.close()
  }
}

/** The result of trial runs alone. */
async function triedReason(t: ExecutionContext, path: string): Promise<string> {
  const imagePath = await imageOf(t, path)
  await using file = await open(imagePath)
  const { graph: place, form, inputs, outputs } = await verifySegment(file)
  const bytes = await readExactly(file, place.bytes, place.offsetBytes)
  // Weights are found by the file name that every segment has.
  const folder = temporaryFolder(t)
  await symlink(imagePath, join(folder, SEGMENT_FILE_NAME))
  const session = Session.load({ graph: bytes, folder, form, inputs, outputs, threads: 1 })
  try {
    const run = async (tensors: readonly Tensor[], names: readonly string[]) => [
      ...session.run(tensors, names).outputs,
    ]
    return (await probeBatching({ inputs, outputs, run })).reason
  } finally {
    session.close()
  }
}

function modelPath(t: ExecutionContext, bytes: Uint8Array): string {
  return join(writeModel(temporaryFolder(t), 'm', bytes), 'm', '1', 'model.onnx')
}

interface Case {
  readonly input?: ValueInfoProto[]
  readonly output?: ValueInfoProto[]
  readonly node: NodeProto[]
  readonly initializer?: TensorProto[]
}

const x = value('x', float, ['n', 4])
const y = value('y', float, ['n', 4])

function batches(title: string, parts: Case, says = ALL_SIZES): void {
  test.serial(`batches: ${title}`, async (t) => {
    const bytes = modelBytes(graph({ input: [x], output: [y], ...parts }))
    t.deepEqual(await batchingAt(t, modelPath(t, bytes)), { batchable: true, reason: says })
  })
}

function doesNotBatch(title: string, parts: Case, says: RegExp): void {
  test.serial(`does not batch: ${title}`, async (t) => {
    const bytes = modelBytes(graph({ input: [x], output: [y], ...parts }))
    const path = modelPath(t, bytes)
    const { batchable, reason, preventedBy } = await batchingAt(t, path)
    t.false(batchable)
    // Graphs rejected by the proof are not tried; trial runs would find the problem too.
    t.regex(preventedBy === undefined ? reason : await triedReason(t, path), says)
  })
}

const influence = /^rows influence each other: output "y" differs by [\d.]+$/
const axis0: { attribute: AttributeProto[] } = { attribute: [intAttribute('axis', 0)] }
const castTo = (type: number) => ({ attribute: [intAttribute('to', type)] })
const first = int64s('first', [1], [0])
/** [time, 4] to [1, 4, time] and back, around nodes from `in` to `out`. */
const overTime = (...nodes: NodeProto[]) => [
  node('Transpose', ['x'], ['transposed']),
  node('Unsqueeze', ['transposed', 'first'], ['in']),
  ...nodes,
  node('Squeeze', ['out', 'first'], ['squeezed']),
  node('Transpose', ['squeezed'], ['y']),
]

const mlp = (from: string, to: string) => [
  node('MatMul', [from, 'w1'], ['hidden']),
  node('Relu', ['hidden'], ['active']),
  node('MatMul', ['active', 'w2'], [to]),
]
const mlpWeights = [weights('w1', [4, 300]), weights('w2', [300, 4])]

batches('a perceptron', { node: mlp('x', 'y'), initializer: mlpWeights })

batches('a label and its scores', {
  output: [y, value('label', int64, ['other name'])],
  node: [
    ...mlp('x', 'y'),
    node('ArgMax', ['y'], ['label'], { attribute: [intAttribute('axis', 1), intAttribute('keepdims', 0)] }),
  ],
  initializer: mlpWeights,
})

for (const [name, type] of Object.entries({ FLOAT16, BFLOAT16, DOUBLE })) {
  const input = [value('x', type, ['n', 4])]
  const output = [value('y', type, ['n', 4])]
  const cast = node('Cast', ['x'], ['in'], castTo(float))
  batches(`a perceptron between casts from and to ${name}`, {
    input,
    output: type === DOUBLE ? [y] : output,
    node: [
      cast,
      ...mlp('in', type === DOUBLE ? 'y' : 'out'),
      ...(type === DOUBLE ? [] : [node('Cast', ['out'], ['y'], castTo(type))]),
    ],
    initializer: mlpWeights,
  })
  doesNotBatch(
    `the mean over rows in ${name}`,
    {
      input,
      output,
      node: [
        cast,
        node('ReduceMean', ['in', 'first'], ['mean']),
        node('Sub', ['in', 'mean'], ['out']),
        node('Cast', ['out'], ['y'], castTo(type)),
      ],
      initializer: [first],
    },
    influence,
  )
}

batches('an embedding of three rows, which rejects larger integers', {
  input: [value('ids', int64, ['n'])],
  node: [node('Gather', ['table', 'ids'], ['y'], axis0)],
  initializer: [weights('table', [3, 4])],
})

batches('a layer that needs exactly 16 columns although the model declares any number', {
  input: [value('x', float, ['n', 'columns'])],
  node: [node('MatMul', ['x', 'w'], ['y'])],
  initializer: [weights('w', [16, 4])],
})

batches('a threshold that only large numbers reach', {
  node: [node('Add', ['x', 'threshold'], ['above']), node('Relu', ['above'], ['y'])],
  initializer: [floats('threshold', [1], [-3])],
})

batches('a sum of logarithms, which are NaN for negative numbers', {
  input: [value('x', float, ['n', 32])],
  output: [value('y', float, ['n', 1])],
  node: [node('Log', ['x'], ['logs']), node('ReduceSum', ['logs', 'columns'], ['y'])],
  initializer: [int64s('columns', [1], [1])],
})

batches('a masked input of three types', {
  input: [x, value('mask', bool, ['n', 4]), value('word', STRING, ['', 1])],
  output: [y, value('same', STRING, ['n', 1])],
  node: [node('Where', ['mask', 'x', 'zero'], ['y']), node('Identity', ['word'], ['same'])],
  initializer: [weights('zero', [1])],
})

doesNotBatch(
  'the mean over the first axis',
  {
    node: [node('ReduceMean', ['x', 'first'], ['mean']), node('Sub', ['x', 'mean'], ['y'])],
    initializer: [first],
  },
  influence,
)

doesNotBatch(
  'a cumulative sum over the first axis',
  {
    node: [node('CumSum', ['x', 'axis'], ['y'])],
    initializer: [int64s('axis', [], [0])],
  },
  influence,
)

doesNotBatch(
  'a recurrent layer whose first dimension is time',
  {
    node: [
      node('Unsqueeze', ['x', 'second'], ['sequence']),
      node('GRU', ['sequence', 'w', 'r'], ['states'], { attribute: [intAttribute('hidden_size', 4)] }),
      node('Squeeze', ['states', 'middle'], ['y']),
    ],
    initializer: [
      weights('w', [1, 12, 4]),
      weights('r', [1, 12, 4]),
      int64s('second', [1], [1]),
      int64s('middle', [2], [1, 2]),
    ],
  },
  influence,
)

doesNotBatch(
  'a convolution over time',
  {
    node: overTime(node('Pad', ['in', 'pads'], ['padded']), node('Conv', ['padded', 'w'], ['out'])),
    initializer: [first, int64s('pads', [6], [0, 0, 1, 0, 0, 1]), weights('w', [4, 4, 3])],
  },
  influence,
)

doesNotBatch(
  'a moving window over four rows',
  {
    node: overTime(node('Pad', ['in', 'pads'], ['padded']), node('Conv', ['padded', 'w'], ['out'])),
    initializer: [first, int64s('pads', [6], [0, 0, 3, 0, 0, 0]), weights('w', [4, 4, 4])],
  },
  influence,
)

doesNotBatch(
  'a row that reaches the one twelve rows later',
  {
    node: [
      node('Pad', ['x', 'pads'], ['late']),
      node('Slice', ['late', 'first', 'last', 'first'], ['delayed']),
      node('Add', ['x', 'delayed'], ['y']),
    ],
    initializer: [first, int64s('last', [1], [-12]), int64s('pads', [4], [12, 0, 0, 0])],
  },
  influence,
)

doesNotBatch('softmax over the first axis', { node: [node('Softmax', ['x'], ['y'], axis0)] }, influence)

doesNotBatch(
  'sorting over the first axis',
  {
    node: [
      node('Shape', ['x'], ['shape']),
      node('Gather', ['shape', 'first'], ['count']),
      node('TopK', ['x', 'count'], ['y', 'order'], axis0),
    ],
    initializer: [first],
  },
  influence,
)

doesNotBatch(
  'a rank among the rows, in integers',
  {
    output: [y, value('rank', int64, ['n', 4])],
    node: [
      node('Identity', ['x'], ['y']),
      node('Shape', ['x'], ['shape']),
      node('Gather', ['shape', 'first'], ['count']),
      node('TopK', ['x', 'count'], ['sorted', 'rank'], axis0),
    ],
    initializer: [first],
  },
  /^rows influence each other: output "rank" differs$/,
)

doesNotBatch(
  'a model that quantises over all rows',
  {
    node: [
      node('DynamicQuantizeLinear', ['x'], ['q', 'scale', 'zero']),
      node('DequantizeLinear', ['q', 'scale', 'zero'], ['y']),
    ],
  },
  influence,
)

doesNotBatch(
  'random numbers',
  {
    node: [node('RandomNormalLike', ['x'], ['noise']), node('Add', ['x', 'noise'], ['y'])],
  },
  /^the model is random: output "y" of one row run twice differs by/,
)

doesNotBatch(
  'outputs that do not depend on the rows',
  {
    node: [node('Mul', ['x', 'zero'], ['y'])],
    initializer: [floats('zero', [1], [0])],
  },
  /^output "y" hardly differs between rows/,
)

doesNotBatch(
  'one row for any number of rows',
  {
    output: [value('y', float, ['m', 4])],
    node: [node('ReduceSum', ['x', 'first'], ['y'])],
    initializer: [first],
  },
  /^output "y" has shape \[1,4\] for 2 rows, expected \[2,4\]$/,
)

doesNotBatch(
  'an output whose first dimension is not the batch',
  {
    output: [value('y', float, ['m', 'n'])],
    node: [node('Transpose', ['x'], ['y'])],
  },
  /^output "y" has shape \[4,1\] for one row$/,
)

doesNotBatch(
  'similarities between rows',
  {
    output: [value('y', float, ['n', 'm'])],
    node: [node('Transpose', ['x'], ['t']), node('MatMul', ['x', 't'], ['y'])],
  },
  /^output "y" has shape \[2,2\] for 2 rows, expected \[2,1\]$/,
)

doesNotBatch(
  'a number of values that depends on the row',
  {
    output: [value('y', int64, ['m', 'n'])],
    node: [
      node('Greater', ['x', 'zero'], ['positive']),
      node('NonZero', ['positive'], ['at']),
      node('Unsqueeze', ['at', 'first'], ['y']),
    ],
    initializer: [first, floats('zero', [1], [0])],
  },
  /^the shape of output "y" depends on the values of a row$/,
)

doesNotBatch(
  'a model that only accepts one row',
  {
    node: [node('Reshape', ['x', 'one'], ['y'])],
    initializer: [int64s('one', [2], [1, 4])],
  },
  /^rows run alone, but 2 rows together do not: /,
)

doesNotBatch(
  'a model that no trial fits',
  {
    input: [value('x', float, ['n', 'columns'])],
    node: [node('MatMul', ['x', 'w'], ['y'])],
    initializer: [weights('w', [11, 4])],
  },
  /^could not be probed: the model failed while running: /,
)

doesNotBatch(
  'a fixed first dimension',
  {
    input: [value('x', float, [2, 4])],
    node: [node('Relu', ['x'], ['y'])],
  },
  /^input "x" has a fixed first dimension \(2\)$/,
)

doesNotBatch(
  'an output with a fixed first dimension',
  {
    output: [value('y', float, [1, 4])],
    node: [node('ReduceSum', ['x', 'first'], ['y'])],
    initializer: [first],
  },
  /^output "y" has a fixed first dimension \(1\)$/,
)

doesNotBatch(
  'a scalar input',
  {
    input: [x, value('factor', float, [])],
    node: [node('Mul', ['x', 'factor'], ['y'])],
  },
  /^input "factor" is a scalar$/,
)

doesNotBatch(
  'an input without a shape',
  {
    input: [value('x', float, null)],
    node: [node('Relu', ['x'], ['y'])],
  },
  /^input "x" declares no shape$/,
)

doesNotBatch(
  'inputs whose first dimensions have different names',
  {
    input: [x, value('other', float, ['m', 4])],
    node: [node('Add', ['x', 'other'], ['y'])],
  },
  /^the inputs' first dimensions have different names \(n, m\)$/,
)

doesNotBatch(
  'an input with the batch dimension twice',
  {
    input: [x, value('mask', float, ['n', 'n'])],
    node: [node('MatMul', ['mask', 'x'], ['y'])],
  },
  /^a later dimension of input "mask" is also "n"$/,
)

doesNotBatch(
  'a model without inputs',
  {
    input: [],
    output: [value('y', float, ['n', 4])],
    node: [node('Identity', ['constant'], ['y'])],
    initializer: [weights('constant', [2, 4])],
  },
  /^the model has no inputs$/,
)

/** A model that never ends for any input. */
function endlessModel(): Uint8Array {
  const body = graph({
    input: [value('i', int64, []), value('going', bool, []), value('state', float, ['n', 4])],
    output: [value('still_going', bool, []), value('next', float, ['n', 4])],
    node: [node('Identity', ['going'], ['still_going']), node('Relu', ['state'], ['next'])],
  })
  return modelBytes(
    graph({
      input: [x],
      output: [y],
      node: [node('Loop', ['', 'true', 'x'], ['y'], { attribute: [graphAttribute('body', body)] })],
      initializer: [{ ...int64s('true', [], []), dataType: bool, rawData: new Uint8Array([1]) }],
    }),
  )
}

/** CPU time of this process's children, by process id. Source: proc_pid_stat(5). */
function childrenCpuMs(): Map<number, number> {
  const children = new Map<number, number>()
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      if (Number(fields[1]) === process.pid) children.set(Number(pid), Number(fields[11]) * 10)
    } catch {
      // The process ended meanwhile.
    }
  }
  return children
}

test.serial('a model that crashes in trial runs is served without batching', async (t) => {
  const before = new Set(childrenCpuMs().keys())
  let killed = 0
  // Compiling this model takes a tenth of that time: the rest is the endless trial run.
  const timer = setInterval(() => {
    for (const [pid, cpuMs] of childrenCpuMs()) {
      if (before.has(pid) || cpuMs < 3000) continue
      process.kill(pid, 'SIGSEGV')
      killed++
    }
  }, 100)
  t.teardown(() => clearInterval(timer))
  t.deepEqual(await batchingAt(t, modelPath(t, endlessModel()), { probeTimeoutMs: 60_000 }), {
    batchable: false,
    reason: 'the probe did not finish',
  })
  t.true(killed > 0)
})

test.serial('a model that hangs in trial runs is served without batching', async (t) => {
  const startedMs = performance.now()
  t.deepEqual(await batchingAt(t, modelPath(t, endlessModel()), { probeTimeoutMs: 300 }), {
    batchable: false,
    reason: 'the probe did not finish',
  })
  t.true(performance.now() - startedMs < COMPILE_TIMEOUT_MS)
})

test.serial(
  'the header has space for the longest reason, and the rest of the image is unchanged',
  async (t) => {
    const path = await imageOf(t, modelPath(t, addModel()))
    const file = await open(path, 'r+')
    t.teardown(() => file.close())
    const before = await verifySegment(file)
    const batching = { batchable: false, reason: '\u0001'.repeat(MAX_BATCHING_REASON_CHARACTERS) }
    await updateHeader(file, { batching })
    t.deepEqual(await verifySegment(file), { ...before, batching })
    // The reason fits for any header length within its last page.
    for (let length = 0; length < 4096; length += 32) {
      const header = { ...before, sharing: { ...before.sharing, notes: ['x'.repeat(length)] } }
      t.notThrows(() => encodeHeader({ ...header, batching }, headerRoomBytes(header)))
    }
  },
)

/** A model in JavaScript: `y = 2x`, with runs that take `rowMs` per row. */
function doubling(rowMs: number) {
  const spec = { name: 'x', datatype: 'FP32', shape: [-1, 2] } as const
  const sizes: number[] = []
  const run = async ([input]: readonly Tensor[]): Promise<Tensor[]> => {
    const { shape, data } = input as Tensor
    sizes.push(shape[0] as number)
    const until = performance.now() + rowMs * (shape[0] as number)
    while (performance.now() < until);
    return [
      { name: 'y', datatype: 'FP32', shape, data: (data as Float32Array<ArrayBuffer>).map((one) => 2 * one) },
    ]
  }
  return { sizes, options: { inputs: [spec], outputs: [{ ...spec, name: 'y' }], run } }
}

test.serial(
  'a slow model is tried with fewer batch sizes, at least two rows, and the reason mentions that',
  async (t) => {
    const slow = doubling(20)
    const { batchable, reason } = await probeBatching({ ...slow.options, budgetMs: 600 })
    t.true(batchable)
    t.regex(
      reason,
      /^rows run alone and together agree \(sizes 2(, 3)?; larger sizes skipped because one row takes \d+ ms\)$/,
    )
    t.true(Math.max(...slow.sizes) <= 3)
    const slower = await probeBatching({ ...doubling(100).options, budgetMs: 250 })
    t.regex(slower.reason, /agree \(sizes 2; larger sizes skipped because one row takes \d+ ms\)$/)
    const tooSlow = await probeBatching({ ...doubling(100).options, budgetMs: 50 })
    t.deepEqual(tooSlow, {
      batchable: false,
      reason: 'could not be probed: one row takes too long for a trial',
    })
  },
)

test.serial('large rows are tried with fewer batch sizes', async (t) => {
  const { options } = doubling(0)
  const spec = { name: 'x', datatype: 'FP32', shape: [-1, 1, 1000, 1000] } as const
  const { reason } = await probeBatching({ ...options, inputs: [spec], budgetMs: 60_000 })
  t.is(
    reason,
    'rows run alone and together agree (sizes 2, 3, 8; larger sizes skipped because one row takes 8.0 MB)',
  )
  const huge = await probeBatching({ ...options, inputs: [{ ...spec, shape: [-1, 2 ** 30, 2 ** 30] }] })
  t.deepEqual(huge, { batchable: false, reason: 'could not be probed: one row is too large for a trial' })
})

const REAL_MODELS: Record<string, boolean> = {
  'chembl37-gpcr': false,
  'cnn-resnet': true,
  'dtln-lstm-1': false,
  'gru-bidirectional': true,
  'magika-v3_3': true,
  'mnist-cntk-cnn': false,
  'silero-vad-lstm': false,
  'sklearn-rf-iris': true,
  'sklearn-treecl': true,
  'string-io': true,
  'transformer-int64': true,
  'ultraface-rfb320': false,
  'yunet-dynamic': true,
}

testWithShared('real models with a batch dimension are batched', ['models'], async (t) => {
  for (const [name, isBatchable] of Object.entries(REAL_MODELS)) {
    const { batchable, reason } = await batchingAt(t, sharedPath('models', name, 'model.onnx'))
    t.is(batchable, isBatchable, `${name}: ${reason}`)
    t.regex(reason, isBatchable ? /agree \(sizes 2/ : /has a fixed first dimension/, name)
  }
})
