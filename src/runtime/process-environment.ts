/**
 * The runtime's settings in a process that is not ours. The runtime reads the C environment, which
 * `process.env` is only on the main thread.
 */
import { createRequire } from 'node:module'
import { isMainThread } from 'node:worker_threads'
import { limitFreePages } from '../mapping.js'
import { MALLOC_LIMITS, RUNTIME_ENVIRONMENT } from './environment.js'

const require = createRequire(import.meta.url)

/** Variables of glibc that set the thresholds, or can. Source: mallopt(3). */
const MALLOC_VARIABLES = ['MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES']

/** To be called before this process loads a model; what its own environment says wins. */
export function prepareRuntimeEnvironment(): void {
  for (const [name, value] of Object.entries(RUNTIME_ENVIRONMENT)) {
    if (process.env[name] !== undefined) continue
    process.env[name] = value
    if (isMainThread) continue
    const koffi = require('koffi') as typeof import('koffi')
    koffi.load(null).func('int setenv(str name, str value, int overwrite)')(name, value, 0)
  }
  if (MALLOC_VARIABLES.every((name) => process.env[name] === undefined)) limitFreePages(MALLOC_LIMITS)
}
