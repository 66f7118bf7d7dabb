/** What an image in the compile cache depends on. */
import { createHash } from 'node:crypto'
import { cpuDigest, runtimeVersion } from '../runtime/identity.js'
import { COMPILE_OPTIONS } from '../runtime/session.js'
import { SEGMENT_FORMAT_VERSION } from '../segment/layout.js'

/** The same model on the same runtime, CPU, options and format gives the same image. */
export function cacheKey(modelDigest: string): string {
  const parts = {
    model: modelDigest,
    runtime: runtimeVersion(),
    cpu: cpuDigest(),
    options: COMPILE_OPTIONS,
    format: SEGMENT_FORMAT_VERSION,
  }
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex')
}
