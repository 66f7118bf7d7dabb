/**
 * A probe process: it attaches and loads a segment as a worker does, without HTTP around it, so that what
 * it holds beyond a process with the library alone is what the model costs.
 */
import { create } from '@bufbuild/protobuf'
import { messageOf, OnecopyError } from '../src/errors.js'
import { serializeModel } from '../src/model/graph.js'
import { GraphProtoSchema, ModelProtoSchema, ValueInfoProtoSchema } from '../src/model/onnx_pb.js'
import { ZERO_DIMENSIONS, zeroInputs } from '../src/model/zero-inputs.js'
import { loadRuntime, Session } from '../src/runtime/session.js'
import { attachSegment, type SegmentReference } from '../src/segment/attach.js'
import type { SegmentHeader } from '../src/segment/layout.js'
import { type FromProbe, type ToProbe, ToProbeSchema } from './probe-messages.js'

interface Loaded {
  readonly session: Session
  readonly header: SegmentHeader
}

let loaded: Loaded | undefined
/** Held for as long as the process is measured. */
let empty: Session | undefined

async function load(reference: SegmentReference): Promise<Loaded> {
  const { header, graph, folder } = await attachSegment(reference)
  const { form, inputs, outputs, externalDataFolder } = header
  const session = await Session.load({
    // A copy, as the inference thread of a worker is given one.
    graph: graph.slice(),
    folder: form === 'compiled' ? folder : externalDataFolder,
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
  return await Session.load({
    ...{ graph: bytes, folder: null, form: 'original', threads: 1 },
    inputs: [{ name: 'x', ...spec }],
    outputs: [{ name: 'y', ...spec }],
  })
}

async function run({ session, header }: Loaded): Promise<FromProbe> {
  const asked = new Set(session.inputNames)
  const specs = header.inputs.filter(({ name }) => asked.has(name))
  const names = header.outputs.map(({ name }) => name)
  let problem: string | null = null
  for (const dimension of ZERO_DIMENSIONS) {
    const inputs = zeroInputs(specs, dimension)
    if (typeof inputs === 'string') return { type: 'ran', shapes: null, problem: problem ?? inputs }
    try {
      await session.run(inputs, names)
      const shapes = Object.fromEntries(inputs.map(({ name, shape }) => [name, [...shape]]))
      return { type: 'ran', shapes, problem: null }
    } catch (thrown) {
      problem ??= messageOf(thrown)
    }
  }
  return { type: 'ran', shapes: null, problem }
}

async function answer(message: ToProbe): Promise<FromProbe> {
  try {
    if (message.type === 'load') {
      if (message.segment === null) loadRuntime()
      else loaded = await load(message.segment)
      return { type: 'loaded' }
    }
    if (message.type === 'begin') {
      empty = await loadOneOperator()
      await empty.run([{ name: 'x', datatype: 'FP32', shape: [], data: Float32Array.of(0) }], ['y'])
      return { type: 'loaded' }
    }
    if (loaded === undefined) throw new Error('expected to be told what to load first')
    return await run(loaded)
  } catch (thrown) {
    const code = thrown instanceof OnecopyError ? thrown.code : 'MODEL_UNSUPPORTED'
    return { type: 'failed', code, message: messageOf(thrown) }
  }
}

process.on('message', async (raw) => {
  const reply = await answer(ToProbeSchema.parse(raw))
  // What is no longer used is no cost of the model.
  globalThis.gc?.()
  process.send?.(reply)
})
// The one who asked is gone.
process.on('disconnect', () => process.exit(1))
