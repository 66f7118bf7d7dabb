/** Starts the HTTP variants. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { GeneratedModel } from '../models/store.js'
import type { ChildServer } from './child-server.js'
import { freePort } from './free-port.js'
import { CACHE_DIR, COMPILED_ROOT } from './paths.js'
import { isWorker, type ListedProcess } from './processes.js'
import type { Stage } from './stage.js'

const SHARED_MEMORY_DIR = '/dev/shm'

export interface RunningServer {
  readonly name: string
  readonly port: number
  /** Metrics and probes; null for servers that have none. */
  readonly adminPort: number | null
  readonly workerPids: readonly number[]
  /** Whether a child process is a worker. */
  readonly isWorker: (child: ListedProcess) => boolean
  readonly child: ChildServer
  /** Folder of its segments; null for servers that have none. */
  readonly segmentDir: string | null
}

export interface ServerOptions {
  readonly stage: Stage
  /** The server serves everything in its repository. */
  readonly model: Pick<GeneratedModel, 'repositoryDir'>
  readonly workers: number
  readonly name?: string
  /** Default: a port that the server reports. */
  readonly port?: number
}

async function running(options: {
  readonly child: ChildServer
  readonly workers: number
  readonly isWorker: (child: ListedProcess) => boolean
  readonly segmentDir: string | null
}): Promise<RunningServer> {
  const { child, workers, isWorker, segmentDir } = options
  const { adminPort = null } = await child.ready
  return {
    name: child.name,
    port: await portOf(child),
    adminPort,
    workerPids: await child.workerPids(workers, isWorker),
    isWorker,
    child,
    segmentDir,
  }
}

export interface OnecopyOptions extends ServerOptions {
  readonly flags?: readonly string[]
  /** A folder that outlives this server; default: a new one. */
  readonly segmentDir?: string
  readonly cacheDir?: string
  readonly onLine?: (line: string) => void
}

/** A segment folder that the stage removes. */
export function segmentFolder(stage: Stage): string {
  return stage.folder(SHARED_MEMORY_DIR, 'onecopy-bench-')
}

/** An empty compile cache that the stage removes. */
export function emptyCache(stage: Stage): string {
  return stage.folder(tmpdir(), 'onecopy-bench-cache-')
}

/** Starts onecopy with its defaults, except for the options here and in `flags`. */
export async function startOnecopy(options: OnecopyOptions): Promise<RunningServer> {
  const { stage, model, workers, name = 'onecopy', port = 0, flags = [], cacheDir = CACHE_DIR } = options
  const { onLine } = options
  // A separate segment folder: a killed server leaves nothing behind.
  const segmentDir = options.segmentDir ?? segmentFolder(stage)
  const settings = {
    '--models': model.repositoryDir,
    '--cache-dir': cacheDir,
    '--segment-dir': segmentDir,
    '--workers': String(workers),
    '--port': String(port),
    '--admin-port': '0',
  }
  const child = await stage.start({
    name,
    args: [join(COMPILED_ROOT, 'cluster', 'main.js'), 'serve', ...Object.entries(settings).flat(), ...flags],
    hasChannel: false,
    ...(onLine === undefined ? {} : { onLine }),
  })
  // The primary also has compiler processes as children.
  return await running({ child, workers, isWorker, segmentDir })
}

export type FleetName =
  | 'attached-koa'
  | 'plain-koa'
  | 'reload-per-request'
  | 'bare-koa'
  | 'bare-worker'
  | 'text-koa'
export type SingleName = 'thread-pool' | 'process-per-request'

function variantScript(variant: string): string {
  return join(COMPILED_ROOT, 'bench', 'variants', `${variant}.js`)
}

function variantCommand(variant: string, { model, workers, port = 0 }: ServerOptions): string[] {
  const settings = {
    '--models': model.repositoryDir,
    '--workers': String(workers),
    '--port': String(port),
  }
  return [variantScript(variant), ...Object.entries(settings).flat()]
}

/** Starts a variant of cluster workers. */
export async function startVariant(
  variant: FleetName,
  options: ServerOptions & {
    readonly flags?: readonly string[]
    readonly env?: Readonly<Record<string, string>>
    readonly onLine?: (line: string) => void
  },
): Promise<RunningServer> {
  const { name = variant, flags = [], env = {}, onLine } = options
  const child = await options.stage.start({
    name,
    args: [...variantCommand(variant, options), ...flags],
    env,
    hasChannel: true,
    ...(onLine === undefined ? {} : { onLine }),
  })
  return await running({ child, workers: options.workers, isWorker: () => true, segmentDir: null })
}

/** Starts a variant with one HTTP process. Its workers are threads or short-lived processes. */
export async function startSingle(variant: SingleName, options: ServerOptions): Promise<RunningServer> {
  const child = await options.stage.start({
    name: options.name ?? variant,
    args: variantCommand(variant, options),
    hasChannel: true,
  })
  return singleServer(child, await portOf(child))
}

export function singleServer(child: ChildServer, port: number): RunningServer {
  return {
    ...{ name: child.name, port, adminPort: null, child, segmentDir: null },
    workerPids: [child.pid],
    isWorker: () => false,
  }
}

async function portOf(child: ChildServer): Promise<number> {
  const { port } = await child.ready
  if (port === undefined) throw new Error(`expected ${child.name} to report its port`)
  return port
}

export async function startPm2(command: string, options: ServerOptions): Promise<RunningServer> {
  const { stage, model, workers, name = 'pm2-koa', port = await freePort() } = options
  const script = variantScript('pm2-koa')
  const child = await stage.start({
    name,
    command,
    args: ['start', script, '--instances', String(workers), '--name', 'bench'],
    // Sockets, logs and lists of its daemon, removed with the stage.
    env: {
      PM2_HOME: stage.folder(tmpdir(), 'onecopy-bench-pm2-'),
      BENCH_MODELS: model.repositoryDir,
      BENCH_PORT: String(port),
    },
    hasChannel: false,
    probe: { port, path: '/v2/health/ready' },
  })
  await child.ready
  // The title of an instance is its script. An existing instance may still be loading.
  const isInstance = ({ args }: ListedProcess) => args.join(' ').includes(script)
  return {
    ...singleServer(child, port),
    workerPids: await child.workerPids(workers, isInstance),
    isWorker: isInstance,
  }
}
