/**
 * Effect of a connection attack on other clients: their p99 at a constant rate with and without it, in
 * alternation, and whether workers release the memory after the attack.
 */
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { ChildServer } from '../harness/child-server.js'
import { comparisonChart, comparisonTable, noFailures, ratioCheck } from '../harness/compare.js'
import { memoryOf } from '../harness/footprint.js'
import { openLoop } from '../harness/open-loop.js'
import { COMPILED_ROOT } from '../harness/paths.js'
import { createProgress } from '../harness/progress.js'
import { type InferRequest, inferRequests } from '../harness/requests.js'
import { type Arm, alternate, type MeasuredArm, type Sample, stepsOf } from '../harness/rounds.js'
import { type RunningServer, startOnecopy } from '../harness/servers.js'
import { formatNumber, quantile } from '../harness/statistics.js'
import type { AttackOrder, AttackReport } from '../variants/attack-messages.js'
import { benchModel, type Row } from './row.js'

const MODEL = 'mlp-2x64'
const IDLE_CONNECTIONS = 10_000
/** A few percent of the maximum, so that requests do not queue for the CPU. */
const RATE_PER_SECOND = 200
const REQUEST_COUNT = 64
const BAR_RATIO = 2
const BAR_MB = 20
/** Short, so that slow clients are disconnected and reconnect within a measurement. */
const TIME_LIMITS = ['--headers-timeout', '2s', '--request-timeout', '3s']
const CLEAN_UP_MS = 2000
const MEMORY_DEADLINE_MS = 60_000

async function order(attackers: ChildServer, action: AttackOrder['action']): Promise<AttackReport> {
  attackers.process.send({ action } satisfies AttackOrder)
  const [report] = (await once(attackers.process, 'message')) as [AttackReport]
  attackers.assertAlive()
  return report
}

async function privateMb(server: RunningServer): Promise<number[]> {
  return await Promise.all(server.workerPids.map(async (pid) => (await memoryOf(pid)).privateBytes / 1e6))
}

async function measureOthers(
  server: RunningServer,
  requests: readonly InferRequest[],
  seconds: number,
): Promise<Sample> {
  const { port } = server
  const { answers, elapsedMs } = await openLoop({ port, requests, ratePerSecond: RATE_PER_SECOND, seconds })
  server.child.assertAlive()
  const answered = answers.filter(({ status }) => status === 200)
  const latenciesMs = answered.map(({ latencyMs }) => latencyMs)
  return {
    requestsPerSecond: (answered.length * 1000) / elapsedMs,
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    failures: answers.length - answered.length,
  }
}

/** Keeps sending requests meanwhile, because garbage is collected only under load. */
async function memoryAfter(options: {
  readonly server: RunningServer
  readonly requests: readonly InferRequest[]
  readonly beforeMb: readonly number[]
}): Promise<{ growthMb: number[]; tookMs: number }> {
  const { server, requests, beforeMb } = options
  const startedMs = performance.now()
  for (;;) {
    const growthMb = (await privateMb(server)).map((mb, worker) => mb - (beforeMb[worker] ?? Number.NaN))
    const tookMs = performance.now() - startedMs
    if (tookMs > MEMORY_DEADLINE_MS || growthMb.every((mb) => mb <= BAR_MB)) return { growthMb, tookMs }
    await measureOthers(server, requests, 1)
  }
}

export const hostile: Row = {
  name: 'hostile',
  title: `${MODEL}, JSON, ${RATE_PER_SECOND} requests per second next to ${IDLE_CONNECTIONS} idle connections, slow headers and bodies, and resets`,
  run: async ({ name, title, stage, options }) => {
    const model = await benchModel(MODEL)
    const requests = inferRequests(model.recipe, { encoding: 'json', count: REQUEST_COUNT })
    // At least two workers: segment pages mapped by one process count as private.
    const workers = Math.max(2, options.workers)
    const server = await startOnecopy({ stage, model, workers, flags: TIME_LIMITS })
    const { path } = requests[0] as InferRequest
    const settings = { '--port': String(server.port), '--idle': String(IDLE_CONNECTIONS), '--path': path }
    const attackers = await stage.start({
      name: 'attackers',
      args: [join(COMPILED_ROOT, 'bench', 'variants', 'attackers.js'), ...Object.entries(settings).flat()],
      hasChannel: true,
    })
    const reports: AttackReport[] = []
    const attackedMb: number[][] = []
    const calm: Arm = { name: 'calm', measure: (seconds) => measureOthers(server, requests, seconds) }
    const attacked: Arm = {
      name: 'attacked',
      measure: async (seconds) => {
        reports.push(await order(attackers, 'attack'))
        try {
          return await measureOthers(server, requests, seconds)
        } finally {
          attackedMb.push(await privateMb(server))
          reports.push(await order(attackers, 'leave'))
          // Cleanup after the attack must not affect the following calm phase.
          await pause(CLEAN_UP_MS)
        }
      },
    }
    using progress = createProgress(name, stepsOf(2, options.rounds) + 2)
    progress.step('before the attack')
    await calm.measure(options.seconds)
    const beforeMb = await privateMb(server)
    const measured = await alternate([calm, attacked], { ...options, progress })
    progress.step('after the attack')
    const after = await memoryAfter({ server, requests, beforeMb })
    const [calmArm, attackedArm] = measured as [MeasuredArm, MeasuredArm]
    const fewestIdle = Math.min(...reports.map(({ idleConnections }) => idleConnections))
    const last = reports.at(-1)
    const peakMb = Math.max(...attackedMb.flat().map((mb, i) => mb - (beforeMb[i % workers] ?? Number.NaN)))
    return {
      name,
      title,
      table: comparisonTable(measured),
      checks: [
        ratioCheck({
          over: attackedArm,
          under: calmArm,
          metric: 'p99Ms',
          bar: BAR_RATIO,
          isMetWhen: 'at most',
        }),
        noFailures(measured),
        {
          claim: 'idle connections held through every attack',
          got: String(fewestIdle),
          bar: `at least ${IDLE_CONNECTIONS}`,
          isMet: fewestIdle >= IDLE_CONNECTIONS,
        },
        {
          claim: 'growth of private memory after the attack',
          got: `${after.growthMb.map(formatNumber).join(' / ')} MB, ${formatNumber(after.tookMs / 1000)} s later`,
          bar: `at most ${BAR_MB} MB each within ${MEMORY_DEADLINE_MS / 1000} s`,
          isMet: after.growthMb.every((mb) => mb <= BAR_MB),
        },
      ],
      notes: [
        `a worker grew by up to ${formatNumber(peakMb)} MB during the attacks`,
        `closed by the server: ${last?.slowHeadersClosed} slow headers, ${last?.slowBodiesClosed} slow bodies; reset during the body: ${last?.resets}`,
      ],
      charts: [comparisonChart(title, measured, 'p99Ms')],
      setting: { ...options, workers, model, ratePerSecond: RATE_PER_SECOND },
      raw: { measured, reports, beforeMb, attackedMb, after },
    }
  },
}
