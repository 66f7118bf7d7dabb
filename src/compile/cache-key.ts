/** The cache key of a compiled image. */
import { createHash } from 'node:crypto'
import { cpuDigest, runtimeVersion } from '../runtime/identity.js'
import { COMPILE_OPTIONS } from '../runtime/session.js'
import { SEGMENT_FORMAT_VERSION } from '../segment/layout.js'

/** The same model, runtime, CPU, options and format produce the same image. */
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
