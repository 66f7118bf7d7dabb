/** How each HTTP variant is started. */
import { join } from 'node:path'
import type { GeneratedModel } from '../models/store.js'
import type { ChildServer } from './child-server.js'
import { CACHE_DIR, COMPILED_ROOT } from './paths.js'
import type { Stage } from './stage.js'

const SHARED_MEMORY_DIR = '/dev/shm'

export interface RunningServer {
  readonly name: string
  readonly port: number
  /** Metrics and probes; null for servers that have none. */
  readonly adminPort: number | null
  readonly workerPids: readonly number[]
  readonly child: ChildServer
  /** Folder of its segments; null for servers that have none. */
  readonly segmentDir: string | null
}

export interface ServerOptions {
  readonly stage: Stage
  /** What is served: everything in its repository. */
  readonly model: Pick<GeneratedModel, 'repositoryDir'>
  readonly workers: number
  readonly name?: string
}

async function running(options: {
  readonly child: ChildServer
  readonly workers: number
  readonly isWorker: (args: readonly string[]) => boolean
  readonly segmentDir: string | null
}): Promise<RunningServer> {
  const { child, workers, isWorker, segmentDir } = options
  const { port, adminPort = null } = await child.ready
  if (port === undefined) throw new Error(`expected ${child.name} to say its port`)
  return {
    name: child.name,
    port,
    adminPort,
    workerPids: await child.workerPids(workers, isWorker),
    child,
    segmentDir,
  }
}

export interface OnecopyOptions extends ServerOptions {
  readonly flags?: readonly string[]
  /** A folder that outlives this start; one of its own where none is given. */
  readonly segmentDir?: string
  readonly cacheDir?: string
  readonly onLine?: (line: string) => void
}

/** A folder for segments that goes when the stage does. */
export function segmentFolder(stage: Stage): string {
  return stage.folder(SHARED_MEMORY_DIR, 'onecopy-bench-')
}

/** The server with its defaults, but for what is named here and in `flags`. */
export async function startOnecopy(options: OnecopyOptions): Promise<RunningServer> {
  const { stage, model, workers, name = 'onecopy', flags = [], cacheDir = CACHE_DIR, onLine } = options
  // Segments in a folder of the bench's own: nothing to mix up, and nothing left behind by a killed server.
  const segmentDir = options.segmentDir ?? segmentFolder(stage)
  const settings = {
    '--models': model.repositoryDir,
    '--cache-dir': cacheDir,
    '--segment-dir': segmentDir,
    '--workers': String(workers),
    '--port': '0',
    '--admin-port': '0',
  }
  const child = await stage.start({
    name,
    args: [join(COMPILED_ROOT, 'cluster', 'main.js'), 'serve', ...Object.entries(settings).flat(), ...flags],
    hasChannel: false,
    ...(onLine === undefined ? {} : { onLine }),
  })
  // The primary also starts compile processes.
  return await running({ child, workers, isWorker: (args) => args.at(-1) === 'worker', segmentDir })
}

export type VariantName = 'plain-koa' | 'bare-koa' | 'bare-worker'

export async function startVariant(
  variant: VariantName,
  { stage, model, workers, name = variant }: ServerOptions,
): Promise<RunningServer> {
  const script = join(COMPILED_ROOT, 'bench', 'variants', `${variant}.js`)
  const child = await stage.start({
    name,
    args: [script, '--models', model.repositoryDir, '--workers', String(workers)],
    hasChannel: true,
  })
  return await running({ child, workers, isWorker: () => true, segmentDir: null })
}
