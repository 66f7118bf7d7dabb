/**
 * The phases in which faults are injected. Each is reached by waiting for something observable: a file, a
 * process, a log line or a metric. It lasts long enough for a signal to arrive.
 */
import { readdirSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { signalIfThere } from '../../bench/harness/processes.js'
import { until, untilSome } from '../helpers/waiting.js'
import type { FaultModels } from './fault-models.js'
import { FaultServer } from './fault-server.js'
import { ScrapeLoop } from './scrape-loop.js'
import { type HeldByWorker, occupyWorkers, slowRequest } from './slow-requests.js'

export const WORKERS = 2

/** The models, and the run time of held requests: 0.1 ms per iteration. */
export interface Setting extends FaultModels {
  readonly iterations: number
}

export type Moment =
  | 'compiling'
  | 'writing the segment'
  | 'before ready'
  | 'idle'
  | 'in a batch'
  | 'draining'
  | 'reloading'
  | 'scraping'

export type Target = 'worker' | 'replacement' | 'primary' | 'compile process' | 'everything'

/** A server in a phase. */
export interface Scene {
  readonly server: FaultServer
  readonly models: string
  /** The worker that gets the fault, if any. */
  readonly workerPid: number | null
  /** The replacement of a worker. */
  readonly replacementPid: number | null
  readonly compilerPid: number | null
  readonly held: readonly HeldByWorker[]
  readonly scrapes: ScrapeLoop | null
  /** Pid of a stopped worker that is continued after the signal. */
  readonly stoppedPid: number | null
}

const NOTHING = {
  workerPid: null,
  replacementPid: null,
  compilerPid: null,
  held: [],
  scrapes: null,
  stoppedPid: null,
}

const ARGS = ['--workers', String(WORKERS)]

/** Files below a folder that other processes change concurrently. */
function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true }) as string[]
  } catch {
    return []
  }
}

async function compiling(t: ExecutionContext, { big }: Setting): Promise<Scene> {
  const server = new FaultServer(t, { models: big, args: ARGS })
  await untilSome(
    'the compile process to write its first file',
    () => filesIn(server.server.cacheDir).find((name) => /^\.work-.*\//.test(name)) ?? null,
    { pollMs: 0 },
  )
  const workerPid = await untilSome('a worker to boot', () => server.workerPids()[0] ?? null, { pollMs: 0 })
  return { ...NOTHING, server, models: big, compilerPid: server.compilerPids()[0] ?? null, workerPid }
}

async function writing(t: ExecutionContext, { big, cacheDir }: Setting): Promise<Scene> {
  // A cached model would need no compile process.
  utimesSync(join(big, 'big', '1', 'model.onnx'), new Date(), new Date())
  const server = new FaultServer(t, { models: big, cacheDir, args: ARGS })
  await untilSome(
    'the segment to be written',
    () => filesIn(server.server.segmentDir).find((name) => name.endsWith('.segment.writing')) ?? null,
    { pollMs: 0 },
  )
  const workerPid = await untilSome('a worker to boot', () => server.workerPids()[0] ?? null, { pollMs: 0 })
  return { ...NOTHING, server, models: big, compilerPid: server.compilerPids()[0] ?? null, workerPid }
}

async function beforeReady(t: ExecutionContext, { slow, cacheDir }: Setting): Promise<Scene> {
  const server = new FaultServer(t, { models: slow, cacheDir, args: ARGS })
  const workerPid = await untilSome('a worker to boot', () => server.workerPids()[0] ?? null, { pollMs: 0 })
  return { ...NOTHING, server, models: slow, workerPid }
}

/** A serving server: the start of every later phase. */
async function serving(t: ExecutionContext, { slow, cacheDir }: Setting) {
  const server = new FaultServer(t, { models: slow, cacheDir, args: ARGS })
  const addresses = await server.server.ready()
  const workerPids = server.workerPids()
  t.is(workerPids.length, WORKERS)
  const scene: Scene = { ...NOTHING, server, models: slow, workerPid: workerPids[0] ?? null }
  return { scene, workerPids, ...addresses }
}

async function idle(t: ExecutionContext, models: Setting): Promise<Scene> {
  return (await serving(t, models)).scene
}

async function inBatch(t: ExecutionContext, models: Setting): Promise<Scene> {
  const { scene, ...rest } = await serving(t, models)
  return { ...scene, held: await occupyWorkers({ ...rest, iterations: models.iterations }) }
}

/** Every worker rejects requests, as observed on new connections, which round robin distributes. */
async function untilAllRefuse(url: string): Promise<void> {
  let refusals = 0
  await until('every worker to drain', async () => {
    const status = await fetch(`${url}/v2/health/ready`, { headers: { connection: 'close' } }).then(
      (response) => response.status,
      () => 0,
    )
    refusals = status === 200 ? 0 : refusals + 1
    return refusals >= WORKERS
  })
}

async function draining(t: ExecutionContext, models: Setting): Promise<Scene> {
  const { scene, ...rest } = await serving(t, models)
  const held = await occupyWorkers({ ...rest, iterations: models.iterations })
  scene.server.server.process.kill('SIGTERM')
  await untilAllRefuse(rest.url)
  return { ...scene, held }
}

async function reloading(t: ExecutionContext, models: Setting): Promise<Scene> {
  const { scene, workerPids, ...addresses } = await serving(t, models)
  const held = await occupyWorkers({ ...addresses, workerPids, iterations: models.iterations })
  const { server } = scene
  server.server.process.kill('SIGHUP')
  const replacementPid = await untilSome(
    'a replacement to boot',
    () => {
      server.assertAlive()
      return server.workerPids().find((pid) => !workerPids.includes(pid)) ?? null
    },
    { pollMs: 0 },
  )
  // One of the old workers that is still running.
  const workerPid = server.workerPids().findLast((pid) => workerPids.includes(pid)) ?? null
  return { ...scene, held, workerPid, replacementPid }
}

/** A stopped worker delays every scrape. */
async function scraping(t: ExecutionContext, models: Setting): Promise<Scene> {
  const { scene, url, adminUrl } = await serving(t, models)
  const ends = await Promise.all(Array.from({ length: 4 }, () => slowRequest(url, 1).end))
  t.deepEqual(ends, ['answered', 'answered', 'answered', 'answered'])
  const stoppedPid = scene.workerPid as number
  // A scrape while all workers respond: later scrapes must not count less.
  const scrapes = new ScrapeLoop(adminUrl)
  await scrapes.untilAnswered()
  signalIfThere(stoppedPid, 'SIGSTOP')
  await scrapes.untilAsking(scene.server.primaryPid)
  return { ...scene, scrapes, stoppedPid }
}

export const REACH: Record<Moment, (t: ExecutionContext, models: Setting) => Promise<Scene>> = {
  compiling,
  'writing the segment': writing,
  'before ready': beforeReady,
  idle,
  'in a batch': inBatch,
  draining,
  reloading,
  scraping,
}

/** Whether the phase still lasts; otherwise the test would prove nothing. */
export function isStillIn(moment: Moment, { server }: Scene): boolean {
  if (moment === 'compiling') return filesIn(server.server.cacheDir).some((name) => /^\.work-/.test(name))
  if (moment === 'writing the segment')
    return filesIn(server.server.segmentDir).some((name) => name.endsWith('.segment.writing'))
  return true
}
