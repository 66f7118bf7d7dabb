/**
 * The segment: one file per model version.
 *
 *   [ prefix 32 B | header JSON | zeros ] [ graph ] [ zeros ] [ data ]
 *   0                                     headerBytes         data.offsetBytes (64 KiB aligned)
 *
 * The prefix is little-endian: magic (8), format version (u32), reserved header size in bytes (u32), length of
 * the JSON in bytes (u32), CRC-32 of the JSON (u32), zeros (8). The header contains the positions and checksums
 * of graph and data. The graph is an optimised ONNX model whose external tensors refer to this same file by
 * SEGMENT_FILE_NAME and absolute offsets. The data contains the raw weights and the packed copies of the
 * kernels, which the runtime maps itself, range by range.
 *
 * Writers fill a temporary file and rename it; afterwards a file does not change. The only exception: raw weights
 * that only loading needs are released between loads and restored (raw-weights.ts).
 */
import { crc32 } from 'node:zlib'
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import { ProcessIdentitySchema } from '../process/identity.js'
import { DATATYPES, type Datatype } from '../tensor.js'

export const SEGMENT_MAGIC = 'ONECOPY\n'
export const SEGMENT_FORMAT_VERSION = 11
/** The graph refers to its weights by this file name, so a segment works in any folder. */
export const SEGMENT_FILE_NAME = 'model.segment'
/** Name of a segment until it is complete. */
export const TEMPORARY_FILE_NAME = `.${SEGMENT_FILE_NAME}.writing`
export const PREFIX_BYTES = 32
export const DATA_ALIGNMENT_BYTES = 64 * 1024
/** Ranges that are released and restored consist of whole pages. */
export const PAGE_BYTES = 4096
/** Larger headers are rejected: the length is read before anything else can be trusted. */
export const MAX_HEADER_BYTES = 16 * 1024 * 1024

const bytes = z.int().nonnegative()
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)
const tensorSpec = z.object({
  name: z.string(),
  datatype: z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]]),
  shape: z.array(z.int().min(-1)).nullable(),
  /** An input whose default is in the graph as an initializer of the same name. */
  optional: z.literal(true).optional(),
})

export const SharingSchema = z.object({
  state: z.enum(['shared', 'partly shared', 'packed privately', 'not shareable']),
  /** Weights of the optimised graph, in any location. */
  weightsBytes: bytes,
  /** Raw weights in the segment's data. */
  sharedRawBytes: bytes,
  /** Packed kernel-ready copies in the segment's data. */
  sharedPackedBytes: bytes,
  /** Weights that the kernel packs privately in every worker, even if the raw bytes are shared. */
  privatelyPackedBytes: bytes,
  /**
   * Weights inside the graph (node attributes, inline tensors), which every worker parses into its
   * own memory.
   */
  unshareableBytes: bytes,
  /** Human-readable reasons. */
  notes: z.array(z.string()),
})

/** In UTF-16 units. Header space is reserved before the reason is known. */
export const MAX_BATCHING_REASON_CHARACTERS = 300

/** Limit for the name of a node and of its operator. */
export const MAX_NODE_CHARACTERS = 200
export const MAX_RANDOM_CHARACTERS = 300

/**
 * Whether requests can be batched along the first dimension, with a human-readable reason in both
 * cases.
 */
export const BatchingSchema = z.object({
  batchable: z.boolean(),
  reason: z.string().max(MAX_BATCHING_REASON_CHARACTERS),
  /** The node of the compiled graph that combines rows, or for which that cannot be excluded. */
  preventedBy: z
    .object({
      node: z.string().max(MAX_NODE_CHARACTERS),
      operator: z.string().max(MAX_NODE_CHARACTERS),
      remedy: z.string().max(MAX_BATCHING_REASON_CHARACTERS),
    })
    .optional(),
})

/** Limits of a self-check: elements per output, outputs, and bytes in the header's JSON. */
export const MAX_SELF_CHECK_ELEMENTS = 16
export const MAX_SELF_CHECK_OUTPUTS = 8
export const SELF_CHECK_ROOM_BYTES = 16 * 1024

/** Recorded outputs for generated inputs; see src/compile/self-check.ts. */
export const SelfCheckSchema = z.object({
  /** Size of all variable dimensions except the first, which is 1. */
  dimension: z.int().positive(),
  vocabulary: z.int().nonnegative(),
  outputs: z
    .array(
      z.object({
        name: z.string(),
        shape: z.array(z.int().nonnegative()),
        /**
         * Stored numbers, 64-bit integers as digits, or text; numbers that JSON cannot represent
         * are strings such as "NaN".
         */
        elements: z.array(z.union([z.number(), z.string()])).max(MAX_SELF_CHECK_ELEMENTS),
      }),
    )
    .max(MAX_SELF_CHECK_OUTPUTS),
})
export type SelfCheck = z.infer<typeof SelfCheckSchema>

/** Raw weights that also have a packed copy, in whole pages; only loading needs them. */
export const RawRangeSchema = z.object({
  /** Relative to the start of the data. */
  offsetBytes: bytes,
  bytes,
  crc32: z.int().nonnegative(),
})
export type RawRange = z.infer<typeof RawRangeSchema>

/**
 * Limits for the integer divisions in a header, and for the listed elements of a constant operand.
 */
export const MAX_DIVISIONS = 16
export const MAX_HAZARDS = 64

/** The source of an operand of an integer division. */
const operand = z.discriminatedUnion('from', [
  z.object({
    from: z.literal('input'),
    name: z.string(),
    /** Whether its elements reach the division reordered or with another shape. */
    isReshaped: z.boolean(),
  }),
  /** `hazards`: indices of elements equal to the smallest integer (dividend) or -1 (divisor). */
  z.object({
    from: z.literal('constant'),
    shape: z.array(z.int().nonnegative()),
    hazards: z.array(z.int().nonnegative()).max(MAX_HAZARDS),
  }),
  /** Calculated at run time, or too large to list: the values are not known in advance. */
  z.object({ from: z.literal('elsewhere') }),
])

/**
 * An integer division whose operands come from a request; src/inference/division-check.ts uses it
 * to check requests.
 */
export const DivisionSchema = z.object({
  operator: z.enum(['Div', 'Mod']),
  /** For messages; empty if the node has no name. */
  node: z.string(),
  dividend: operand,
  divisor: operand,
  /** Whether dividing the smallest integer by -1 kills the process. */
  hasOverflow: z.boolean(),
})
export type Division = z.infer<typeof DivisionSchema>
export type DivisionOperand = z.infer<typeof operand>

export const SegmentHeaderSchema = z.object({
  /** Digest of everything the content depends on: model, runtime, CPU, options, format. */
  key: sha256,
  createdAt: z.iso.datetime(),
  runtimeVersion: z.string(),
  fileBytes: bytes,
  graph: z.object({ offsetBytes: bytes, bytes, sha256 }),
  data: z.object({ offsetBytes: bytes, bytes, crc32: z.int().nonnegative() }),
  /**
   * 'compiled': weights in `data`, an optimised graph that is loaded without further optimisation.
   * 'original': the unmodified model, because the runtime could not write it in a shareable form.
   */
  form: z.enum(['compiled', 'original']),
  /** Folder of the original external data; only for the form 'original'. */
  externalDataFolder: z.string().nullable(),
  inputs: z.array(tensorSpec),
  outputs: z.array(tensorSpec).min(1),
  /** Outputs of the model that are not served, with the reason. */
  skippedOutputs: z.array(z.object({ name: z.string(), reason: z.string() })),
  /** Ascending and without overlaps. */
  rawRanges: z.array(RawRangeSchema),
  sharing: SharingSchema,
  batching: BatchingSchema,
  /** Human-readable description of the node that draws random numbers; null if there is none. */
  random: z.string().max(MAX_RANDOM_CHARACTERS).nullable(),
  divisions: z.array(DivisionSchema).max(MAX_DIVISIONS),
  /**
   * An operator that makes the cost of a run depend on values, not only on sizes; null where there
   * is none.
   */
  valueDependent: z.string().nullable(),
  /** Null if the model is not deterministic or too slow for a self-check. */
  selfCheck: SelfCheckSchema.nullable(),
  /** The owner of the segment; null in the compile cache. */
  owner: ProcessIdentitySchema.nullable(),
  /** Informational: the model version of the segment; null in the compile cache. */
  model: z.object({ name: z.string(), version: z.string() }).nullable(),
})

export type SegmentHeader = z.infer<typeof SegmentHeaderSchema>
export type Sharing = z.infer<typeof SharingSchema>
export type Batching = z.infer<typeof BatchingSchema>

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment
}

/**
 * Page-aligned header size with space for fields that are not known yet: owner, model, batching,
 * memory requirements and self-check.
 */
export function headerRoomBytes(header: SegmentHeader): number {
  const ownerRoom = 1024
  // JSON encodes a control character in six bytes.
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

/** Length of prefix and header in bytes, read from the first PREFIX_BYTES of the file. */
export function decodePrefix(prefix: Uint8Array): {
  headerBytes: number
  jsonBytes: number
  jsonCrc32: number
} {
  const view = Buffer.from(prefix.buffer, prefix.byteOffset, prefix.byteLength)
  if (view.length < PREFIX_BYTES)
    throw invalid(`expected a prefix of ${PREFIX_BYTES} bytes, got ${view.length}`)
  if (view.toString('latin1', 0, 8) !== SEGMENT_MAGIC)
    throw invalid('expected a segment file, but its magic number is wrong')
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

/** Decodes a header and validates its CRC and schema; `head` is the start of the file. */
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
  if (!inOrder) throw invalid('the header places graph and data outside the file or lets them overlap')
  return header
}
