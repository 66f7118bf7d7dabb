/**
 * Inputs with a default value: an initializer of the same name, from IR version 4 on. Before that, every
 * initializer was also listed as an input and was a constant. They are optional inputs. The runtime's
 * JavaScript binding cannot feed them: it only knows required inputs and silently drops others. So the
 * default is removed from the compiled graph, which makes the input an ordinary one, and the server feeds the
 * default if a request omits the input.
 *
 * Exporters that keep initializers as inputs list all weights of a model, which no client sends. As inputs they
 * would not be folded, packed or shared. Such initializers become constants. See
 * docs/decisions/025-bounds.md.
 */
import { create } from '@bufbuild/protobuf'
import { parseModel, serializeModel } from '../onnx/graph.js'
import {
  type GraphProto,
  GraphProtoSchema,
  type ModelProto,
  ModelProtoSchema,
  NodeProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  ValueInfoProtoSchema,
} from '../onnx/onnx_pb.js'
import { datatypeOf } from '../repository/interface.js'
import { Session } from '../runtime/session.js'
import { DATATYPES, elementCount, type Tensor, type TensorSpec } from '../tensor.js'
import { formatBytes } from '../units.js'

type Model = ModelProto & { graph: GraphProto }

/** First IR version in which an initializer that is also an input can be overridden. */
const DEFAULTS_FROM_IR_VERSION = 4n
/** Models have a few optional inputs; exporters list hundreds of weights. */
const MAX_OPTIONAL_INPUTS = 16
/** Every worker holds its own copy of the defaults. */
const MAX_DEFAULT_BYTES = 1024 * 1024

export interface Defaults {
  /** Names of the optional inputs. */
  readonly optional: ReadonlySet<string>
  /** Their defaults, always inline as raw data. */
  readonly tensors: readonly TensorProto[]
  /** Human-readable reasons why inputs with a default are treated as constants. */
  readonly notes: readonly string[]
  /** Whether the graph was changed. */
  readonly hasChanges: boolean
}

const NONE: Defaults = { optional: new Set(), tensors: [], notes: [], hasChanges: false }

function specOf({ name, dims, dataType }: TensorProto): TensorSpec | null {
  const datatype = datatypeOf(dataType)
  // The binding has no bfloat16, and string data is not parsed here.
  if (datatype === null || datatype === 'BF16' || datatype === 'BYTES') return null
  return { name, datatype, shape: dims.map(Number) }
}

function bytesOf({ datatype, shape }: TensorSpec): number {
  return elementCount(shape ?? []) * (DATATYPES[datatype].bytes ?? 0)
}

/** Lets the runtime read the tensors, whatever their encoding or location. */
async function evaluate(
  model: Model,
  tensors: readonly TensorProto[],
  { specs, folder }: { readonly specs: readonly TensorSpec[]; readonly folder: string },
): Promise<Tensor[]> {
  const outputs = specs.map((spec) => ({ ...spec, name: `${spec.name}/value` }))
  const graph = create(GraphProtoSchema, {
    name: 'defaults',
    initializer: [...tensors],
    node: tensors.map(({ name }) =>
      create(NodeProtoSchema, { opType: 'Identity', input: [name], output: [`${name}/value`] }),
    ),
    output: tensors.map(({ name, dims, dataType: elemType }) =>
      create(ValueInfoProtoSchema, {
        name: `${name}/value`,
        type: {
          value: {
            case: 'tensorType',
            value: {
              elemType,
              shape: { dim: dims.map((size) => ({ value: { case: 'dimValue' as const, value: size } })) },
            },
          },
        },
      }),
    ),
  })
  const { irVersion, opsetImport } = model
  const bytes = serializeModel(create(ModelProtoSchema, { irVersion, opsetImport, graph }))
  const session = Session.load({
    ...{ graph: bytes, folder, form: 'original', threads: 1 },
    inputs: [],
    outputs,
  })
  try {
    const names = outputs.map(({ name }) => name)
    return [...session.run([], names).outputs]
  } finally {
    session.close()
  }
}

function inline(tensor: TensorProto, { data }: Tensor): TensorProto {
  if (!ArrayBuffer.isView(data)) throw new Error(`expected numbers as default of ${tensor.name}`)
  const { name, dims, dataType } = tensor
  const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return create(TensorProtoSchema, { name, dims, dataType, rawData })
}

/** Initializers that stay in the graph are constants only if they are not listed as inputs. */
function makeConstant(graph: GraphProto, names: ReadonlySet<string>): void {
  graph.input = graph.input.filter(({ name }) => !names.has(name))
}

/** Finds the optional inputs of a model and removes their defaults from its graph, in place. */
export async function takeDefaults(model: Model, folder: string): Promise<Defaults> {
  const { graph } = model
  if (model.irVersion < DEFAULTS_FROM_IR_VERSION) return NONE
  const inputs = new Set(graph.input.map(({ name }) => name))
  const listed = graph.initializer.filter(({ name }) => inputs.has(name))
  if (listed.length === 0) return NONE
  const found = listed.flatMap((tensor) => {
    const spec = specOf(tensor)
    return spec === null ? [] : [{ tensor, spec }]
  })
  const totalBytes = found.reduce((sum, { spec }) => sum + bytesOf(spec), 0)
  const constant = (why: string): Defaults => {
    makeConstant(graph, new Set(listed.map(({ name }) => name)))
    const notes = [`${listed.length} initializers that are also inputs became constants: ${why}`]
    return { ...NONE, notes, hasChanges: true }
  }
  if (listed.length > MAX_OPTIONAL_INPUTS || !(totalBytes <= MAX_DEFAULT_BYTES)) {
    return constant(
      `at most ${MAX_OPTIONAL_INPUTS} optional inputs with ${formatBytes(MAX_DEFAULT_BYTES)} in total are supported, these have ${formatBytes(totalBytes)}`,
    )
  }
  if (found.length === 0) return constant('optional inputs of type string or bfloat16 are not supported')
  const tensors = found.map(({ tensor }) => tensor)
  let values: Tensor[]
  try {
    values = await evaluate(model, tensors, { specs: found.map(({ spec }) => spec), folder })
  } catch {
    // Compilation reports what is wrong with them.
    return constant('their defaults cannot be read')
  }
  const optional = new Set(tensors.map(({ name }) => name))
  makeConstant(graph, new Set(listed.map(({ name }) => name).filter((name) => !optional.has(name))))
  graph.initializer = graph.initializer.filter(({ name }) => !optional.has(name))
  return {
    optional,
    tensors: tensors.map((tensor, i) => inline(tensor, values[i] as Tensor)),
    notes: [],
    hasChanges: true,
  }
}

/** Splits a graph into the form the runtime loads and the defaults of its optional inputs. */
export function separateDefaults(
  bytes: Uint8Array<ArrayBuffer>,
  inputs: readonly TensorSpec[],
): { readonly graph: Uint8Array<ArrayBuffer>; readonly defaults: Tensor[] } {
  const optional = new Map(inputs.filter((spec) => spec.optional === true).map((spec) => [spec.name, spec]))
  if (optional.size === 0) return { graph: bytes, defaults: [] }
  const model = parseModel(bytes)
  const defaults: Tensor[] = []
  model.graph.initializer = model.graph.initializer.filter((tensor) => {
    const spec = optional.get(tensor.name)
    if (spec === undefined) return true
    const { storage } = DATATYPES[spec.datatype]
    if (storage === null) throw new Error(`expected numbers as default of ${tensor.name}`)
    // A copy, because typed arrays require alignment.
    const data = new storage(Uint8Array.from(tensor.rawData).buffer)
    defaults.push({ name: tensor.name, datatype: spec.datatype, shape: tensor.dims.map(Number), data })
    return false
  })
  return { graph: serializeModel(model), defaults }
}
