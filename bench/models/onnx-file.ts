/**
 * Writes ONNX files as a stream. Only the structure of the graph is built in memory; weights are generated in
 * chunks while they are written, so a model of any size needs one or two megabytes. This works because a
 * protobuf message may have its fields in any order, and because the lengths of all weights are known in
 * advance.
 */
import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { type FileHandle, open, rename } from 'node:fs/promises'
import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { GraphProtoSchema, ModelProtoSchema, TensorProtoSchema } from '../../src/onnx/onnx_pb.js'

const IR_VERSION = 8n
const OPSET_VERSION = 18n
/** Version of every other domain. */
const EXTRA_OPSET_VERSION = 3n
const LENGTH_DELIMITED = 2
/** Field numbers of onnx.proto. */
const MODEL_GRAPH = 7
const GRAPH_INITIALIZER = 5
const TENSOR_RAW_DATA = 9

export const FLOAT = 1
export const INT8 = 3
export const INT64 = 7

export interface Weight {
  readonly name: string
  /** A TensorProto.DataType. */
  readonly dataType: typeof FLOAT | typeof INT8 | typeof INT64
  readonly dims: readonly number[]
  readonly bytes: number
  /** The elements, little-endian, in chunks. */
  readonly chunks: () => Iterable<Uint8Array>
}

export interface OnnxModel {
  /** The graph without its initializers. */
  readonly graph: MessageInitShape<typeof GraphProtoSchema>
  readonly weights: readonly Weight[]
  /** Domains of operators outside standard ONNX. */
  readonly domains: readonly string[]
}

export interface WrittenFile {
  readonly bytes: number
  readonly sha256: string
}

function varint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80)
  bytes.push(rest)
  return Uint8Array.from(bytes)
}

/** Tag and length of a length-delimited field. */
function fieldHead(fieldNumber: number, lengthBytes: number): Uint8Array {
  return Buffer.concat([varint(fieldNumber * 8 + LENGTH_DELIMITED), varint(lengthBytes)])
}

/** Everything of an initializer before its raw bytes. */
function weightHead({ name, dataType, dims, bytes }: Weight): Uint8Array {
  const described = create(TensorProtoSchema, { name, dataType, dims: dims.map(BigInt) })
  const tensor = Buffer.concat([toBinary(TensorProtoSchema, described), fieldHead(TENSOR_RAW_DATA, bytes)])
  return Buffer.concat([fieldHead(GRAPH_INITIALIZER, tensor.length + bytes), tensor])
}

function* fileParts({ graph, weights, domains }: OnnxModel): Iterable<Uint8Array> {
  const structure = toBinary(GraphProtoSchema, create(GraphProtoSchema, graph))
  const heads = weights.map(weightHead)
  let graphBytes = structure.length
  for (const [index, { bytes }] of weights.entries()) graphBytes += (heads[index]?.length ?? 0) + bytes
  const model = create(ModelProtoSchema, {
    irVersion: IR_VERSION,
    producerName: 'onecopy-bench',
    opsetImport: [
      { version: OPSET_VERSION },
      ...domains.map((domain) => ({ domain, version: EXTRA_OPSET_VERSION })),
    ],
  })
  yield Buffer.concat([toBinary(ModelProtoSchema, model), fieldHead(MODEL_GRAPH, graphBytes), structure])
  for (const [index, { chunks }] of weights.entries()) {
    yield heads[index] ?? new Uint8Array()
    yield* chunks()
  }
}

async function writeParts(file: FileHandle, parts: Iterable<Uint8Array>): Promise<WrittenFile> {
  const hash = createHash('sha256')
  let bytes = 0
  for (const part of parts) {
    hash.update(part)
    await file.write(part)
    bytes += part.length
  }
  return { bytes, sha256: hash.digest('hex') }
}

/** Writes to a temporary file and renames it: a file at `path` is always complete. */
export async function writeOnnxFile(path: string, model: OnnxModel): Promise<WrittenFile> {
  const temporaryPath = `${path}.${process.pid}.part`
  const remove = () => rmSync(temporaryPath, { force: true })
  // A process that is stopped meanwhile leaves no partial file.
  process.once('exit', remove)
  try {
    const file = await open(temporaryPath, 'w')
    try {
      const written = await writeParts(file, fileParts(model))
      await rename(temporaryPath, path)
      return written
    } finally {
      await file.close()
    }
  } finally {
    process.off('exit', remove)
    remove()
  }
}
