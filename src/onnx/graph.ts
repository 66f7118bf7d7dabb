/** Reads and rewrites graphs written by the runtime: subgraphs, external tensors and their offsets. */
import { fromBinary, toBinary } from '@bufbuild/protobuf'
import { messageOf, OnecopyError } from '../errors.js'
import { alignUp, PAGE_BYTES } from '../segment/layout.js'
import {
  type GraphProto,
  type ModelProto,
  ModelProtoSchema,
  type NodeProto,
  type TensorProto,
} from './onnx_pb.js'

const EXTERNAL = 1

/**
 * A packed copy of a weight, as recorded by the runtime in external data: `key|offset;length;alignment|...`.
 */
const PREPACKED_KEY = /^prepacked_\d+$/

/**
 * Parses an ONNX file.
 * @throws OnecopyError MODEL_INVALID if the bytes are not an ONNX model.
 */
export function parseModel(bytes: Uint8Array): ModelProto & { graph: GraphProto } {
  let model: ModelProto
  try {
    model = fromBinary(ModelProtoSchema, bytes)
  } catch (thrown) {
    throw new OnecopyError(
      'MODEL_INVALID',
      `expected an ONNX model (a ModelProto), got ${bytes.byteLength} bytes that do not parse: not ONNX, or truncated (${messageOf(thrown)})`,
    )
  }
  const { graph } = model
  if (graph === undefined || graph.output.length === 0) {
    throw new OnecopyError(
      'MODEL_INVALID',
      `expected an ONNX model with a graph that has outputs, got ${graph === undefined ? 'no graph' : 'no outputs'} in ${bytes.byteLength} bytes`,
    )
  }
  return model as ModelProto & { graph: GraphProto }
}

export function serializeModel(model: ModelProto): Uint8Array<ArrayBuffer> {
  return toBinary(ModelProtoSchema, model) as Uint8Array<ArrayBuffer>
}

/** The graph and all its subgraphs, outermost first. */
export function* graphsOf(graph: GraphProto): Generator<GraphProto> {
  yield graph
  for (const node of graph.node) yield* graphsIn(node)
}

function* graphsIn({ attribute }: NodeProto): Generator<GraphProto> {
  for (const { g, graphs } of attribute) {
    if (g !== undefined) yield* graphsOf(g)
    for (const inner of graphs) yield* graphsOf(inner)
  }
}

export function isExternal(tensor: TensorProto): boolean {
  return tensor.dataLocation === EXTERNAL
}

export function externalEntry(tensor: TensorProto, key: string): string | undefined {
  return tensor.externalData.find((entry) => entry.key === key)?.value
}

/**
 * All tensors of a model that can have external data: initializers and tensor attributes, including subgraphs
 * and functions. `external-names.ts` finds the same tensors without parsing the model.
 */
export function* tensorsOf(model: ModelProto & { graph: GraphProto }): Generator<TensorProto> {
  const nodes = model.functions.flatMap((one) => one.node)
  for (const graph of [...graphsOf(model.graph), ...nodes.flatMap((node) => [...graphsIn(node)])]) {
    yield* graph.initializer
    for (const node of graph.node) nodes.push(node)
  }
  for (const { attribute } of nodes) {
    for (const { t, tensors, sparseTensor } of attribute) {
      if (t !== undefined) yield t
      yield* tensors
      if (sparseTensor?.values !== undefined) yield sparseTensor.values
    }
  }
}

/** File names of the model's external data, as spelled in the model. */
export function externalFiles(model: ModelProto & { graph: GraphProto }): string[] {
  const names = new Set<string>()
  for (const tensor of tensorsOf(model)) {
    const location = isExternal(tensor) ? externalEntry(tensor, 'location') : undefined
    if (location !== undefined) names.add(location)
  }
  return [...names].sort()
}

/**
 * Removes duplicate initializers of a graph, keeping the last. The runtime writes the tensors of subgraphs
 * (If, Loop, Scan) inline and again as external copies, and then rejects its own file ("initializer name is
 * not unique").
 */
export function dropDuplicateInitializers(graph: GraphProto): void {
  for (const inner of graphsOf(graph)) {
    const last = new Map(inner.initializer.map((tensor) => [tensor.name, tensor]))
    inner.initializer = inner.initializer.filter((tensor) => last.get(tensor.name) === tensor)
  }
}

function shift(text: string, byBytes: number): string {
  const offset = Number(text)
  if (!Number.isSafeInteger(offset) || offset < 0) {
    throw new OnecopyError(
      'COMPILE_FAILED',
      `expected an offset in the compiled graph, got ${JSON.stringify(text)}`,
    )
  }
  return String(offset + byBytes)
}

/** One packed copy: `key|offset;length;alignment|offset;length;alignment...` with absolute offsets. */
function shiftPrepacked(text: string, byBytes: number): string {
  const [key, ...blobs] = text.split('|')
  return [
    key,
    ...blobs.map((blob) => {
      const [offset, ...rest] = blob.split(';')
      return [shift(offset ?? '', byBytes), ...rest].join(';')
    }),
  ].join('|')
}

/** Total size of the packed copies recorded for a tensor. */
export function packedBytesOf(tensor: TensorProto): number {
  let bytes = 0
  for (const { key, value } of tensor.externalData) {
    if (!PREPACKED_KEY.test(key)) continue
    for (const blob of value.split('|').slice(1)) bytes += Number(blob.split(';')[1])
  }
  return bytes
}

/** Smaller ranges are not worth an entry in the header. */
const MIN_RAW_RANGE_BYTES = 16 * PAGE_BYTES

/**
 * Ranges of raw weights that have a packed copy, in whole pages, as offsets into the data file. Ascending and
 * without overlaps, because equal weights can share a location.
 */
export function rawRangesOf(graph: GraphProto): { readonly offsetBytes: number; readonly bytes: number }[] {
  const ranges: { offsetBytes: number; bytes: number }[] = []
  for (const inner of graphsOf(graph)) {
    for (const tensor of inner.initializer) {
      if (!isExternal(tensor) || packedBytesOf(tensor) === 0) continue
      const offset = Number(externalEntry(tensor, 'offset') ?? 0)
      const from = alignUp(offset, PAGE_BYTES)
      const end = offset + Number(externalEntry(tensor, 'length') ?? 0)
      const to = Math.floor(end / PAGE_BYTES) * PAGE_BYTES
      if (to - from >= MIN_RAW_RANGE_BYTES) ranges.push({ offsetBytes: from, bytes: to - from })
    }
  }
  ranges.sort((a, b) => a.offsetBytes - b.offsetBytes || b.bytes - a.bytes)
  let endBytes = 0
  return ranges.filter(({ offsetBytes, bytes }) => {
    const isFree = offsetBytes >= endBytes
    if (isFree) endBytes = offsetBytes + bytes
    return isFree
  })
}

/** Points every external tensor to `location` and increases its offsets by `byBytes`. */
export function moveExternalData(graph: GraphProto, location: string, byBytes: number): void {
  for (const inner of graphsOf(graph)) {
    for (const tensor of inner.initializer) {
      if (!isExternal(tensor)) continue
      for (const entry of tensor.externalData) {
        if (entry.key === 'location') entry.value = location
        else if (entry.key === 'offset') entry.value = shift(entry.value, byBytes)
        else if (PREPACKED_KEY.test(entry.key)) entry.value = shiftPrepacked(entry.value, byBytes)
      }
    }
  }
}

/**
 * Upper bound for the growth of a graph when its external offsets increase: more digits and longer length
 * fields.
 */
export function offsetGrowthBytes(graph: GraphProto): number {
  const bytesPerOffset = 32
  let offsets = 1
  for (const inner of graphsOf(graph)) {
    for (const tensor of inner.initializer) {
      for (const { value } of tensor.externalData) offsets += value.split('|').length
    }
  }
  return offsets * bytesPerOffset
}
