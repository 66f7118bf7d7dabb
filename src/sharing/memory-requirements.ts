/** What every worker will hold for itself of a model: measured before the model is served, and written into its image. */
import { open } from 'node:fs/promises'
import { updateHeader } from '../compile/image.js'
import { cgroupMemoryLimit } from '../process/memory.js'
import type { MemoryRequirements, SegmentHeader } from '../segment/layout.js'
import { readHeader } from '../segment/write.js'
import { HOLDERS, type Measurement, measureWorker } from './probe.js'

/** Below both, what a model takes is lost among what a worker takes without one, and many start the sooner. */
const MEASURED_FROM_FILE_BYTES = 4 * 1024 * 1024
const MEASURED_FROM_PRIVATE_BYTES = 1024 * 1024

/** Measuring loads a model that has just been loaded; one that takes longer is served all the same. */
const NEEDS_TIMEOUT_MS = 60_000

/** The server, the process that has compiled, those that hold the model, and the one that holds the library alone. */
const MEASURING_PROCESSES = HOLDERS + 3
/** What each takes without a model, measured: 50 to 63 MB. */
const PROCESS_BYTES = 65e6

/** At least: what a kernel packs for itself, and weights that only the graph holds. */
export function leastPrivateBytes({ sharing }: Pick<SegmentHeader, 'sharing'>): number {
  return sharing.privatelyPackedBytes + sharing.unshareableBytes
}

function isWorthMeasuring(header: SegmentHeader): boolean {
  const privateBytes = leastPrivateBytes(header)
  if (header.fileBytes < MEASURED_FROM_FILE_BYTES && privateBytes < MEASURED_FROM_PRIVATE_BYTES) return false
  const limitBytes = cgroupMemoryLimit()
  if (limitBytes === null) return true
  // Where measuring could end in the kernel's hands, and the server with it, the least that it takes has to do.
  const measuringBytes =
    MEASURING_PROCESSES * PROCESS_BYTES +
    header.sharing.weightsBytes +
    header.fileBytes +
    HOLDERS * privateBytes
  return measuringBytes < limitBytes
}

/** Of what another worker costs, what any first model takes is counted with the worker. Noise can make the rest negative. */
export function memoryRequirementsOf({
  perWorkerBytes,
  firstSessionBytes,
  libraryBytes,
}: Measurement): MemoryRequirements {
  return { privateBytes: Math.max(0, perWorkerBytes - (firstSessionBytes - libraryBytes)) }
}

/**
 * Measures a compiled image that has not got its name yet and writes the result into its header. It is left as it is
 * where that is not worth while, or the measurement ends in any other way: a model that loads is served.
 */
export async function recordMemoryRequirements(
  imagePath: string,
  signal: AbortSignal,
  timeoutMs = NEEDS_TIMEOUT_MS,
): Promise<void> {
  await using file = await open(imagePath, 'r+')
  const header = await readHeader(file)
  if (!isWorthMeasuring(header)) return
  const measurement = await measureWorker(imagePath, {
    // One that has no known answer though it could does not run in time, or did not survive its trial runs.
    run: header.selfCheck !== null || header.random !== null,
    signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
  }).catch(() => null)
  if (measurement !== null)
    await updateHeader(file, { memoryRequirements: memoryRequirementsOf(measurement) })
}
