/**
 * The runtime's settings in a process that is not ours. The runtime reads the C environment, which `process.env` is only
 * on the main thread.
 */
import { createRequire } from 'node:module'
import { isMainThread } from 'node:worker_threads'
import { limitFreePages } from '../mapping.js'
import { MALLOC_LIMITS, RUNTIME_ENVIRONMENT } from './environment.js'

const require = createRequire(import.meta.url)

/** To be called before this process loads the runtime; what its own environment says wins. */
export function prepareRuntimeEnvironment(): void {
  for (const [name, value] of Object.entries(RUNTIME_ENVIRONMENT)) {
    if (process.env[name] !== undefined) continue
    process.env[name] = value
    if (isMainThread) continue
    const koffi = require('koffi') as typeof import('koffi')
    koffi.load(null).func('int setenv(str name, str value, int overwrite)')(name, value, 0)
  }
  limitFreePages(MALLOC_LIMITS)
}
