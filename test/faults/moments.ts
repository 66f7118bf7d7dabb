/**
 * The moments in which a server is hit. Each is reached by waiting for what can be seen from outside: a
 * file, a process, a log line, a metric; and it lasts long enough for a signal to come in time.
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

/** What is served, and how long requests that are held shall compute: 0.1 ms an iteration. */
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

/** A server in its moment. */
export interface Scene {
  readonly server: FaultServer
  readonly models: string
  /** The worker that is hit where one is. */
  readonly workerPid: number | null
  /** The worker that was started to replace one. */
  readonly replacementPid: number | null
  readonly compilerPid: number | null
  readonly held: readonly HeldByWorker[]
  readonly scrapes: ScrapeLoop | null
  /** Pid of a stopped worker that goes on after the signal. */
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

/** Files below a folder that other processes change meanwhile. */
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
  t.deepEqual(server.workerPids(), [], 'compiling takes most memory of all: workers come later')
  return { ...NOTHING, server, models: big, compilerPid: server.compilerPids()[0] ?? null }
}

async function writing(t: ExecutionContext, { big, cacheDir }: Setting): Promise<Scene> {
  // Of a model that is known to the cache there would be no compile process.
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

/** A server that serves: every later moment begins with one. */
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

/** Every worker refuses, as seen on new connections, which round robin deals to one after another. */
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
  // One of the workers from before, whichever is left.
  const workerPid = server.workerPids().findLast((pid) => workerPids.includes(pid)) ?? null
  return { ...scene, held, workerPid, replacementPid }
}

/** A stopped worker keeps every scrape waiting for its counts. */
async function scraping(t: ExecutionContext, models: Setting): Promise<Scene> {
  const { scene, url, adminUrl } = await serving(t, models)
  const ends = await Promise.all(Array.from({ length: 4 }, () => slowRequest(url, 1).end))
  t.deepEqual(ends, ['answered', 'answered', 'answered', 'answered'])
  const stoppedPid = scene.workerPid as number
  // One scrape while all answer: from here on no later one may know less.
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

/** Whether the file that shows the moment is still there: a test that came too late would prove nothing. */
export function isStillIn(moment: Moment, { server }: Scene): boolean {
  if (moment === 'compiling') return filesIn(server.server.cacheDir).some((name) => /^\.work-/.test(name))
  if (moment === 'writing the segment')
    return filesIn(server.server.segmentDir).some((name) => name.endsWith('.segment.writing'))
  return true
}
