/**
 * Reads the inputs and outputs of a model from its graph. The runtime's metadata cannot distinguish a scalar
 * from a tensor of unknown rank.
 */
import { OnecopyError } from '../errors.js'
import type { GraphProto, ValueInfoProto } from '../onnx/onnx_pb.js'
import type { Datatype, TensorSpec } from '../tensor.js'

/** TensorProto.DataType numbers. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto */
const ELEMENT_TYPES: Record<number, { readonly onnx: string; readonly datatype: Datatype | null }> = {
  1: { onnx: 'float', datatype: 'FP32' },
  2: { onnx: 'uint8', datatype: 'UINT8' },
  3: { onnx: 'int8', datatype: 'INT8' },
  4: { onnx: 'uint16', datatype: 'UINT16' },
  5: { onnx: 'int16', datatype: 'INT16' },
  6: { onnx: 'int32', datatype: 'INT32' },
  7: { onnx: 'int64', datatype: 'INT64' },
  8: { onnx: 'string', datatype: 'BYTES' },
  9: { onnx: 'bool', datatype: 'BOOL' },
  10: { onnx: 'float16', datatype: 'FP16' },
  11: { onnx: 'double', datatype: 'FP64' },
  12: { onnx: 'uint32', datatype: 'UINT32' },
  13: { onnx: 'uint64', datatype: 'UINT64' },
  14: { onnx: 'complex64', datatype: null },
  15: { onnx: 'complex128', datatype: null },
  16: { onnx: 'bfloat16', datatype: 'BF16' },
  17: { onnx: 'float8e4m3fn', datatype: null },
  18: { onnx: 'float8e4m3fnuz', datatype: null },
  19: { onnx: 'float8e5m2', datatype: null },
  20: { onnx: 'float8e5m2fnuz', datatype: null },
  21: { onnx: 'uint4', datatype: null },
  22: { onnx: 'int4', datatype: null },
  23: { onnx: 'float4e2m1', datatype: null },
  24: { onnx: 'float8e8m0', datatype: null },
  25: { onnx: 'uint2', datatype: null },
  26: { onnx: 'int2', datatype: null },
}

const KIND_NAMES: Record<string, string> = {
  sequenceType: 'a sequence',
  mapType: 'a map',
  sparseTensorType: 'a sparse tensor',
  optionalType: 'an optional value',
}

/** The protocol's datatype for an element type; null if there is none. */
export function datatypeOf(elementType: number): Datatype | null {
  return ELEMENT_TYPES[elementType]?.datatype ?? null
}

/** Element type names of the binding that differ from ONNX. */
const BINDING_TYPES: Record<string, string> = { float32: 'float', float64: 'double' }

/** TensorProto.DataType for a type name of the binding. */
export function elementTypeOf(bindingType: string): number {
  const onnx = BINDING_TYPES[bindingType] ?? bindingType
  const found = Object.entries(ELEMENT_TYPES).find(([, one]) => one.onnx === onnx)
  if (found === undefined) throw unsupported(`an output has element type ${bindingType}`)
  return Number(found[0])
}

export interface ModelInterface {
  readonly inputs: TensorSpec[]
  readonly outputs: TensorSpec[]
  readonly skippedOutputs: { name: string; reason: string }[]
}

function shapeOf(value: ValueInfoProto): number[] | null {
  if (value.type?.value.case !== 'tensorType') return null
  const shape = value.type.value.value.shape
  if (shape === undefined) return null
  return shape.dim.map((dim) => {
    const size = dim.value.case === 'dimValue' ? Number(dim.value.value) : -1
    return size >= 0 ? size : -1
  })
}

/** Dimension names (dim_param) by value; '' for an unnamed dimension. */
export function dimensionNames(values: readonly ValueInfoProto[]): Map<string, string[]> {
  return new Map(
    values.map(({ name, type }) => {
      const dims = type?.value.case === 'tensorType' ? (type.value.value.shape?.dim ?? []) : []
      return [name, dims.map((dim) => (dim.value.case === 'dimParam' ? dim.value.value : ''))]
    }),
  )
}

function unsupported(message: string): OnecopyError {
  return new OnecopyError('MODEL_UNSUPPORTED', message)
}

/** Whether a value is declared without a type. */
export function isUndeclared({ type }: ValueInfoProto): boolean {
  const { case: kind, value } = type?.value ?? {}
  return kind === undefined || (kind === 'tensorType' && value?.elemType === 0)
}

const UNDECLARED = {
  input: 'a value without a declared type',
  // The runtime reported that the output is not a tensor.
  output: 'a sequence, a map or an optional value',
} as const

function tensorSpec(role: 'input' | 'output', value: ValueInfoProto): TensorSpec | { kind: string } {
  const type = value.type?.value
  if (type?.case !== 'tensorType') return { kind: KIND_NAMES[type?.case ?? ''] ?? UNDECLARED[role] }
  const element = ELEMENT_TYPES[type.value.elemType]
  if (element?.datatype == null) {
    throw unsupported(
      `${role} ${JSON.stringify(value.name)} has element type ${element?.onnx ?? type.value.elemType}: expected one for which ` +
        'the protocol has a datatype (bool, int8 to int64, uint8 to uint64, float16, bfloat16, float, double, string)',
    )
  }
  return { name: value.name, datatype: element.datatype, shape: shapeOf(value) }
}

/**
 * Rejects unsupported declared types before the runtime loads the model.
 * @throws OnecopyError MODEL_UNSUPPORTED.
 */
export function checkDeclared(graph: GraphProto): void {
  const initialized = new Set(graph.initializer.map((tensor) => tensor.name))
  for (const value of graph.input) if (!initialized.has(value.name)) tensorSpec('input', value)
  for (const value of graph.output) if (!isUndeclared(value)) tensorSpec('output', value)
}

/**
 * Reads the inputs and outputs of a graph.
 * @param optional Inputs that have a default.
 * @throws OnecopyError MODEL_UNSUPPORTED for an input that is not a tensor, for element types without a
 *   datatype (the runtime aborts the process on some of them), and if no output is a tensor.
 */
export function readInterface(graph: GraphProto, optional: ReadonlySet<string> = new Set()): ModelInterface {
  // Before IR version 4 every initializer is also listed as an input. Clients must not send either.
  const initialized = new Set(graph.initializer.map((tensor) => tensor.name))
  const inputs: TensorSpec[] = []
  for (const value of graph.input) {
    if (initialized.has(value.name)) continue
    const spec = tensorSpec('input', value)
    if ('kind' in spec) {
      throw unsupported(
        `input ${JSON.stringify(value.name)} is ${spec.kind}: expected every input to be a tensor`,
      )
    }
    inputs.push(optional.has(spec.name) ? { ...spec, optional: true } : spec)
  }
  const outputs: TensorSpec[] = []
  const skippedOutputs: { name: string; reason: string }[] = []
  for (const value of graph.output) {
    const spec = tensorSpec('output', value)
    if ('kind' in spec) skippedOutputs.push({ name: value.name, reason: `is ${spec.kind}, not a tensor` })
    else outputs.push(spec)
  }
  if (outputs.length === 0) {
    throw unsupported(`expected at least one tensor output, got only ${graph.output.length} other outputs`)
  }
  return { inputs, outputs, skippedOutputs }
}
