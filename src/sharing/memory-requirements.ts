/**
 * The private memory that every worker needs for a model. It is measured before the model is served
 * if the server's memory limit could be reached, and kept in the compile cache.
 */

import type { CompileCache } from '../compile/cache.js'
import { findMemoryRecord, keepMemoryRecord } from '../compile/memory-record.js'
import { deadlineSignal } from '../process/deadline-signal.js'
import { cgroupMemoryLimit } from '../process/memory.js'
import type { SegmentHeader } from '../segment/layout.js'
import { secondSessionBytes } from '../segment/second-session.js'
import type { SegmentFile } from '../segment/write.js'
import { HOLDERS, type Measurement, measureWorker } from './probe.js'

/**
 * Models below both limits are negligible compared with an empty worker, so they are not measured.
 */
const MEASURED_FROM_FILE_BYTES = 4 * 1024 * 1024
const MEASURED_FROM_PRIVATE_BYTES = 1024 * 1024

/**
 * Measuring loads a model that has just been loaded; one that takes longer is served without a
 * measurement.
 */
const MEASURE_TIMEOUT_MS = 60_000

/**
 * The server, the compile process, the processes that load the model, and the one that loads only
 * the library.
 */
const MEASURING_PROCESSES = HOLDERS + 3
/** Measured memory of each process without a model: 50 to 63 MB. */
const PROCESS_BYTES = 65e6

/** Lower bound: weights that kernels pack privately, and weights only in the graph. */
export function leastPrivateBytes({ sharing }: Pick<SegmentHeader, 'sharing'>): number {
  return sharing.privatelyPackedBytes + sharing.unshareableBytes
}

/** For packed copies that the analysis of the graph does not know of, and for activations. */
const MOST_WEIGHTS_FACTOR = 3
const MOST_ACTIVATION_BYTES = 128 * 1024 * 1024

/** Upper bound without a measurement. */
export function mostPrivateBytes({ sharing }: Pick<SegmentHeader, 'sharing'>): number {
  return leastPrivateBytes({ sharing }) + MOST_WEIGHTS_FACTOR * sharing.weightsBytes + MOST_ACTIVATION_BYTES
}

function isWorthMeasuring(header: SegmentHeader): boolean {
  const privateBytes = leastPrivateBytes(header)
  if (header.fileBytes < MEASURED_FROM_FILE_BYTES && privateBytes < MEASURED_FROM_PRIVATE_BYTES) return false
  const limitBytes = cgroupMemoryLimit()
  if (limitBytes === null) return true
  // If measuring could trigger the OOM killer, the lower bound is used.
  const measuringBytes =
    MEASURING_PROCESSES * PROCESS_BYTES +
    header.sharing.weightsBytes +
    header.fileBytes +
    HOLDERS * privateBytes
  return measuringBytes < limitBytes
}

/**
 * The cost of another worker in bytes, without the part that any first model takes, which counts as
 * part of the worker. Noise can make the difference negative. Without the second session of a
 * worker: the measured processes have one.
 */
export function privateBytesOf({ perWorkerBytes, firstSessionBytes, libraryBytes }: Measurement): number {
  return Math.max(0, perWorkerBytes - (firstSessionBytes - libraryBytes))
}

/** What `measureSegment` needs to know of a server. */
export interface MeasuringOptions {
  readonly cache: CompileCache
  /** Whether memory suffices even for the upper bound of this model. */
  readonly hasRoom: boolean
  readonly signal: AbortSignal
  readonly timeoutMs?: number
}

/**
 * The private memory per worker for a segment, in bytes: measured earlier, or now if the server's
 * limit could be reached. Null if it is unknown: memory suffices in any case, measuring is not
 * worthwhile, or it failed. A model that loads is served.
 */
export async function measureSegment(
  { path, header }: Pick<SegmentFile, 'path' | 'header'>,
  { cache, hasRoom, signal, timeoutMs = MEASURE_TIMEOUT_MS }: MeasuringOptions,
): Promise<number | null> {
  const known = await findMemoryRecord(cache, header.key)
  if (known !== null || hasRoom || !isWorthMeasuring(header)) return known
  using deadline = deadlineSignal(signal, timeoutMs)
  const measurement = await measureWorker(path, {
    // A model without a self-check is too slow to run or crashed in trial runs, unless it is
    // random.
    run: header.selfCheck !== null || header.random !== null,
    signal: deadline.signal,
  }).catch(() => null)
  if (measurement === null) return null
  const privateBytes = privateBytesOf(measurement) + secondSessionBytes(header)
  await keepMemoryRecord(cache, header.key, privateBytes)
  return privateBytes
}
