/**
 * Builds the image of a segment: a segment file without an owner, as stored in the compile cache
 * and copied into shared memory by the primary.
 */
import { createHash } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { divisionsOf } from '../onnx/divisions.js'
import { moveExternalData, offsetGrowthBytes, rawRangesOf, serializeModel } from '../onnx/graph.js'
import type { GraphProto, ModelProto } from '../onnx/onnx_pb.js'
import { describeRandomness } from '../onnx/randomness.js'
import { valueDependentOperator } from '../onnx/value-dependent.js'
import type { ModelInterface } from '../repository/interface.js'
import { runtimeVersion } from '../runtime/identity.js'
import { chunksOf, writeFully } from '../segment/io.js'
import {
  alignUp,
  type Batching,
  DATA_ALIGNMENT_BYTES,
  encodeHeader,
  headerRoomBytes,
  type RawRange,
  SEGMENT_FILE_NAME,
  type SegmentHeader,
} from '../segment/layout.js'
import { describeSharing } from './sharing.js'

export interface ImageOptions {
  readonly path: string
  readonly key: string
  readonly form: 'compiled' | 'original'
  readonly model: ModelProto & { graph: GraphProto }
  readonly modelInterface: ModelInterface
  /** Human-readable notes about the weights, in addition to those derived from the graph. */
  readonly notes: readonly string[]
  /** The runtime's data file; null if all weights are in the graph. Removed after it is copied. */
  readonly dataPath: string | null
  readonly externalDataFolder: string | null
  readonly batching: Batching
}

function headerOf(options: ImageOptions): SegmentHeader {
  const sharing = describeSharing(options.model.graph, options.form)
  return {
    key: options.key,
    createdAt: new Date().toISOString(),
    runtimeVersion: runtimeVersion(),
    fileBytes: 0,
    graph: { offsetBytes: 0, bytes: 0, sha256: '0'.repeat(64) },
    data: { offsetBytes: 0, bytes: 0, crc32: 0 },
    form: options.form,
    externalDataFolder: options.externalDataFolder,
    inputs: options.modelInterface.inputs.map((spec) => ({ ...spec, shape: spec.shape && [...spec.shape] })),
    outputs: options.modelInterface.outputs.map((spec) => ({
      ...spec,
      shape: spec.shape && [...spec.shape],
    })),
    skippedOutputs: options.modelInterface.skippedOutputs,
    // The checksums are known after the data is written; until then the longest number is a
    // placeholder.
    rawRanges:
      options.form === 'compiled'
        ? rawRangesOf(options.model.graph).map((range) => ({ ...range, crc32: MAX_CRC32 }))
        : [],
    sharing: { ...sharing, notes: [...options.notes, ...sharing.notes] },
    batching: options.batching,
    random: describeRandomness(options.model),
    divisions: divisionsOf(options.model.graph, options.modelInterface.inputs),
    valueDependent: valueDependentOperator(options.model),
    selfCheck: null,
    owner: null,
    model: null,
  }
}

const MAX_CRC32 = 2 ** 32 - 1

/** Adds a chunk of the data to the checksums of the ranges that it overlaps. */
function addToChecksums(
  sums: number[],
  ranges: readonly RawRange[],
  { position, bytes }: { readonly position: number; readonly bytes: Uint8Array },
): void {
  for (const [i, range] of ranges.entries()) {
    const from = Math.max(range.offsetBytes, position)
    const to = Math.min(range.offsetBytes + range.bytes, position + bytes.length)
    if (from < to) sums[i] = crc32(bytes.subarray(from - position, to - position), sums[i])
  }
}

/**
 * Writes header, graph and data to `path`; returns the header. Changes the offsets in `model`.
 *
 * The file is not synced to the disk, which can take longer than compiling: every use verifies
 * every byte, and an image that was damaged when the machine went down is compiled again.
 */
export async function writeImage(options: ImageOptions): Promise<SegmentHeader> {
  const header = headerOf(options)
  const graphOffsetBytes = headerRoomBytes(header)

  // Larger offsets have more digits, so the position of the data is fixed first, with space for
  // them.
  let dataOffsetBytes = 0
  if (options.form === 'compiled') {
    const upperBoundBytes = serializeModel(options.model).byteLength + offsetGrowthBytes(options.model.graph)
    dataOffsetBytes = alignUp(graphOffsetBytes + upperBoundBytes, DATA_ALIGNMENT_BYTES)
    moveExternalData(options.model.graph, SEGMENT_FILE_NAME, dataOffsetBytes)
  }
  const graph = serializeModel(options.model)
  if (options.form === 'original')
    dataOffsetBytes = alignUp(graphOffsetBytes + graph.byteLength, DATA_ALIGNMENT_BYTES)

  const file = await open(options.path, 'wx+', 0o600)
  try {
    await writeFully(file, graph, graphOffsetBytes)
    let dataBytes = 0
    let dataCrc32 = 0
    const rangeSums = header.rawRanges.map(() => 0)
    if (options.dataPath !== null) {
      const data = await open(options.dataPath)
      try {
        const { size } = await data.stat()
        for await (const { position, bytes } of chunksOf(data, 0, size)) {
          // The thread pool writes it meanwhile.
          const writing = writeFully(file, bytes, dataOffsetBytes + position)
          dataCrc32 = crc32(bytes, dataCrc32)
          addToChecksums(rangeSums, header.rawRanges, { position, bytes })
          await writing
        }
        dataBytes = size
      } finally {
        await data.close()
      }
      await rm(options.dataPath)
    }
    const rawRanges = header.rawRanges.map((range, i) => ({ ...range, crc32: rangeSums[i] as number }))
    const fileBytes = dataOffsetBytes + dataBytes
    const final: SegmentHeader = {
      ...header,
      fileBytes,
      graph: {
        offsetBytes: graphOffsetBytes,
        bytes: graph.byteLength,
        sha256: createHash('sha256').update(graph).digest('hex'),
      },
      data: { offsetBytes: dataOffsetBytes, bytes: dataBytes, crc32: dataCrc32 },
      rawRanges,
    }
    await writeFully(file, encodeHeader(final, graphOffsetBytes), 0)
    await file.truncate(fileBytes)
    return final
  } finally {
    await file.close()
  }
}
