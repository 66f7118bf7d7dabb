/** Sends every signal to every process of the server in every phase; one test for each combination. */
import test, { type ExecutionContext } from 'ava'
import { signalIfThere } from '../../bench/harness/processes.js'
import { until, withinDeadline } from '../helpers/waiting.js'
import { bigRequest } from './big-request.js'
import { type FaultModels, makeFaultModels } from './fault-models.js'
import { FaultServer } from './fault-server.js'
import type { RequestEnd } from './held-request.js'
import { isStillIn, type Moment, REACH, type Scene, type Target, WORKERS } from './moments.js'
import type { HeldByWorker } from './slow-requests.js'
import { metricOf, scrape, slowRequest } from './slow-requests.js'

type Server =
  | 'exits with 0'
  | 'exits with 1'
  | 'exits immediately with the signal'
  | 'is killed'
  | 'starts anyway'
  | 'starts, or exits with 1'
  | 'replaces the worker'
  | 'continues with the same workers'

/** The outcome of requests in flight. */
type Requests =
  | 'every request is answered'
  | 'only requests of the worker are cut off'
  | 'requests are cut off'

type Folder = 'nothing is left' | 'the next start removes leftovers'

interface Row {
  readonly at: Moment
  readonly target: Target
  readonly signals: readonly NodeJS.Signals[]
  readonly server: Server
  readonly requests?: Requests
  /** Default: nothing is left. */
  readonly folder?: Folder
}

const ASKING = ['SIGTERM', 'SIGINT'] as const
const KILL = ['SIGKILL'] as const
const DEADLY = ['SIGKILL', 'SIGSEGV'] as const
const ALL_ANSWERED = 'every request is answered'
const ONLY_WORKER = 'only requests of the worker are cut off'
const CUT_OFF = 'requests are cut off'
const NEXT_START = 'the next start removes leftovers'

const MATRIX: readonly Row[] = [
  { at: 'compiling', target: 'compile process', signals: [...ASKING, ...KILL], server: 'exits with 1' },
  { at: 'compiling', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'compiling', target: 'primary', signals: KILL, server: 'is killed', folder: NEXT_START },
  // The worker boots during the compilation, and would then load the segment.
  { at: 'compiling', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'exits with 1' },
  { at: 'compiling', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'compiling', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  // The image came from the cache, so the compile process has no work left.
  {
    ...{ at: 'writing the segment', target: 'compile process', signals: [...ASKING, ...KILL] },
    server: 'starts anyway',
  },
  { at: 'writing the segment', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'writing the segment', target: 'primary', signals: KILL, server: 'is killed', folder: NEXT_START },
  // The worker boots during the write and would then load the segment.
  { at: 'writing the segment', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'exits with 1' },
  { at: 'writing the segment', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'writing the segment', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  { at: 'before ready', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'exits with 1' },
  // Workers ignore SIGINT once their handler is installed.
  { at: 'before ready', target: 'worker', signals: ['SIGINT'], server: 'starts, or exits with 1' },
  { at: 'before ready', target: 'primary', signals: ASKING, server: 'exits with 0' },
  // Workers without a start message cannot clean up.
  { at: 'before ready', target: 'primary', signals: KILL, server: 'is killed', folder: NEXT_START },
  { at: 'before ready', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'before ready', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  { at: 'idle', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'replaces the worker' },
  { at: 'idle', target: 'worker', signals: ['SIGINT'], server: 'continues with the same workers' },
  { at: 'idle', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'idle', target: 'primary', signals: KILL, server: 'is killed' },
  { at: 'idle', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'idle', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  {
    ...{ at: 'in a batch', target: 'worker', signals: ['SIGTERM'] },
    ...{ server: 'replaces the worker', requests: ALL_ANSWERED },
  },
  {
    ...{ at: 'in a batch', target: 'worker', signals: ['SIGINT'] },
    ...{ server: 'continues with the same workers', requests: ALL_ANSWERED },
  },
  {
    ...{ at: 'in a batch', target: 'worker', signals: DEADLY },
    ...{ server: 'replaces the worker', requests: ONLY_WORKER },
  },
  { at: 'in a batch', target: 'primary', signals: ASKING, server: 'exits with 0', requests: ALL_ANSWERED },
  { at: 'in a batch', target: 'primary', signals: KILL, server: 'is killed', requests: ALL_ANSWERED },
  { at: 'in a batch', target: 'everything', signals: ASKING, server: 'exits with 0', requests: ALL_ANSWERED },
  {
    ...{ at: 'in a batch', target: 'everything', signals: KILL },
    ...{ server: 'is killed', requests: CUT_OFF, folder: NEXT_START },
  },

  { at: 'draining', target: 'worker', signals: ASKING, server: 'exits with 0', requests: ALL_ANSWERED },
  { at: 'draining', target: 'worker', signals: DEADLY, server: 'exits with 0', requests: ONLY_WORKER },
  {
    ...{ at: 'draining', target: 'primary', signals: ASKING },
    ...{ server: 'exits immediately with the signal', requests: CUT_OFF },
  },
  { at: 'draining', target: 'primary', signals: KILL, server: 'is killed', requests: ALL_ANSWERED },
  {
    ...{ at: 'draining', target: 'everything', signals: ASKING },
    ...{ server: 'exits immediately with the signal', requests: CUT_OFF },
  },
  {
    ...{ at: 'draining', target: 'everything', signals: KILL },
    ...{ server: 'is killed', requests: CUT_OFF, folder: NEXT_START },
  },

  // Every worker is replaced in the end, including one that ignores the signal.
  {
    ...{ at: 'reloading', target: 'worker', signals: ASKING },
    ...{ server: 'replaces the worker', requests: ALL_ANSWERED },
  },
  {
    ...{ at: 'reloading', target: 'worker', signals: DEADLY },
    ...{ server: 'replaces the worker', requests: ONLY_WORKER },
  },
  {
    ...{ at: 'reloading', target: 'replacement', signals: ['SIGTERM', ...DEADLY] },
    ...{ server: 'replaces the worker', requests: ALL_ANSWERED },
  },
  { at: 'reloading', target: 'primary', signals: ASKING, server: 'exits with 0', requests: ALL_ANSWERED },
  { at: 'reloading', target: 'primary', signals: KILL, server: 'is killed', requests: ALL_ANSWERED },
  { at: 'reloading', target: 'everything', signals: ASKING, server: 'exits with 0', requests: ALL_ANSWERED },
  {
    ...{ at: 'reloading', target: 'everything', signals: KILL },
    ...{ server: 'is killed', requests: CUT_OFF, folder: NEXT_START },
  },

  { at: 'scraping', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'replaces the worker' },
  { at: 'scraping', target: 'worker', signals: ['SIGINT'], server: 'continues with the same workers' },
  { at: 'scraping', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'scraping', target: 'primary', signals: KILL, server: 'is killed' },
  { at: 'scraping', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'scraping', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },
]

const EXIT_BY_SIGNAL: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 }

/** About 0.1 ms each; more on a busy machine. */
const SHORT_ITERATIONS = 4000
/** Long enough to be in flight when the signal arrives. */
const MEDIUM_ITERATIONS = 10_000
const LONG_ITERATIONS = 1_000_000

function iterationsFor({ at, requests }: Row): number {
  // A draining worker delays its replacement.
  if (at === 'reloading') return MEDIUM_ITERATIONS
  if (requests === CUT_OFF) return LONG_ITERATIONS
  return requests === ONLY_WORKER || at === 'draining' ? MEDIUM_ITERATIONS : SHORT_ITERATIONS
}

let faultModels: FaultModels

test.serial.before('models are generated', async () => {
  faultModels = makeFaultModels()
})

test.after.always('the models are removed', () => faultModels.remove())

test.serial('models are compiled once, for all phases except compiling', async (t) => {
  const { big, slow, cacheDir } = faultModels
  for (const models of [big, slow]) {
    const { server } = new FaultServer(t, { models, cacheDir, args: ['--workers', '1'] })
    await server.ready()
    t.deepEqual(await server.stop(), { code: 0, signal: null })
  }
})

/** The pid that gets the signal; null for all processes. */
function victimOf(target: Target, scene: Scene): number | null {
  if (target === 'everything') return null
  const pids = {
    worker: scene.workerPid,
    replacement: scene.replacementPid,
    primary: scene.server.primaryPid,
    'compile process': scene.compilerPid,
  }
  const pid = pids[target]
  if (pid === null) throw new Error(`expected a ${target} in this phase`)
  return pid
}

async function hit(scene: Scene, row: Row, signal: NodeJS.Signals): Promise<Hit> {
  const victim = victimOf(row.target, scene)
  // This is not a wait for an event: copies of a signal within 100 ms count as one.
  if (row.server === 'exits immediately with the signal')
    await new Promise((resolve) => setTimeout(resolve, 150))
  const inside = new Set(scene.held.filter(({ request }) => !request.hasEnded))
  if (victim === null) scene.server.signalEverything(signal)
  else process.kill(victim, signal)
  if (scene.stoppedPid !== null) signalIfThere(scene.stoppedPid, 'SIGCONT')
  return { victim, inside }
}

async function isReady(url: string): Promise<boolean> {
  const response = await fetch(`${url}/v2/health/ready`, { headers: { connection: 'close' } })
  await response.arrayBuffer()
  return response.ok
}

/** The server continues: all workers ready, all outputs correct, the victim replaced or still running. */
async function expectServing(
  t: ExecutionContext,
  { server, models }: Scene,
  { victim, isReplaced }: { victim: number | null; isReplaced: boolean },
): Promise<void> {
  const { url, adminUrl } = await withinDeadline('the server to be ready', server.server.ready())
  await until('all workers to be ready', async () => {
    const pids = server.workerPids()
    const isFull = pids.length === WORKERS && (victim === null || pids.includes(victim) !== isReplaced)
    return (
      isFull &&
      metricOf(await scrape(adminUrl), 'onecopy_workers_ready ') === WORKERS &&
      (await isReady(adminUrl)) &&
      (await isReady(url))
    )
  })
  const ask = models === faultModels.big ? () => bigRequest(url) : () => slowRequest(url, 2)
  // A model that crashed a worker is suspended until every worker knows of the replacement.
  const askAgain = async (): Promise<RequestEnd> => {
    let end: RequestEnd = 'refused'
    await until('the model to be in service', async () => {
      end = await ask().end
      return end !== 'refused'
    })
    return end
  }
  const ends = await Promise.all(Array.from({ length: 2 * WORKERS }, askAgain))
  t.deepEqual(new Set(ends), new Set(['answered']))
  if (victim !== null && !isReplaced)
    t.true(server.workerPids().includes(victim), 'the worker is still running')
}

async function expectEnd(
  t: ExecutionContext,
  scene: Scene,
  row: Row,
  signal: NodeJS.Signals,
  victim: number | null,
) {
  const ended = () => withinDeadline('the server to end', scene.server.server.exited)
  const stop = async () =>
    t.deepEqual(await withinDeadline('a clean stop', scene.server.server.stop()), { code: 0, signal: null })
  switch (row.server) {
    case 'exits with 0':
      return t.deepEqual(await ended(), { code: 0, signal: null }, scene.server.server.stderr)
    case 'exits with 1':
      return t.deepEqual(await ended(), { code: 1, signal: null }, scene.server.server.stderr)
    case 'exits immediately with the signal':
      return t.deepEqual(await ended(), { code: EXIT_BY_SIGNAL[signal] ?? null, signal: null })
    case 'is killed':
      return t.deepEqual(await ended(), { code: null, signal: 'SIGKILL' })
    case 'starts, or exits with 1': {
      const first = await withinDeadline(
        'the start to succeed or to fail',
        Promise.race([scene.server.server.exited, scene.server.server.ready()]),
      )
      if ('code' in first) return t.deepEqual(first, { code: 1, signal: null })
      await expectServing(t, scene, { victim: null, isReplaced: false })
      return await stop()
    }
    case 'starts anyway':
    case 'replaces the worker':
    case 'continues with the same workers': {
      const worker = row.server === 'starts anyway' ? null : victim
      await expectServing(t, scene, { victim: worker, isReplaced: row.server === 'replaces the worker' })
      await scene.scrapes?.stop()
      return await stop()
    }
  }
}

interface Hit {
  /** Null for all processes. */
  readonly victim: number | null
  /** Requests in flight at that time. */
  readonly inside: ReadonlySet<HeldByWorker>
}

async function expectRequests(t: ExecutionContext, { held }: Scene, row: Row, { victim, inside }: Hit) {
  const ends = await Promise.all(held.map(({ request }) => request.end))
  const expected = held.map((one) => {
    const isHit = row.requests === CUT_OFF || (row.requests === ONLY_WORKER && one.ownerPid === victim)
    return isHit && inside.has(one) ? 'cut off' : 'answered'
  })
  t.deepEqual(ends, expected)
  const isCutting = row.requests === CUT_OFF || row.requests === ONLY_WORKER
  if (isCutting && row.at !== 'reloading') t.true(expected.includes('cut off'), 'no request was in flight')
}

/** A scrape counts all earlier responses, including those of a dead worker. */
async function expectScrapes(t: ExecutionContext, { scrapes }: Scene, { target }: Row): Promise<void> {
  if (scrapes === null) return
  await scrapes.stop()
  if (target === 'worker') t.deepEqual(scrapes.failures, [])
  for (const text of scrapes.texts) {
    t.true(metricOf(text, 'onecopy_requests_total', 'outcome="success"') >= 4, text)
  }
}

async function expectFolders(t: ExecutionContext, { server, models: served }: Scene, { folder }: Row) {
  await server.untilGone()
  if (folder !== NEXT_START) return t.deepEqual(server.leftovers(), [])
  const { segmentDir, cacheDir } = server.server
  const next = new FaultServer(t, { models: served, segmentDir, cacheDir, args: ['--workers', '1'] })
  await withinDeadline('the next start', next.server.ready())
  t.deepEqual(next.workFolders(), [])
  t.deepEqual(await withinDeadline('a clean stop', next.server.stop()), { code: 0, signal: null })
  await next.untilGone()
  t.deepEqual(next.leftovers(), [])
}

function sentence({ server, requests, folder = 'nothing is left' }: Row): string {
  return ['', ...(requests === undefined ? [] : [`${requests}, `]), folder]
    .join('')
    .replace(/^/, `the server ${server}, `)
}

for (const row of MATRIX) {
  for (const signal of row.signals) {
    test.serial(`${row.at}: ${row.target} gets ${signal}: ${sentence(row)}`, async (t) => {
      const scene = await REACH[row.at](t, { ...faultModels, iterations: iterationsFor(row) })
      t.true(isStillIn(row.at, scene), 'the phase was over')
      const done = await hit(scene, row, signal)
      await expectEnd(t, scene, row, signal, done.victim)
      await expectRequests(t, scene, row, done)
      await expectScrapes(t, scene, row)
      await expectFolders(t, scene, row)
    })
  }
}
