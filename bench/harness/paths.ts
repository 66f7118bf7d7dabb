/** Paths. Compiled code runs from OUT/bench/harness, and OUT is in the package folder. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const COMPILED_ROOT = fileURLToPath(new URL('../../', import.meta.url))
export const PACKAGE_ROOT = fileURLToPath(new URL('../../../', import.meta.url))
export const RESULTS_DIR = join(PACKAGE_ROOT, 'bench', 'results')

/** Generated and compiled models: kept between runs, outside the source tree, safe to delete. */
export const SCRATCH_DIR = join(tmpdir(), 'onecopy-bench')
export const CACHE_DIR = join(SCRATCH_DIR, 'cache')
export const MODELS_DIR = join(SCRATCH_DIR, 'models')
