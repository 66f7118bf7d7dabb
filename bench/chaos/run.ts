/** A server under load whose processes are killed again and again: what clients and metrics saw of it. */
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
import { cutsOff, type Fault, FaultDraw } from './faults.js'
import { MetricsWatch, type Strength, type Watch } from './watch.js'

const REQUESTS_PER_ENCODING = 8
const CONNECTIONS_PER_WORKER = 2
const FROZEN_MS = 500
/** Also for a rolling restart of all workers, with a boot and a drain each. */
/** Between two looks at the list of processes. */
const SETTLE_POLL_MS = 50
const STRENGTH_DEADLINE_MS = 60_000

export interface ChaosOptions {
  readonly stage: Stage
  readonly model: GeneratedModel
  readonly workers: number
  readonly seconds: number
  readonly everyMs: number
  /** Between an answer and a client's next request; 0 takes all CPUs there are. */
  readonly pauseMs: number
  readonly seed: string
  readonly faults: readonly Fault[]
  readonly onFault?: (note: string) => void
}

export interface DoneFault {
  readonly fault: Fault
  readonly atMs: number
  /** From the signal that ends the worker until all workers were ready; null when they never were. */
  readonly recoveryMs: number | null
}

export interface ChaosResult {
  readonly tally: Tally
  readonly faults: readonly DoneFault[]
  readonly watch: Watch
  /** Ends of workers that nobody was told to end. */
  readonly strayEnds: readonly string[]
  /** What the server itself called fatal. */
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

/** Hits one server, and remembers whom. */
class Tormentor {
  readonly cuts: Cut[] = []
  readonly hitPids = new Set<number>()
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

  /** Resolves with the time of the signal from which on the server has to recover. */
  async hit(fault: Fault): Promise<number> {
    if (fault === 'SIGHUP') {
      signalIfThere(this.#primaryPid, 'SIGHUP')
      return performance.now()
    }
    const pid = this.#draw.pick(this.workerPids())
    if (pid === undefined) return performance.now()
    this.hitPids.add(pid)
    if (fault === 'freeze') {
      signalIfThere(pid, 'SIGSTOP')
      await pause(FROZEN_MS)
    }
    // Noted first: its requests fail before the next line runs.
    const atMs = performance.now()
    if (cutsOff(fault)) this.cuts.push({ pid, atMs })
    signalIfThere(pid, fault === 'freeze' ? 'SIGKILL' : fault)
    return atMs
  }
}

/** All workers ready, and those that were hit among them no more. */
function isRecovered(fault: Fault, before: Strength, workers: number) {
  return ({ workersReady, workerIds }: Strength): boolean => {
    const fresh = workerIds.filter((id) => !before.workerIds.includes(id))
    const expected = fault === 'SIGHUP' ? workers : 1
    return workersReady === workers && workerIds.length === workers && fresh.length >= expected
  }
}

async function untilTrue(isTrue: () => boolean): Promise<boolean> {
  const deadlineMs = performance.now() + STRENGTH_DEADLINE_MS
  while (!isTrue()) {
    if (performance.now() > deadlineMs) return false
    await pause(SETTLE_POLL_MS)
  }
  return true
}

async function torment(
  tormentor: Tormentor,
  draw: FaultDraw,
  watch: MetricsWatch,
  { workers, seconds, everyMs, faults, onFault = () => {} }: ChaosOptions,
): Promise<DoneFault[]> {
  const done: DoneFault[] = []
  const startedMs = performance.now()
  const isFull = ({ workersReady, workerIds }: Strength) =>
    workersReady === workers && workerIds.length === workers
  while (performance.now() - startedMs < seconds * 1000) {
    const nextMs = performance.now() + everyMs
    const before = await watch.untilStrength(isFull, STRENGTH_DEADLINE_MS)
    if (before === null || faults.length === 0) break
    // A worker that was replaced and still answers its last requests is not replaced again when it is hit.
    const isSettled = await untilTrue(() => tormentor.workerPids().length === workers)
    if (!isSettled) break
    const fault = draw.fault()
    const atMs = await tormentor.hit(fault)
    const after = await watch.untilStrength(isRecovered(fault, before, workers), STRENGTH_DEADLINE_MS)
    const recoveryMs = after === null ? null : after.atMs - atMs
    done.push({ fault, atMs: atMs - startedMs, recoveryMs })
    onFault(`${fault}: ${recoveryMs === null ? 'never back' : `back after ${Math.round(recoveryMs)} ms`}`)
    // A server that does not come back has nothing left to show.
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
  const tormentor = new Tormentor(server.child.pid, draw)
  const watch = new MetricsWatch(server.adminPort, () => tally.answered + answers.length)
  server.child.process.once('exit', () => watch.giveUp())
  let isOver = false
  const clients = Array.from({ length: workers * CONNECTIONS_PER_WORKER }, (_, index) => {
    const { cuts, workerPids } = tormentor
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
  const done = await torment(tormentor, draw, watch, options)
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
        ({ pid, line }) => !tormentor.hitPids.has(pid) && !(isRolling && line.includes('"how":"code 0"')),
      )
      .map(({ line }) => line),
    fatalLines,
    exit: signalCode ?? `code ${exitCode}`,
    filesLeft: readdirSync(server.segmentDir, { recursive: true }) as string[],
    processesLeft: processesInGroup(server.child.pid).length,
  }
}
