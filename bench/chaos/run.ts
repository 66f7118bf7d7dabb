/** Kills processes of a server under load and collects what clients and metrics observe. */
import { readdirSync } from 'node:fs'
import { Agent } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { send } from '../harness/client.js'
import { childrenOf, isWorker, processesInGroup, signalIfThere } from '../harness/processes.js'
import { type InferRequest, inferRequests } from '../harness/requests.js'
import { type RunningServer, startOnecopy } from '../harness/servers.js'
import type { Stage } from '../harness/stage.js'
import { outputOf } from '../harness/verify.js'
import type { GeneratedModel } from '../models/store.js'
import { ChaosClient, type Cut, type KnownAnswer, newTally, type Tally } from './clients.js'
import { type Fault, FaultDraw, losesRequests } from './faults.js'
import { MetricsWatch, type Watch, type WorkerState } from './watch.js'

const REQUESTS_PER_ENCODING = 8
const CONNECTIONS_PER_WORKER = 2
const FROZEN_MS = 500
/** Poll interval of the process list. */
const SETTLE_POLL_MS = 50
/** Long enough for a rolling restart of all workers, with a boot and a drain each. */
const WORKERS_DEADLINE_MS = 60_000

export interface ChaosOptions {
  readonly stage: Stage
  readonly model: GeneratedModel
  readonly workers: number
  readonly seconds: number
  readonly everyMs: number
  /** Pause between a response and a client's next request; 0 takes all CPUs. */
  readonly pauseMs: number
  readonly seed: string
  readonly faults: readonly Fault[]
  readonly onFault?: (note: string) => void
}

export interface DoneFault {
  readonly fault: Fault
  readonly atMs: number
  /** From the signal until all workers were ready; null if they never were. */
  readonly recoveryMs: number | null
}

export interface ChaosResult {
  readonly tally: Tally
  readonly faults: readonly DoneFault[]
  readonly watch: Watch
  /** Log lines of workers that ended without a fault. */
  readonly strayEnds: readonly string[]
  /** Fatal log lines of the server. */
  readonly fatalLines: readonly string[]
  readonly exit: string
  readonly filesLeft: readonly string[]
  readonly processesLeft: number
}

async function recordAnswers(
  server: RunningServer,
  requests: readonly InferRequest[],
): Promise<KnownAnswer[]> {
  const agent = new Agent({ keepAlive: true })
  const answers: KnownAnswer[] = []
  for (const request of requests) {
    answers.push({ request, output: outputOf(await send({ agent, port: server.port, request })) })
  }
  agent.destroy()
  return answers
}

/** Injects faults into one server and records the affected workers. */
class FaultInjector {
  readonly cuts: Cut[] = []
  readonly affectedPids = new Set<number>()
  readonly #primaryPid: number
  readonly #draw: FaultDraw

  constructor(primaryPid: number, draw: FaultDraw) {
    this.#primaryPid = primaryPid
    this.#draw = draw
  }

  workerPids = (): number[] =>
    childrenOf(this.#primaryPid)
      .filter(isWorker)
      .map(({ pid }) => pid)

  /** Resolves with the time of the signal, at which recovery starts. */
  async inject(fault: Fault): Promise<number> {
    if (fault === 'SIGHUP') {
      signalIfThere(this.#primaryPid, 'SIGHUP')
      return performance.now()
    }
    const pid = this.#draw.pick(this.workerPids())
    if (pid === undefined) return performance.now()
    this.affectedPids.add(pid)
    if (fault === 'freeze') {
      signalIfThere(pid, 'SIGSTOP')
      await pause(FROZEN_MS)
    }
    // Recorded before the signal, because requests fail immediately after it.
    const atMs = performance.now()
    if (losesRequests(fault)) this.cuts.push({ pid, atMs })
    signalIfThere(pid, fault === 'freeze' ? 'SIGKILL' : fault)
    return atMs
  }
}

/** Whether all workers are ready, with a replacement for each affected one. */
function isRecovered(fault: Fault, before: WorkerState, workers: number) {
  return ({ workersReady, workerIds }: WorkerState): boolean => {
    const fresh = workerIds.filter((id) => !before.workerIds.includes(id))
    const expected = fault === 'SIGHUP' ? workers : 1
    return workersReady === workers && workerIds.length === workers && fresh.length >= expected
  }
}

async function waitUntil(isTrue: () => boolean): Promise<boolean> {
  const deadlineMs = performance.now() + WORKERS_DEADLINE_MS
  while (!isTrue()) {
    if (performance.now() > deadlineMs) return false
    await pause(SETTLE_POLL_MS)
  }
  return true
}

async function injectFaults(
  injector: FaultInjector,
  draw: FaultDraw,
  watch: MetricsWatch,
  { workers, seconds, everyMs, faults, onFault = () => {} }: ChaosOptions,
): Promise<DoneFault[]> {
  const done: DoneFault[] = []
  const startedMs = performance.now()
  const isFull = ({ workersReady, workerIds }: WorkerState) =>
    workersReady === workers && workerIds.length === workers
  while (performance.now() - startedMs < seconds * 1000) {
    const nextMs = performance.now() + everyMs
    const before = await watch.untilWorkers(isFull, WORKERS_DEADLINE_MS)
    if (before === null || faults.length === 0) break
    // A retiring worker that still drains would not be replaced after a fault.
    const isSettled = await waitUntil(() => injector.workerPids().length === workers)
    if (!isSettled) break
    const fault = draw.fault()
    const atMs = await injector.inject(fault)
    const after = await watch.untilWorkers(isRecovered(fault, before, workers), WORKERS_DEADLINE_MS)
    const recoveryMs = after === null ? null : after.atMs - atMs
    done.push({ fault, atMs: atMs - startedMs, recoveryMs })
    onFault(
      `${fault}: ${recoveryMs === null ? 'no recovery' : `recovered after ${Math.round(recoveryMs)} ms`}`,
    )
    // A server without recovery ends the run.
    if (after === null) break
    await pause(Math.max(0, nextMs - performance.now()))
  }
  return done
}

export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const { stage, model, workers, pauseMs, seed, faults } = options
  const ends: { readonly pid: number; readonly line: string }[] = []
  const fatalLines: string[] = []
  const server = await startOnecopy({
    ...{ stage, model, workers },
    onLine: (line) => {
      if (line.includes('"level":"fatal"')) fatalLines.push(line)
      const isEnd = /"msg":"worker (?:ended|exited|killed|terminated|crashed|failed)/.test(line)
      const [, pid] = isEnd ? (line.match(/"workerPid":(\d+)/) ?? []) : []
      if (pid !== undefined) ends.push({ pid: Number(pid), line })
    },
  })
  if (server.adminPort === null || server.segmentDir === null) throw new Error('expected an admin port')
  const requests = (['json', 'binary'] as const).flatMap((encoding) =>
    inferRequests(model.recipe, { encoding, count: REQUESTS_PER_ENCODING }),
  )
  const tally = newTally()
  const answers = await recordAnswers(server, requests)
  const draw = new FaultDraw(seed, faults)
  const injector = new FaultInjector(server.child.pid, draw)
  const watch = new MetricsWatch(server.adminPort, () => tally.answered + answers.length)
  server.child.process.once('exit', () => watch.abort())
  let isOver = false
  const clients = Array.from({ length: workers * CONNECTIONS_PER_WORKER }, (_, index) => {
    const { cuts, workerPids } = injector
    return new ChaosClient({
      port: server.port,
      workerPids,
      cuts,
      tally,
      answers,
      pauseMs,
      isOver: () => isOver,
    }).run(index)
  })
  const done = await injectFaults(injector, draw, watch, options)
  isOver = true
  await Promise.all(clients)
  const watched = await watch.stop()
  await stage.stop(server.child)
  const { exitCode, signalCode } = server.child.process
  const isRolling = faults.includes('SIGHUP')
  return {
    tally,
    faults: done,
    watch: watched,
    strayEnds: ends
      .filter(
        ({ pid, line }) => !injector.affectedPids.has(pid) && !(isRolling && line.includes('"how":"code 0"')),
      )
      .map(({ line }) => line),
    fatalLines,
    exit: signalCode ?? `code ${exitCode}`,
    filesLeft: readdirSync(server.segmentDir, { recursive: true }) as string[],
    processesLeft: processesInGroup(server.child.pid).length,
  }
}
