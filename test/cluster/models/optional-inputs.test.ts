/** Inputs with a default and outputs declared only by name, with the real server. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import test from 'ava'
import {
  type GraphProto,
  ModelProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  ValueInfoProtoSchema,
} from '../../../src/onnx/onnx_pb.js'
import {
  addModel,
  ELEMENT,
  floats,
  graph,
  intAttribute,
  modelBytes,
  node,
  sequence,
  value,
  writeModel,
} from '../../helpers/onnx-builder.js'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'

interface Described {
  readonly name: string
  readonly datatype: string
  readonly shape: number[]
  readonly optional?: true
}
interface Metadata {
  readonly inputs: Described[]
  readonly outputs: Described[]
}

const nameOnly = (name: string) => create(ValueInfoProtoSchema, { name })

function withIrVersion(bytes: Uint8Array, irVersion: bigint): Uint8Array {
  return toBinary(ModelProtoSchema, { ...fromBinary(ModelProtoSchema, bytes), irVersion })
}

/** A tensor with its numbers in `float_data`, like those of the ONNX Python helper. */
function typedFloats(name: string, values: readonly number[]): TensorProto {
  const data = new Uint8Array(Float32Array.from(values).buffer)
  const tensor = create(TensorProtoSchema, { name, dims: [BigInt(values.length)], dataType: ELEMENT.float })
  tensor.$unknown = [{ no: 4, wireType: 2, data: Uint8Array.of(data.length, ...data) }]
  return tensor
}

/** `y = x * scale + shift`, x FP32 [batch, 2]; scale is [2, 3], shift is 10 unless sent. */
const AFFINE: GraphProto = graph({
  input: [
    value('scale', ELEMENT.float, [2]),
    value('x', ELEMENT.float, ['batch', 2]),
    value('shift', ELEMENT.float, []),
  ],
  output: [value('y', ELEMENT.float, ['batch', 2])],
  node: [node('Mul', ['x', 'scale'], ['scaled']), node('Add', ['scaled', 'shift'], ['y'])],
  initializer: [typedFloats('scale', [2, 3]), floats('shift', [], [10])],
})

async function infer(
  url: string,
  model: string,
  inputs: object[],
): Promise<{ status: number; text: string }> {
  const response = await fetch(`${url}/v2/models/${model}/infer`, {
    method: 'POST',
    body: JSON.stringify({ inputs }),
  })
  return { status: response.status, text: await response.text() }
}

function dataOf(text: string): unknown {
  return (JSON.parse(text) as { outputs: { data: unknown }[] }).outputs[0]?.data
}

const x = (data: number[]) => ({ name: 'x', shape: [data.length / 2, 2], datatype: 'FP32', data })
const scale = (data: number[]) => ({ name: 'scale', shape: [data.length], datatype: 'FP32', data })
const shift = (number: number) => ({ name: 'shift', shape: [], datatype: 'FP32', data: [number] })

async function metadataOf(url: string, model: string): Promise<Metadata> {
  return (await (await fetch(`${url}/v2/models/${model}`)).json()) as Metadata
}

test('inputs with a default are optional: described, accepted and omitted', async (t) => {
  const models = writeModel(temporaryFolder(t), 'affine', modelBytes(AFFINE))
  const { server, url } = await startServer(t, { models, args: ['--workers', '2'] })
  t.deepEqual((await metadataOf(url, 'affine')).inputs, [
    { name: 'scale', datatype: 'FP32', shape: [2], optional: true },
    { name: 'x', datatype: 'FP32', shape: [-1, 2] },
    { name: 'shift', datatype: 'FP32', shape: [], optional: true },
  ])
  const config = (await (await fetch(`${url}/v2/models/affine/config`)).json()) as {
    max_batch_size: number
    input: unknown[]
  }
  t.deepEqual(config.input, [
    { name: 'scale', data_type: 'TYPE_FP32', dims: [2], optional: true },
    { name: 'x', data_type: 'TYPE_FP32', dims: [2] },
    { name: 'shift', data_type: 'TYPE_FP32', dims: [], optional: true },
  ])
  // A default is the same for every row, so it does not prevent batching.
  t.is(config.max_batch_size, 64)

  for (const [inputs, expected] of [
    [[x([1, 1])], [12, 13]],
    [
      [x([1, 1]), scale([5, 7])],
      [15, 17],
    ],
    [
      [shift(0), x([1, 1])],
      [2, 3],
    ],
    [
      [shift(1), x([1, 1]), scale([0, -1])],
      [1, 0],
    ],
    // A value sent by one request does not become the default of the next.
    [[x([1, 1, 2, 2])], [12, 13, 14, 16]],
  ] as const) {
    const { status, text } = await infer(url, 'affine', [...inputs])
    t.is(status, 200, text)
    t.deepEqual(dataOf(text), expected)
  }
  const raw = await fetch(`${url}/v2/models/affine/infer`, {
    method: 'POST',
    headers: { 'Inference-Header-Content-Length': '0' },
    body: new Uint8Array(Float32Array.of(1, 1).buffer),
  })
  t.is(raw.status, 200)
  for (const [inputs, says] of [
    [[scale([1, 1])], /input \\"x\\": missing/],
    [[x([1, 1]), scale([1, 1, 1])], /input \\"scale\\": expected shape \[2\], got \[3\]/],
    [[x([1, 1]), { ...shift(1), datatype: 'FP64' }], /expected datatype FP32, got FP64/],
    [[x([1, 1]), shift(1), shift(2)], /more than once/],
  ] as const) {
    const { status, text } = await infer(url, 'affine', [...inputs])
    t.is(status, 400)
    t.regex(text, says)
  }
  await stopCleanly(t, server)
})

test('requests with and without an optional input do not affect each other', async (t) => {
  const models = writeModel(temporaryFolder(t), 'affine', modelBytes(AFFINE))
  // Batched, two requests with `factors` would use the sum of both.
  const summed = graph({
    input: [value('x', ELEMENT.float, ['batch', 2]), value('factors', ELEMENT.float, ['k', 2])],
    output: [value('y', ELEMENT.float, ['batch', 2])],
    node: [
      node('ReduceSum', ['factors', 'axes'], ['total'], { attribute: [intAttribute('keepdims', 0)] }),
      node('Mul', ['x', 'total'], ['y']),
    ],
    initializer: [
      floats('factors', [1, 2], [1, 1]),
      create(TensorProtoSchema, {
        name: 'axes',
        dims: [1n],
        dataType: ELEMENT.int64,
        rawData: new Uint8Array(8),
      }),
    ],
  })
  writeModel(models, 'summed', modelBytes(summed))
  const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '1'] })
  const sum = async (i: number) => {
    const factors = { name: 'factors', shape: [1, 2], datatype: 'FP32', data: [i, i] }
    const { text } = await infer(url, 'summed', i % 2 === 0 ? [x([3, 4])] : [x([3, 4]), factors])
    t.deepEqual(dataOf(text), i % 2 === 0 ? [3, 4] : [3 * i, 4 * i], `request ${i}`)
  }
  const one = async (i: number) => {
    const sent = i % 3 === 0 ? [] : i % 3 === 1 ? [scale([i, i])] : [shift(i)]
    const { text } = await infer(url, 'affine', [x([i, 1]), ...sent])
    const [a, b] = i % 3 === 1 ? [i, i] : [2, 3]
    const plus = i % 3 === 2 ? i : 10
    t.deepEqual(dataOf(text), [i * a + plus, b + plus], `request ${i}`)
  }
  for (let round = 0; round < 5; round++)
    await Promise.all(Array.from({ length: 60 }, (_, i) => [one(round * 60 + i), sum(round * 60 + i)]).flat())
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  t.regex(metrics, /onecopy_requests_total\{model="affine",version="1",outcome="success"\} 300/)
  await stopCleanly(t, server)
})

test('defaults of every numeric type, inline or external, have the values of the model', async (t) => {
  const models = temporaryFolder(t)
  const raw = (name: string, dataType: number, data: ArrayBufferView) =>
    create(TensorProtoSchema, {
      name,
      dims: [1n],
      dataType,
      rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    })
  const TYPES = [
    ['FP64', 11, Float64Array.of(1.5), 1.5],
    ['INT64', ELEMENT.int64, BigInt64Array.of(-(2n ** 40n)), -(2 ** 40)],
    ['INT32', 6, Int32Array.of(-7), -7],
    ['UINT8', ELEMENT.uint8, Uint8Array.of(200), 200],
    ['BOOL', ELEMENT.bool, Uint8Array.of(1), true],
  ] as const
  for (const [datatype, type, data] of TYPES) {
    const name = `of-${datatype}`
    const parts = graph({
      input: [value('d', type, [1])],
      output: [value('y', type, [1])],
      node: [node('Identity', ['d'], ['y'])],
      initializer: [raw('d', type, data)],
    })
    writeModel(models, name, modelBytes(parts))
  }
  writeModel(models, 'external', new Uint8Array())
  writeFileSync(join(models, 'external', '1', 'w.bin'), new Uint8Array(Float32Array.of(40, 50).buffer))
  const external = create(TensorProtoSchema, {
    name: 'constant',
    dims: [2n],
    dataType: ELEMENT.float,
    dataLocation: 1,
    externalData: [create(StringStringEntryProtoSchema, { key: 'location', value: 'w.bin' })],
  })
  const parts = fromBinary(ModelProtoSchema, addModel()).graph as GraphProto
  parts.initializer = [external]
  parts.input.push(value('constant', ELEMENT.float, [2]))
  writeModel(models, 'external', modelBytes(parts))

  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  for (const [datatype, , , expected] of TYPES) {
    const { status, text } = await infer(url, `of-${datatype}`, [])
    t.is(status, 200, text)
    t.deepEqual(dataOf(text), [expected])
    const other = datatype === 'BOOL' ? false : 3
    const sent = await infer(url, `of-${datatype}`, [{ name: 'd', shape: [1], datatype, data: [other] }])
    t.deepEqual(dataOf(sent.text), [other])
  }
  t.deepEqual(dataOf((await infer(url, 'external', [x([1, 2])])).text), [41, 52])
  const constant = { name: 'constant', shape: [2], datatype: 'FP32', data: [0, 0] }
  t.deepEqual(dataOf((await infer(url, 'external', [x([1, 2]), constant])).text), [1, 2])
  await stopCleanly(t, server)
})

test('before IR version 4 an initializer that is an input is a constant', async (t) => {
  const models = writeModel(temporaryFolder(t), 'old', withIrVersion(modelBytes(AFFINE, 8), 3n))
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  t.deepEqual((await metadataOf(url, 'old')).inputs, [{ name: 'x', datatype: 'FP32', shape: [-1, 2] }])
  t.deepEqual(dataOf((await infer(url, 'old', [x([1, 1])])).text), [12, 13])
  await stopCleanly(t, server)
})

/** An MLP as written by exporters that list initializers as inputs. */
function mlp(size: number, layers: number, areInputs: boolean): Uint8Array {
  const names = Array.from({ length: layers }, (_, i) => `w${i}`)
  const parts = graph({
    input: [
      value('x', ELEMENT.float, ['batch', size]),
      ...(areInputs ? names.map((name) => value(name, ELEMENT.float, [size, size])) : []),
    ],
    output: [value(`h${layers}`, ELEMENT.float, ['batch', size])],
    node: names.map((name, i) => node('MatMul', [i === 0 ? 'x' : `h${i}`, name], [`h${i + 1}`])),
    initializer: names.map((name, seed) =>
      floats(
        name,
        [size, size],
        Array.from({ length: size * size }, (_, i) => Math.sin(i + seed)),
      ),
    ),
  })
  return modelBytes(parts)
}

interface Inspected {
  readonly inputs: { readonly name: string; readonly optional?: true }[]
  readonly sharing: { readonly sharedPackedBytes: number; readonly state: string; readonly notes: string[] }
  readonly batching: { readonly batchable: boolean }
}

test('weights listed as inputs by an exporter are constants: packed, shared and batched', (t) => {
  const folder = temporaryFolder(t)
  const inspect = (bytes: Uint8Array): Inspected => {
    const path = join(folder, 'model.onnx')
    writeFileSync(path, bytes)
    const { code, stdout, stderr } = runCommand(['inspect', path, '--json', '--no-measure'])
    t.is(code, 0, stderr)
    return JSON.parse(stdout) as Inspected
  }
  for (const [size, layers] of [
    [384, 2],
    [16, 17],
  ] as const) {
    const listed = inspect(mlp(size, layers, true))
    const plain = inspect(mlp(size, layers, false))
    t.deepEqual(listed.inputs, plain.inputs)
    t.is(listed.sharing.sharedPackedBytes, plain.sharing.sharedPackedBytes)
    t.is(listed.sharing.state, plain.sharing.state)
    t.true(listed.batching.batchable)
    t.regex(
      listed.sharing.notes.join(),
      new RegExp(`${layers} initializers that are also inputs became constants`),
    )
  }
  t.deepEqual(
    inspect(modelBytes(AFFINE)).inputs.map(({ optional }) => optional),
    [true, undefined, true],
  )
})

test('outputs declared only by name have the types inferred by the runtime', async (t) => {
  const models = writeModel(
    temporaryFolder(t),
    'named',
    modelBytes(
      graph({
        input: [value('x', ELEMENT.float, ['batch', 2]), value('shape', ELEMENT.int64, ['r'])],
        output: ['twice', 'where', 'size', 'any', 'same', 'list', 'is'].map(nameOnly),
        node: [
          node('Add', ['x', 'x'], ['twice']),
          node('ArgMax', ['x'], ['where'], { attribute: [intAttribute('axis', 1)] }),
          node('Size', ['x'], ['size']),
          node('Reshape', ['x', 'shape'], ['any']),
          node('Identity', ['x'], ['same']),
          node('SequenceConstruct', ['x', 'x'], ['list']),
          node('Less', ['x', 'zero'], ['is']),
        ],
        initializer: [floats('zero', [], [0])],
      }),
    ),
  )
  writeModel(
    models,
    'one',
    modelBytes(
      graph({
        input: [value('x', ELEMENT.float, ['batch', 2])],
        output: [nameOnly('y')],
        node: [node('Add', ['x', 'one'], ['y'])],
        initializer: [floats('one', [2], [1, 1])],
      }),
    ),
  )
  const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
  t.deepEqual((await metadataOf(url, 'named')).outputs, [
    { name: 'twice', datatype: 'FP32', shape: [-1, 2] },
    { name: 'where', datatype: 'INT64', shape: [-1, 1] },
    { name: 'size', datatype: 'INT64', shape: [] },
    { name: 'any', datatype: 'FP32', shape: [-1] },
    { name: 'same', datatype: 'FP32', shape: [-1, 2] },
    { name: 'is', datatype: 'BOOL', shape: [-1, 2] },
  ])
  await server.logged(({ msg }) =>
    /output list is not served: it is a sequence, a map or an optional value/.test(msg),
  )
  const { text } = await infer(url, 'named', [
    x([1, -2]),
    { name: 'shape', shape: [3], datatype: 'INT64', data: [2, 1, 1] },
  ])
  const { outputs } = JSON.parse(text) as { outputs: { name: string; shape: number[]; data: unknown }[] }
  t.deepEqual(
    outputs.map(({ name, shape, data }) => [name, shape, data]),
    [
      ['twice', [1, 2], [2, -4]],
      ['where', [1, 1], [0]],
      ['size', [], [2]],
      ['any', [2, 1, 1], [1, -2]],
      ['same', [1, 2], [1, -2]],
      ['is', [1, 2], [false, true]],
    ],
  )
  // Shapes are known, so the model batches as if they were declared.
  const config = (await (await fetch(`${url}/v2/models/one/config`)).json()) as { max_batch_size: number }
  t.is(config.max_batch_size, 64)
  t.deepEqual(dataOf((await infer(url, 'one', [x([1, 2])])).text), [2, 3])
  await stopCleanly(t, server)
})

test('a model with outputs that are not tensors is rejected, declared or not', (t) => {
  const folder = temporaryFolder(t)
  for (const output of [nameOnly('list'), sequence('list', ELEMENT.float)]) {
    const path = join(folder, 'model.onnx')
    writeFileSync(
      path,
      modelBytes(
        graph({
          input: [value('x', ELEMENT.float, ['n'])],
          output: [output],
          node: [node('SequenceConstruct', ['x', 'x'], ['list'])],
        }),
      ),
    )
    const { code, stderr } = runCommand(['inspect', path, '--no-measure'])
    t.is(code, 1)
    t.regex(stderr, /MODEL_UNSUPPORTED.*expected at least one tensor output/)
  }
})
