/**
 * A probe process: it loads an image or a segment as a worker does, but without HTTP. The difference to a
 * process that loads only the library is the cost of the model.
 */
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { create } from '@bufbuild/protobuf'
import { separateDefaults } from '../compile/defaults.js'
import { ZERO_DIMENSIONS, zeroInputs } from '../compile/zero-inputs.js'
import { messageOf, OnecopyError } from '../errors.js'
import { serializeModel } from '../onnx/graph.js'
import { GraphProtoSchema, ModelProtoSchema, ValueInfoProtoSchema } from '../onnx/onnx_pb.js'
import { loadRuntime, Session } from '../runtime/session.js'
import { readExactly } from '../segment/io.js'
import type { SegmentHeader } from '../segment/layout.js'
import { readHeader } from '../segment/write.js'
import { requiredOf } from '../tensor.js'
import { findPaddingProblem } from '../text/padding-check.js'
import { poolTokens } from '../token-pooling.js'
import { type FromProbe, type ToProbe, ToProbeSchema } from './probe-messages.js'

interface Loaded {
  readonly session: Session
  readonly header: SegmentHeader
}

let loaded: Loaded | undefined
/** Kept alive while the process is measured. */
let empty: Session | undefined

async function load(path: string): Promise<Loaded> {
  await using file = await open(path)
  const header = await readHeader(file)
  const { form, inputs, outputs } = header
  const session = Session.load({
    // A worker's inference thread gets a copy of the mapped graph and drops it, as here.
    ...separateDefaults(await readExactly(file, header.graph.bytes, header.graph.offsetBytes), inputs),
    folder: form === 'compiled' ? dirname(path) : header.externalDataFolder,
    ...{ form, inputs, outputs, threads: 1 },
  })
  return { session, header }
}

/** `y = x`, FP32 of one element. */
async function loadOneOperator(): Promise<Session> {
  const tensor = (name: string) =>
    create(ValueInfoProtoSchema, {
      name,
      type: { value: { case: 'tensorType', value: { elemType: 1, shape: { dim: [] } } } },
    })
  const graph = create(GraphProtoSchema, {
    name: 'one operator',
    node: [{ opType: 'Identity', input: ['x'], output: ['y'] }],
    input: [tensor('x')],
    output: [tensor('y')],
  })
  const opsetImport = [{ domain: '', version: 13n }]
  const bytes = serializeModel(create(ModelProtoSchema, { irVersion: 7n, graph, opsetImport }))
  const spec = { datatype: 'FP32', shape: [] } as const
  return Session.load({
    ...{ graph: bytes, folder: null, form: 'original', threads: 1 },
    inputs: [{ name: 'x', ...spec }],
    outputs: [{ name: 'y', ...spec }],
  })
}

async function run({ session, header }: Loaded): Promise<FromProbe> {
  const asked = new Set(session.inputNames)
  const specs = requiredOf(header.inputs).filter(({ name }) => asked.has(name))
  const names = header.outputs.map(({ name }) => name)
  let problem: string | null = null
  for (const dimension of ZERO_DIMENSIONS) {
    const inputs = zeroInputs(specs, dimension)
    if (typeof inputs === 'string') return { type: 'ran', shapes: null, problem: problem ?? inputs }
    try {
      session.run(inputs, names)
      const shapes = Object.fromEntries(inputs.map(({ name, shape }) => [name, [...shape]]))
      return { type: 'ran', shapes, problem: null }
    } catch (thrown) {
      problem ??= messageOf(thrown)
    }
  }
  return { type: 'ran', shapes: null, problem }
}

async function padded(
  { session }: Loaded,
  message: Extract<ToProbe, { readonly type: 'pad' }>,
): Promise<string | null> {
  return await findPaddingProblem({
    ...message,
    run: async ({ inputs, outputNames, pooling }) => {
      const { outputs, computeNs } = session.run(inputs, outputNames)
      return {
        outputs: pooling === undefined ? outputs : outputs.map((output) => poolTokens(output, pooling)),
        computeNs,
      }
    },
  })
}

async function answer(message: ToProbe): Promise<FromProbe> {
  try {
    if (message.type === 'load') {
      if (message.path === null) loadRuntime()
      else loaded = await load(message.path)
      return { type: 'loaded' }
    }
    if (message.type === 'begin') {
      empty = await loadOneOperator()
      await empty.run([{ name: 'x', datatype: 'FP32', shape: [], data: Float32Array.of(0) }], ['y'])
      return { type: 'loaded' }
    }
    if (loaded === undefined) throw new Error('expected a load message first')
    if (message.type === 'pad') return { type: 'padded', problem: await padded(loaded, message) }
    return await run(loaded)
  } catch (thrown) {
    const code = thrown instanceof OnecopyError ? thrown.code : 'MODEL_UNSUPPORTED'
    return { type: 'failed', code, message: messageOf(thrown) }
  }
}

// The pipe closes when the measuring process ends.
const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit(1))
for await (const line of lines) {
  const reply = await answer(ToProbeSchema.parse(JSON.parse(line)))
  // Garbage is not part of the model's cost.
  globalThis.gc?.()
  process.stdout.write(`${JSON.stringify(reply)}\n`)
}
