/**
 * The segment: one file per model version.
 *
 *   [ prefix 32 B | header JSON | zeros ] [ graph ] [ zeros ] [ data ]
 *   0                                     headerBytes         data.offsetBytes (64 KiB aligned)
 *
 * The prefix is little-endian: magic (8), format version (u32), header room in bytes (u32), length of
 * the JSON in bytes (u32), CRC-32 of the JSON (u32), zeros (8). The header says where graph and data
 * stand and what they must hash to. The graph is an optimised ONNX model whose external tensors point
 * back into this same file by SEGMENT_FILE_NAME and absolute offset; the data holds the raw weights and
 * the kernels' packed copies, which the runtime maps itself, range by range.
 *
 * A file never changes once it has its name: writers fill a temporary file and rename it. But for one thing: raw weights that
 * only a load needs are taken out of it between loads, and put back (raw-weights.ts).
 */
import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { OnecopyError } from '../errors.js'
import { ProcessIdentitySchema } from '../process/identity.js'
import { DATATYPES, type Datatype } from '../tensor.js'

export const SEGMENT_MAGIC = 'ONECOPY\n'
export const SEGMENT_FORMAT_VERSION = 10
/** The graph names its weights by this file name, so a segment works in any folder without a rewrite. */
export const SEGMENT_FILE_NAME = 'model.segment'
/** What a segment is called until it is whole. */
export const TEMPORARY_FILE_NAME = `.${SEGMENT_FILE_NAME}.writing`
export const PREFIX_BYTES = 32
export const DATA_ALIGNMENT_BYTES = 64 * 1024
/** Parts of a file that come and go by themselves are whole pages. */
export const PAGE_BYTES = 4096
/** Refused above: a header is metadata, and its length is read before anything else is trusted. */
export const MAX_HEADER_BYTES = 16 * 1024 * 1024

const bytes = z.int().nonnegative()
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const tensorSpec = z.object({
  name: z.string(),
  datatype: z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]]),
  shape: z.array(z.int().min(-1)).nullable(),
  /** An input whose default stands in the graph, as an initializer of the same name. */
  optional: z.literal(true).optional(),
})

export const SharingSchema = z.object({
  state: z.enum(['shared', 'partly shared', 'packed privately', 'not shareable']),
  /** Weights of the optimised graph, wherever they stand. */
  weightsBytes: bytes,
  /** Raw weights in the segment's data. */
  sharedRawBytes: bytes,
  /** Kernel-ready copies in the segment's data. */
  sharedPackedBytes: bytes,
  /** Weights whose kernel packs a copy of its own in every worker, whatever is shared. */
  privatelyPackedBytes: bytes,
  /** Weights inside the graph (node attributes, inline tensors): parsed into every worker. */
  unshareableBytes: bytes,
  /** Why, in sentences for a person. */
  notes: z.array(z.string()),
})

/** In UTF-16 units: the header's room is reserved before the reason is known. */
export const MAX_BATCHING_REASON_CHARACTERS = 300

/** Of a node's name, and of its operator's. */
export const MAX_NODE_CHARACTERS = 200
export const MAX_RANDOM_CHARACTERS = 300

/** Whether requests may be gathered along the first dimension, and why, for a person, in both cases. */
export const BatchingSchema = z.object({
  batchable: z.boolean(),
  reason: z.string().max(MAX_BATCHING_REASON_CHARACTERS),
  /** The node of the compiled graph that brings rows together, or for which that cannot be excluded. */
  preventedBy: z
    .object({
      node: z.string().max(MAX_NODE_CHARACTERS),
      operator: z.string().max(MAX_NODE_CHARACTERS),
      remedy: z.string().max(MAX_BATCHING_REASON_CHARACTERS),
    })
    .optional(),
})

/** Elements of an output that a self-check writes down, outputs, and what all of it may take in the header's JSON. */
export const MAX_SELF_CHECK_ELEMENTS = 16
export const MAX_SELF_CHECK_OUTPUTS = 8
export const SELF_CHECK_ROOM_BYTES = 16 * 1024

/** A known answer to made-up inputs; src/compile/self-check.ts makes both. */
export const SelfCheckSchema = z.object({
  /** Size of variable dimensions but the first, which is 1. */
  dimension: z.int().positive(),
  vocabulary: z.int().nonnegative(),
  outputs: z
    .array(
      z.object({
        name: z.string(),
        shape: z.array(z.int().nonnegative()),
        /** Numbers as they are stored, digits of 64-bit integers, text; what JSON cannot write is "NaN". */
        elements: z.array(z.union([z.number(), z.string()])).max(MAX_SELF_CHECK_ELEMENTS),
      }),
    )
    .max(MAX_SELF_CHECK_OUTPUTS),
})
export type SelfCheck = z.infer<typeof SelfCheckSchema>

/** Raw weights with a packed copy, in whole pages: needed by a load and by nothing else. */
export const RawRangeSchema = z.object({
  /** From the start of the data. */
  offsetBytes: bytes,
  bytes,
  crc32: z.int().nonnegative(),
})
export type RawRange = z.infer<typeof RawRangeSchema>

/** Integer divisions that a segment tells of, and elements that it names of a constant operand. */
export const MAX_DIVISIONS = 16
export const MAX_HAZARDS = 64

/** Where an operand of an integer division comes from. */
const operand = z.discriminatedUnion('from', [
  z.object({
    from: z.literal('input'),
    name: z.string(),
    /** Whether its elements reach the division in other places, or under another shape. */
    isReshaped: z.boolean(),
  }),
  /** `hazards`: which of its elements are the smallest integer (of a dividend) or -1 (of a divisor). */
  z.object({
    from: z.literal('constant'),
    shape: z.array(z.int().nonnegative()),
    hazards: z.array(z.int().nonnegative()).max(MAX_HAZARDS),
  }),
  /** Computed, or too large to be told: what it holds is not known before. */
  z.object({ from: z.literal('elsewhere') }),
])

/** An integer division of the graph with operands that a request gives; src/inference/division-check.ts checks requests by it. */
export const DivisionSchema = z.object({
  operator: z.enum(['Div', 'Mod']),
  /** For people; empty where the node has none. */
  node: z.string(),
  dividend: operand,
  divisor: operand,
  /** Whether the smallest integer over -1 ends the process. */
  hasOverflow: z.boolean(),
})
export type Division = z.infer<typeof DivisionSchema>
export type DivisionOperand = z.infer<typeof operand>

/** What every worker holds for itself of the model, beside what any first model takes; null was not measured. */
export const MemoryRequirementsSchema = z.object({ privateBytes: bytes.nullable() })

export const SegmentHeaderSchema = z.object({
  /** Digest of everything the content depends on: model, runtime, CPU, options, format. */
  key: sha256,
  createdAt: z.iso.datetime(),
  runtimeVersion: z.string(),
  fileBytes: bytes,
  graph: z.object({ offsetBytes: bytes, bytes, sha256 }),
  data: z.object({ offsetBytes: bytes, bytes, crc32: z.int().nonnegative() }),
  /**
   * 'compiled': weights in `data`, graph final, to be loaded without optimisation.
   * 'original': the model as it came, which the runtime could not write in a shareable form.
   */
  form: z.enum(['compiled', 'original']),
  /** Folder of the original external data; only in the form 'original'. */
  externalDataFolder: z.string().nullable(),
  inputs: z.array(tensorSpec),
  outputs: z.array(tensorSpec).min(1),
  /** Outputs that exist in the model and are not served, with the reason. */
  skippedOutputs: z.array(z.object({ name: z.string(), reason: z.string() })),
  /** Rising, not over each other. */
  rawRanges: z.array(RawRangeSchema),
  sharing: SharingSchema,
  batching: BatchingSchema,
  memoryRequirements: MemoryRequirementsSchema,
  /** What in the graph draws random numbers, for a person; null where nothing does. */
  random: z.string().max(MAX_RANDOM_CHARACTERS).nullable(),
  divisions: z.array(DivisionSchema).max(MAX_DIVISIONS),
  /** An operator that makes the cost of a run depend on values, not only on sizes; null where there is none. */
  valueDependent: z.string().nullable(),
  /** Null where the model has no answer that is the same every time, or takes too long for one. */
  selfCheck: SelfCheckSchema.nullable(),
  /** Whose segment it is; null in the compile cache. */
  owner: ProcessIdentitySchema.nullable(),
  /** For people: which model version it was written for; null in the compile cache. */
  model: z.object({ name: z.string(), version: z.string() }).nullable(),
})

export type SegmentHeader = z.infer<typeof SegmentHeaderSchema>
export type Sharing = z.infer<typeof SharingSchema>
export type Batching = z.infer<typeof BatchingSchema>
export type MemoryRequirements = z.infer<typeof MemoryRequirementsSchema>

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment
}

/** Room for a header whose owner, model, batching, needs and self-check are not yet known: page-aligned, with space to grow. */
export function headerRoomBytes(header: SegmentHeader): number {
  const ownerRoom = 1024
  // JSON spells a control character with six bytes.
  const reasonRoom = 6 * 2 * (MAX_BATCHING_REASON_CHARACTERS + MAX_NODE_CHARACTERS) + 64
  return alignUp(
    PREFIX_BYTES + Buffer.byteLength(JSON.stringify(header)) + ownerRoom + reasonRoom + SELF_CHECK_ROOM_BYTES,
    PAGE_BYTES,
  )
}

/** Encodes prefix and header into exactly `roomBytes`. */
export function encodeHeader(header: SegmentHeader, roomBytes: number): Buffer {
  const json = Buffer.from(JSON.stringify(header))
  if (PREFIX_BYTES + json.length > roomBytes) {
    throw new OnecopyError(
      'SEGMENT_INVALID',
      `expected a header of at most ${roomBytes - PREFIX_BYTES} bytes, got ${json.length}`,
    )
  }
  const room = Buffer.alloc(roomBytes)
  room.write(SEGMENT_MAGIC, 0, 'latin1')
  room.writeUInt32LE(SEGMENT_FORMAT_VERSION, 8)
  room.writeUInt32LE(roomBytes, 12)
  room.writeUInt32LE(json.length, 16)
  room.writeUInt32LE(crc32(json), 20)
  json.copy(room, PREFIX_BYTES)
  return room
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('SEGMENT_INVALID', message)
}

/** Length in bytes of prefix and header, read from the file's first PREFIX_BYTES. */
export function decodePrefix(prefix: Uint8Array): {
  headerBytes: number
  jsonBytes: number
  jsonCrc32: number
} {
  const view = Buffer.from(prefix.buffer, prefix.byteOffset, prefix.byteLength)
  if (view.length < PREFIX_BYTES)
    throw invalid(`expected a prefix of ${PREFIX_BYTES} bytes, got ${view.length}`)
  if (view.toString('latin1', 0, 8) !== SEGMENT_MAGIC)
    throw invalid('expected a segment file, its magic is wrong')
  const version = view.readUInt32LE(8)
  if (version !== SEGMENT_FORMAT_VERSION) {
    throw invalid(`expected segment format ${SEGMENT_FORMAT_VERSION}, got ${version}`)
  }
  const headerBytes = view.readUInt32LE(12)
  const jsonBytes = view.readUInt32LE(16)
  if (headerBytes > MAX_HEADER_BYTES || PREFIX_BYTES + jsonBytes > headerBytes) {
    throw invalid(
      `expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${headerBytes} with ${jsonBytes} used`,
    )
  }
  return { headerBytes, jsonBytes, jsonCrc32: view.readUInt32LE(20) }
}

/** Decodes and checks a header against its schema and its own CRC; `head` starts at the file's start. */
export function decodeHeader(head: Uint8Array): SegmentHeader {
  const { headerBytes, jsonBytes, jsonCrc32 } = decodePrefix(head.subarray(0, PREFIX_BYTES))
  if (head.byteLength < headerBytes)
    throw invalid(`expected ${headerBytes} header bytes, got ${head.byteLength}`)
  const json = head.subarray(PREFIX_BYTES, PREFIX_BYTES + jsonBytes)
  if (crc32(json) !== jsonCrc32) throw invalid('the header does not match its checksum')
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json))
  } catch {
    throw invalid('the header is not JSON')
  }
  const parsed = SegmentHeaderSchema.safeParse(value)
  if (!parsed.success) throw invalid(`the header does not fit its schema: ${z.prettifyError(parsed.error)}`)
  const header = parsed.data
  const { graph, data, fileBytes } = header
  const inOrder =
    graph.offsetBytes === headerBytes &&
    graph.offsetBytes + graph.bytes <= data.offsetBytes &&
    data.offsetBytes + data.bytes === fileBytes
  if (!inOrder) throw invalid('the header places graph and data outside the file or over each other')
  return header
}
