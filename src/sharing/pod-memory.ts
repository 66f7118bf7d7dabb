/**
 * What a pod must be given for one model version, by the same arithmetic by which the server refuses to start. A pod has to
 * hold the worst moment, not the usual one; there are two.
 *
 * A swap: two generations, each whole, because weights that only a load needs come back for loading, and both in every
 * worker. One worker more, because one that is replaced has its successor beside it.
 * A compilation beside serving: one generation, the workers, and the process that compiles.
 */

import type { SegmentHeader } from '../segment/layout.js'
import { type ModelMemory, modelMemory, servingMemory } from './memory-budget.js'

/** Process and library, and the peak in sizes of the weights: measured 875 MB for a MLP of 200 MB. */
const COMPILE_PROCESS_BYTES = 60e6
const COMPILE_PEAK_FACTOR = 4
const GENERATIONS = 2
/** Bodies, queues, results, and what a heap grows by before it is collected. */
const MARGIN = 1.2
/** Stats pages and records of ownership, of hundreds of workers. */
const BOOKKEEPING_BYTES = 1024 * 1024
const MEBIBYTE = 1024 * 1024

export interface PodModel extends ModelMemory {
  /** Raw weights, which compiling holds several times. */
  readonly weightsBytes: number
}

export interface PodMemory {
  readonly workers: number
  readonly model: PodModel
  /** Of the emptyDir at the segment folder: whole MiB. */
  readonly sizeLimitBytes: number
  /** Of the container, request and limit: whole MiB. */
  readonly memoryBytes: number
  readonly swapBytes: number
  readonly compileBytes: number
}

/** `privateBytes`: what a worker was measured to hold of the model; null where nothing was measured. */
export function podModel(
  header: Pick<SegmentHeader, 'fileBytes' | 'memoryRequirements' | 'sharing'>,
  privateBytes: number | null = null,
): PodModel {
  const memory = modelMemory(header)
  return {
    segmentBytes: memory.segmentBytes,
    privateBytes: Math.max(memory.privateBytes, privateBytes ?? 0),
    weightsBytes: header.sharing.weightsBytes,
  }
}

function wholeMebibytes(bytes: number): number {
  return Math.ceil(bytes / MEBIBYTE) * MEBIBYTE
}

export function podMemory(model: PodModel, workers: number): PodMemory {
  const generations = Array.from({ length: GENERATIONS }, () => model)
  const swapBytes = servingMemory(generations, workers + 1).totalBytes
  const compileBytes =
    servingMemory([model], workers).totalBytes +
    COMPILE_PROCESS_BYTES +
    COMPILE_PEAK_FACTOR * model.weightsBytes
  return {
    workers,
    model,
    sizeLimitBytes: wholeMebibytes(GENERATIONS * model.segmentBytes + BOOKKEEPING_BYTES),
    memoryBytes: wholeMebibytes(MARGIN * Math.max(swapBytes, compileBytes)),
    swapBytes,
    compileBytes,
  }
}
