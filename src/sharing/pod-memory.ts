/**
 * Calculates the memory limits of a pod for one model version, with the same arithmetic that the server uses
 * at startup. A pod must handle the worst case, of which there are two:
 * - A swap: two complete generations, because weights needed only for loading are restored for it, and both
 *   in every worker. One additional worker, because a replaced worker overlaps with its successor.
 * - A compilation while serving: one generation, the workers and the compile process.
 */

import type { SegmentHeader } from '../segment/layout.js'
import { type ModelMemory, modelMemory, servingMemory } from './memory-budget.js'

/**
 * The process with its library, and the peak as a multiple of the weights: measured 875 MB for a
 * 200 MB MLP.
 */
const COMPILE_PROCESS_BYTES = 60e6
const COMPILE_PEAK_FACTOR = 4
const GENERATIONS = 2
/** For bodies, queues, results, and heap growth before garbage collection. */
const MARGIN = 1.2
/** Stats pages and ownership records of hundreds of workers. */
const BOOKKEEPING_BYTES = 1024 * 1024
const MEBIBYTE = 1024 * 1024

export interface PodModel extends ModelMemory {
  /** Raw weights, of which compilation holds several copies. */
  readonly weightsBytes: number
}

export interface PodMemory {
  readonly workers: number
  readonly model: PodModel
  /** sizeLimit of the emptyDir for the segment folder, in whole MiB. */
  readonly sizeLimitBytes: number
  /** Request and limit of the container, in whole MiB. */
  readonly memoryBytes: number
  readonly swapBytes: number
  readonly compileBytes: number
}

/** `privateBytes`: measured private memory per worker; null if not measured. */
export function podModel(
  header: Pick<SegmentHeader, 'fileBytes' | 'sharing'>,
  privateBytes: number | null = null,
): PodModel {
  return { ...modelMemory({ ...header, privateBytes }), weightsBytes: header.sharing.weightsBytes }
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
