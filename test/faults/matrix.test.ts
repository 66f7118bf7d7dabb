/** Every signal, to every process of the server, in every moment of its life; one test a combination. */
import test, { type ExecutionContext } from 'ava'
import { signalIfThere } from '../../bench/harness/processes.js'
import { until, withinDeadline } from '../helpers/waiting.js'
import { bigRequest } from './big-request.js'
import { type FaultModels, makeFaultModels } from './fault-models.js'
import { FaultServer } from './fault-server.js'
import { isStillIn, type Moment, REACH, type Scene, type Target, WORKERS } from './moments.js'
import type { HeldByWorker } from './slow-requests.js'
import { metricOf, scrape, slowRequest } from './slow-requests.js'

type Server =
  | 'exits with 0'
  | 'exits with 1'
  | 'exits at once by the signal'
  | 'is killed'
  | 'starts all the same'
  | 'starts, or exits with 1'
  | 'replaces the worker'
  | 'goes on with the same workers'

/** What becomes of the requests that were inside. */
type Requests = 'every request is answered' | 'only its requests are cut off' | 'requests are cut off'

type Folder = 'nothing is left' | 'the next start removes what is left'

interface Row {
  readonly at: Moment
  readonly target: Target
  readonly signals: readonly NodeJS.Signals[]
  readonly server: Server
  readonly requests?: Requests
  /** Nothing, where not said otherwise. */
  readonly folder?: Folder
}

const ASKING = ['SIGTERM', 'SIGINT'] as const
const KILL = ['SIGKILL'] as const
const DEADLY = ['SIGKILL', 'SIGSEGV'] as const
const ANSWERED = 'every request is answered'
const ONLY_ITS = 'only its requests are cut off'
const CUT_OFF = 'requests are cut off'
const NEXT_START = 'the next start removes what is left'

const MATRIX: readonly Row[] = [
  { at: 'compiling', target: 'compile process', signals: [...ASKING, ...KILL], server: 'exits with 1' },
  { at: 'compiling', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'compiling', target: 'primary', signals: KILL, server: 'is killed', folder: NEXT_START },
  { at: 'compiling', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'compiling', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  // The image came from the cache: the compile process has no work left.
  {
    ...{ at: 'writing the segment', target: 'compile process', signals: [...ASKING, ...KILL] },
    server: 'starts all the same',
  },
  { at: 'writing the segment', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'writing the segment', target: 'primary', signals: KILL, server: 'is killed', folder: NEXT_START },
  // It starts meanwhile, and would serve what is written.
  { at: 'writing the segment', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'exits with 1' },
  { at: 'writing the segment', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'writing the segment', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  { at: 'before ready', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'exits with 1' },
  // Ignored by a worker that got as far as to say so.
  { at: 'before ready', target: 'worker', signals: ['SIGINT'], server: 'starts, or exits with 1' },
  { at: 'before ready', target: 'primary', signals: ASKING, server: 'exits with 0' },
  // Workers that were not told yet what they serve cannot clean up.
  { at: 'before ready', target: 'primary', signals: KILL, server: 'is killed', folder: NEXT_START },
  { at: 'before ready', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'before ready', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  { at: 'idle', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'replaces the worker' },
  { at: 'idle', target: 'worker', signals: ['SIGINT'], server: 'goes on with the same workers' },
  { at: 'idle', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'idle', target: 'primary', signals: KILL, server: 'is killed' },
  { at: 'idle', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'idle', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },

  {
    ...{ at: 'in a batch', target: 'worker', signals: ['SIGTERM'] },
    ...{ server: 'replaces the worker', requests: ANSWERED },
  },
  {
    ...{ at: 'in a batch', target: 'worker', signals: ['SIGINT'] },
    ...{ server: 'goes on with the same workers', requests: ANSWERED },
  },
  {
    ...{ at: 'in a batch', target: 'worker', signals: DEADLY },
    ...{ server: 'replaces the worker', requests: ONLY_ITS },
  },
  { at: 'in a batch', target: 'primary', signals: ASKING, server: 'exits with 0', requests: ANSWERED },
  { at: 'in a batch', target: 'primary', signals: KILL, server: 'is killed', requests: ANSWERED },
  { at: 'in a batch', target: 'everything', signals: ASKING, server: 'exits with 0', requests: ANSWERED },
  {
    ...{ at: 'in a batch', target: 'everything', signals: KILL },
    ...{ server: 'is killed', requests: CUT_OFF, folder: NEXT_START },
  },

  { at: 'draining', target: 'worker', signals: ASKING, server: 'exits with 0', requests: ANSWERED },
  { at: 'draining', target: 'worker', signals: DEADLY, server: 'exits with 0', requests: ONLY_ITS },
  {
    ...{ at: 'draining', target: 'primary', signals: ASKING },
    ...{ server: 'exits at once by the signal', requests: CUT_OFF },
  },
  { at: 'draining', target: 'primary', signals: KILL, server: 'is killed', requests: ANSWERED },
  {
    ...{ at: 'draining', target: 'everything', signals: ASKING },
    ...{ server: 'exits at once by the signal', requests: CUT_OFF },
  },
  {
    ...{ at: 'draining', target: 'everything', signals: KILL },
    ...{ server: 'is killed', requests: CUT_OFF, folder: NEXT_START },
  },

  // Every worker goes in the end, also one that ignores the signal.
  {
    ...{ at: 'reloading', target: 'worker', signals: ASKING },
    ...{ server: 'replaces the worker', requests: ANSWERED },
  },
  {
    ...{ at: 'reloading', target: 'worker', signals: DEADLY },
    ...{ server: 'replaces the worker', requests: ONLY_ITS },
  },
  {
    ...{ at: 'reloading', target: 'replacement', signals: ['SIGTERM', ...DEADLY] },
    ...{ server: 'replaces the worker', requests: ANSWERED },
  },
  { at: 'reloading', target: 'primary', signals: ASKING, server: 'exits with 0', requests: ANSWERED },
  { at: 'reloading', target: 'primary', signals: KILL, server: 'is killed', requests: ANSWERED },
  { at: 'reloading', target: 'everything', signals: ASKING, server: 'exits with 0', requests: ANSWERED },
  {
    ...{ at: 'reloading', target: 'everything', signals: KILL },
    ...{ server: 'is killed', requests: CUT_OFF, folder: NEXT_START },
  },

  { at: 'scraping', target: 'worker', signals: ['SIGTERM', ...DEADLY], server: 'replaces the worker' },
  { at: 'scraping', target: 'worker', signals: ['SIGINT'], server: 'goes on with the same workers' },
  { at: 'scraping', target: 'primary', signals: ASKING, server: 'exits with 0' },
  { at: 'scraping', target: 'primary', signals: KILL, server: 'is killed' },
  { at: 'scraping', target: 'everything', signals: ASKING, server: 'exits with 0' },
  { at: 'scraping', target: 'everything', signals: KILL, server: 'is killed', folder: NEXT_START },
]

const EXIT_BY_SIGNAL: Partial<Record<NodeJS.Signals, number>> = { SIGINT: 130, SIGTERM: 143 }

/** About 0.1 ms each; more are asked for where the CPUs are busy elsewhere. */
const SHORT_ITERATIONS = 4000
/** Still inside when the signal comes, whatever comes before it. */
const MEDIUM_ITERATIONS = 10_000
const LONG_ITERATIONS = 1_000_000

function iterationsFor({ at, requests }: Row): number {
  // A worker that drains first holds up its replacement.
  if (at === 'reloading') return MEDIUM_ITERATIONS
  if (requests === CUT_OFF) return LONG_ITERATIONS
  return requests === ONLY_ITS || at === 'draining' ? MEDIUM_ITERATIONS : SHORT_ITERATIONS
}

let faultModels: FaultModels

test.serial.before('the models are made', async () => {
  faultModels = makeFaultModels()
})

test.after.always('the models are removed', () => faultModels.remove())

test.serial('the models are compiled once, for all moments but compiling', async (t) => {
  const { big, slow, cacheDir } = faultModels
  for (const models of [big, slow]) {
    const { server } = new FaultServer(t, { models, cacheDir, args: ['--workers', '1'] })
    await server.ready()
    t.deepEqual(await server.stop(), { code: 0, signal: null })
  }
})

/** The pid that is hit; null for everything. */
function victimOf(target: Target, scene: Scene): number | null {
  if (target === 'everything') return null
  const pids = {
    worker: scene.workerPid,
    replacement: scene.replacementPid,
    primary: scene.server.primaryPid,
    'compile process': scene.compilerPid,
  }
  const pid = pids[target]
  if (pid === null) throw new Error(`expected a ${target} in that moment`)
  return pid
}

async function hit(scene: Scene, row: Row, signal: NodeJS.Signals): Promise<Hit> {
  const victim = victimOf(row.target, scene)
  // Not a wait for something to happen: copies of one signal within 100 ms count as one.
  if (row.server === 'exits at once by the signal') await new Promise((resolve) => setTimeout(resolve, 150))
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

/** A server that serves on: all workers ready, all answers right, the victim gone or still there. */
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
  const ends = await Promise.all(Array.from({ length: 2 * WORKERS }, () => ask().end))
  t.deepEqual(new Set(ends), new Set(['answered']))
  if (victim !== null && !isReplaced)
    t.true(server.workerPids().includes(victim), 'the worker is still there')
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
    case 'exits at once by the signal':
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
    case 'starts all the same':
    case 'replaces the worker':
    case 'goes on with the same workers': {
      const worker = row.server === 'starts all the same' ? null : victim
      await expectServing(t, scene, { victim: worker, isReplaced: row.server === 'replaces the worker' })
      await scene.scrapes?.stop()
      return await stop()
    }
  }
}

interface Hit {
  /** Null for everything. */
  readonly victim: number | null
  /** What was inside at that time. */
  readonly inside: ReadonlySet<HeldByWorker>
}

async function expectRequests(t: ExecutionContext, { held }: Scene, row: Row, { victim, inside }: Hit) {
  const ends = await Promise.all(held.map(({ request }) => request.end))
  const expected = held.map((one) => {
    const isHit = row.requests === CUT_OFF || (row.requests === ONLY_ITS && one.ownerPid === victim)
    return isHit && inside.has(one) ? 'cut off' : 'answered'
  })
  t.deepEqual(ends, expected)
  const isCutting = row.requests === CUT_OFF || row.requests === ONLY_ITS
  if (isCutting && row.at !== 'reloading') t.true(expected.includes('cut off'), 'nothing was inside any more')
}

/** What was answered before a scrape is in it, whatever happens to the worker that answered. */
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
      t.true(isStillIn(row.at, scene), 'the moment was over')
      const done = await hit(scene, row, signal)
      await expectEnd(t, scene, row, signal, done.victim)
      await expectRequests(t, scene, row, done)
      await expectScrapes(t, scene, row)
      await expectFolders(t, scene, row)
    })
  }
}
