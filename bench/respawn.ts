/** Time from the kill of a worker until its replacement answers. */
import { setTimeout as pause } from 'node:timers/promises'
import { defineBench } from './harness/bench.js'
import { Connection } from './harness/connections.js'
import { leadCell } from './harness/lead.js'
import { countOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport } from './harness/report.js'
import type { InferRequest } from './harness/requests.js'
import type { RunningServer } from './harness/servers.js'
import { Stage } from './harness/stage.js'
import { formatSpread, spread } from './harness/statistics.js'
import { spreadChart } from './harness/svg.js'
import { chooseVariants, variantsOption } from './harness/variants.js'
import { sendToWorkers } from './harness/warm-up.js'
import { findSubject, modelsOption, requestsTo } from './models/subject.js'

const DEADLINE_MS = 120_000
const POLL_MS = 5
/** Pause between kills, so that the back-off of supervisors resets. */
const SETTLE_MS = 1000

interface RespawnOptions {
  readonly kills: number
  readonly workers: number
  readonly variants: readonly string[]
}

function workersNow({ child, isWorker }: RunningServer): number[] {
  return child.workersNow(isWorker)
}

/** Whether a connection to the new worker gets a 200. */
async function doesAnswer(server: RunningServer, pid: number, request: InferRequest): Promise<boolean> {
  const connection = new Connection({ ...server, workerPids: [pid] })
  try {
    const { status } = await connection.send(request)
    return status === 200 && connection.ownerPid === pid
  } catch {
    // No worker accepted the connection: try again.
    return false
  } finally {
    connection.close()
  }
}

async function killOne(server: RunningServer, request: InferRequest): Promise<number> {
  const before = workersNow(server)
  const [victim] = before
  if (victim === undefined) throw new Error(`${server.name} has no workers`)
  const startedMs = performance.now()
  process.kill(victim, 'SIGKILL')
  while (performance.now() - startedMs < DEADLINE_MS) {
    const fresh = workersNow(server).find((pid) => !before.includes(pid))
    if (fresh !== undefined && (await doesAnswer(server, fresh, request))) {
      server.child.assertAlive()
      return performance.now() - startedMs
    }
    await pause(POLL_MS)
  }
  throw new Error(`${server.name}: no new worker answered within ${DEADLINE_MS} ms`)
}

async function respawnBench(modelName: string, options: RespawnOptions): Promise<BenchReport> {
  await using stage = new Stage()
  const { kills, workers } = options
  const model = await findSubject(modelName)
  const requests = requestsTo(model, { encoding: 'json', count: 1 })
  const [request] = requests as [InferRequest]
  const { variants, notes } = chooseVariants(options.variants)
  using progress = createProgress(`respawn ${model.name}`, variants.length * kills)
  const times = new Map<string, number[]>()
  for (const variant of variants) {
    const server = await variant.start({ stage, model, workers, isSupervised: true })
    await sendToWorkers(variant, server, { requests, count: 1, workers })
    const taken: number[] = []
    for (let kill = 0; kill < kills; kill++) {
      progress.step(`${variant.name}: kill ${kill + 1}`)
      taken.push(await killOne(server, request))
      await pause(SETTLE_MS)
    }
    times.set(variant.name, taken)
    await stage.stop(server.child)
  }
  const onecopy = times.get('onecopy') ?? []
  const title = `${model.name} (${Math.round(model.bytes / 1e6)} MB), ${workers} workers, SIGKILL to one of them`
  return {
    name: `respawn-${model.name}`,
    title,
    table: {
      head: ['variant', 'replacement answers after, ms', 'onecopy compared'],
      rows: [...times].map(([name, taken]) => [
        name,
        formatSpread(spread(taken)),
        name === 'onecopy' ? '-' : leadCell({ onecopy, other: taken, better: 'lower' }),
      ]),
    },
    checks: [],
    notes: [...notes, 'thread-pool is left out: a native crash of a thread ends the whole process'],
    charts: [spreadChart({ title, unit: 'milliseconds until a replacement answers' }, times)],
    setting: { ...options, model },
    raw: Object.fromEntries(times),
  }
}

export const respawn = defineBench({
  name: 'respawn',
  summary: 'Time from the kill of a worker until its replacement answers.',
  options: {
    models: modelsOption({ default: '200MB,1GB', quick: '200MB' }),
    kills: countOption({ help: 'Kills of each variant', default: '10', quick: '3' }),
    workers: countOption({ help: 'Workers of each variant', default: '4', quick: '2' }),
    variants: variantsOption({
      default: 'onecopy,plain-koa,pm2-koa',
    }),
  },
  reports: ({ models, ...options }) => models.map((model) => () => respawnBench(model, options)),
})
