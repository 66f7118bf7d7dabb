/**
 * Real worker processes without models (worker-program.ts), and the dependencies of a supervisor.
 */
import cluster from 'node:cluster'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import { pino } from 'pino'
import type { SegmentMessage, StartMessage } from '../../cluster/messages.js'
import type { Ports } from '../../cluster/port.js'
import { FleetStats } from '../../cluster/workers/stats.js'
import { Supervisor } from '../../cluster/workers/supervisor.js'
import type { SupervisorOptions } from '../../cluster/workers/supervisor-options.js'
import { WorkerHandle, type WorkerHandleOptions } from '../../cluster/workers/worker-handle.js'
import { ServingConfigSchema } from '../../src/config/config.js'
import { loadConfig } from '../../src/config/load.js'
import type { Log } from '../../src/log.js'
import { readModelConfig } from '../../src/repository/config.js'
import { temporaryFolder } from '../helpers/server.js'

const BOOT_TIMEOUT_MS = 30_000

export interface LoggedLine {
  readonly msg: string
  readonly [field: string]: unknown
}

export function recordingLog(): { readonly log: Log; readonly lines: LoggedLine[] } {
  const lines: LoggedLine[] = []
  const log = pino(
    { level: 'debug', base: {} },
    { write: (text) => lines.push(JSON.parse(text) as LoggedLine) },
  )
  return { log, lines }
}

/** Sets the program of all later workers. */
export function useWorkerProgram(settings: { readonly cwd?: string } = {}): void {
  cluster.setupPrimary({
    exec: fileURLToPath(new URL('./workers/worker-program.js', import.meta.url)),
    args: [],
    execArgv: [],
    // cluster.setupPrimary merges settings across calls.
    cwd: process.cwd(),
    ...settings,
  })
}

export async function makeStats(t: ExecutionContext, slots = 16): Promise<FleetStats> {
  return await FleetStats.create({ folder: temporaryFolder(t, '/dev/shm'), slots, areClientsLimited: false })
}

/** A segment that no worker loads. */
export async function segmentNamed(name: string, stats: FleetStats): Promise<SegmentMessage> {
  return {
    key: `${name}@1#1`,
    name,
    version: '1',
    segment: { path: '/nowhere', fileBytes: 1, graphSha256: '', inode: 1, changedNs: '1' },
    config: await readModelConfig('/nowhere/config.json'),
    number: 1,
    stats: stats.processPage,
  }
}

export function startMessage(
  stats: FleetStats,
  segments: StartMessage['segments'] = [],
): Omit<StartMessage, 'statsSlot'> {
  return {
    type: 'start',
    config: ServingConfigSchema.parse({ ...loadConfig([], {}), ...SERVING_CONFIG }),
    bundle: null,
    identity: { name: 'onecopy', version: '0' },
    serverFolder: '/nowhere',
    segments,
    outOfService: [],
    processStats: stats.processPage,
    unknownStats: stats.unknownPage,
    secrets: { apiKeys: null, tls: null },
    clients: null,
  }
}

/** Required in addition to the defaults. Workers of these tests serve nothing. */
const SERVING_CONFIG = {
  ...{ port: 0, isHttp: false, isModelRequired: false, adminPort: 0, adminTokenSha256: null },
  ...{ drainTimeoutMs: 1000, stallTimeoutMs: 1000, headersTimeoutMs: 1000, requestTimeoutMs: 1000 },
}

export function startWorker(
  t: ExecutionContext,
  stats: FleetStats,
  choices: Partial<WorkerHandleOptions> = {},
): WorkerHandle {
  const statsSlot = stats.acquireSlot()
  const handle = new WorkerHandle({
    statsSlot,
    lease: async (take) => {
      take({ ...startMessage(stats), statsSlot })
      return () => {}
    },
    inheritedRequests: 0,
    bootTimeoutMs: BOOT_TIMEOUT_MS,
    onLoad: () => {},
    onStalled: () => {},
    running: () => null,
    takeOomKill: () => false,
    hasOthers: () => false,
    ...choices,
  })
  t.teardown(async () => {
    handle.kill()
    await handle.exited
  })
  return handle
}

export async function startFleet(
  t: ExecutionContext,
  workers: number,
  {
    ports = () => ({ port: 0, grpcPort: null }),
    ...choices
  }: Partial<SupervisorOptions> & { readonly ports?: () => Ports } = {},
): Promise<{ readonly supervisor: Supervisor; readonly stats: FleetStats; readonly lines: LoggedLine[] }> {
  const stats = await makeStats(t)
  const { log, lines } = recordingLog()
  const supervisor = new Supervisor({
    workers,
    lease: async (take) => {
      const start = startMessage(stats)
      take({ ...start, config: { ...start.config, ...ports() } })
      return () => {}
    },
    stats,
    concurrentBoots: workers,
    replacePorts: async () => false,
    bootTimeoutMs: BOOT_TIMEOUT_MS,
    drainTimeoutMs: BOOT_TIMEOUT_MS,
    log,
    onEnded: () => {},
    onBootLimitReached: () => {},
    onRecovered: () => {},
    onReady: async () => {},
    onModelFault: () => false,
    onFaultyWorkerReplaced: () => {},
    ...choices,
  })
  t.teardown(async () => {
    await supervisor.drain(BOOT_TIMEOUT_MS)
  })
  await supervisor.start()
  return { supervisor, stats, lines }
}
