/**
 * The private memory that every worker needs for a model. It is measured before the model is served and
 * stored in the image.
 */

import { open } from 'node:fs/promises'
import { updateHeader } from '../compile/image-header.js'
import { deadlineSignal } from '../process/deadline-signal.js'
import { cgroupMemoryLimit } from '../process/memory.js'
import type { MemoryRequirements, SegmentHeader } from '../segment/layout.js'
import { readHeader } from '../segment/write.js'
import { HOLDERS, type Measurement, measureWorker } from './probe.js'

/** Models below both limits are negligible compared with an empty worker, so they are not measured. */
const MEASURED_FROM_FILE_BYTES = 4 * 1024 * 1024
const MEASURED_FROM_PRIVATE_BYTES = 1024 * 1024

/**
 * Measuring loads a model that has just been loaded; one that takes longer is served without a measurement.
 */
const MEASURE_TIMEOUT_MS = 60_000

/**
 * The server, the compile process, the processes that load the model, and the one that loads only the
 * library.
 */
const MEASURING_PROCESSES = HOLDERS + 3
/** Measured memory of each process without a model: 50 to 63 MB. */
const PROCESS_BYTES = 65e6

/** Lower bound: weights that kernels pack privately, and weights only in the graph. */
export function leastPrivateBytes({ sharing }: Pick<SegmentHeader, 'sharing'>): number {
  return sharing.privatelyPackedBytes + sharing.unshareableBytes
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
 * The cost of another worker without the part that any first model takes, which counts as part of the worker.
 * Noise can make the difference negative.
 */
export function memoryRequirementsOf({
  perWorkerBytes,
  firstSessionBytes,
  libraryBytes,
}: Measurement): MemoryRequirements {
  return { privateBytes: Math.max(0, perWorkerBytes - (firstSessionBytes - libraryBytes)) }
}

/**
 * Measures a compiled image that does not have its final name yet, and writes the result into its header. The
 * image stays unchanged if measuring is not worthwhile or fails: a model that loads is served.
 */
export async function recordMemoryRequirements(
  imagePath: string,
  signal: AbortSignal,
  timeoutMs = MEASURE_TIMEOUT_MS,
): Promise<void> {
  await using file = await open(imagePath, 'r+')
  const header = await readHeader(file)
  if (!isWorthMeasuring(header)) return
  using deadline = deadlineSignal(signal, timeoutMs)
  const measurement = await measureWorker(imagePath, {
    // A model without a self-check is too slow to run or crashed in trial runs, unless it is random.
    run: header.selfCheck !== null || header.random !== null,
    signal: deadline.signal,
  }).catch(() => null)
  if (measurement !== null)
    await updateHeader(file, { memoryRequirements: memoryRequirementsOf(measurement) })
}
