/** Kills runners, with and without a lease, and owners. */

import type { Check } from '../harness/report.js'
import { createRandom } from '../models/random.js'
import type { Report } from './commands.js'
import { Runner } from './runner.js'
import type { SoakServer } from './soak-server.js'

/** Kills between two checks of the release of raw weights, because each check waits for seconds. */
const CHECK_EVERY = 10
/** Longer than an attach, so that kills hit any point of it. */
const LONGEST_WAIT_MS = 800
/** 5 s after the last lease (docs/library.md), plus time to detect the release. */
const RELEASE_BAR_MS = 10_000

interface KillOptions {
  readonly kills: number
  readonly swapEvery: number
  readonly onKill: (note: string) => void
}

const hasRun = ({ type }: Report) => type === 'ran'
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

function checkAnswers(server: SoakServer, runner: Runner): number {
  let answers = 0
  for (const report of runner.reports)
    if (report.type === 'ran') {
      answers++
      server.generationOf(report.values)
    }
  return answers
}

/** Number of failed attaches by error code. */
type Refusals = Record<string, number>

function countRefusals(refusals: Refusals, runner: Runner): void {
  for (const report of runner.reports)
    if (report.type === 'failed') refusals[report.code] = (refusals[report.code] ?? 0) + 1
}

export interface RunnerKillsResult {
  readonly kills: number
  readonly killedWithLease: number
  readonly answers: number
  readonly refusals: Refusals
  readonly releaseMs: readonly number[]
  readonly before: { readonly ownerFiles: number; readonly bytes: number }
  readonly after: { readonly ownerFiles: number; readonly bytes: number }
}

export async function killRunners(server: SoakServer, options: KillOptions): Promise<RunnerKillsResult> {
  const { kills, swapEvery, onKill } = options
  const random = createRandom('attach-soak')
  const held = async () => {
    const releaseMs = await server.released()
    return { releaseMs, ownerFiles: server.ownerFiles(), bytes: (await server.memory()).bytes }
  }
  const before = await held()
  const releaseMs: number[] = []
  const refusals: Refusals = {}
  let [killedWithLease, answers, swaps] = [0, 0, 0]
  for (let i = 1; i <= kills; i++) {
    await using runner = new Runner(server.target)
    if (i % 3 === 0) {
      killedWithLease++
      await runner.ask({ type: 'lease', serverFolder: server.serverFolder })
    } else {
      runner.send({ type: 'churn' })
      if (i % 3 === 1) await runner.reported(hasRun)
      await pause(random() * LONGEST_WAIT_MS)
    }
    const swapping = i % swapEvery === 0 ? server.swap() : null
    await runner.kill()
    await swapping
    if (swapping !== null) swaps++
    answers += checkAnswers(server, runner)
    countRefusals(refusals, runner)
    if (i % CHECK_EVERY === 0) releaseMs.push(await server.released())
    onKill(`kill ${i}`)
  }
  if (swaps % 2 === 1) await server.swap()
  const { ownerFiles, bytes, releaseMs: last } = await held()
  releaseMs.push(last)
  return { kills, killedWithLease, answers, refusals, releaseMs, before, after: { ownerFiles, bytes } }
}

export function runnerKillsChecks({ refusals, releaseMs, before, after }: RunnerKillsResult): Check[] {
  const slowest = Math.max(...releaseMs)
  const refused = Object.entries(refusals)
  return [
    {
      claim: 'maximum time to release raw weights after a kill',
      ...{ bar: `${RELEASE_BAR_MS} ms`, got: `${Math.round(slowest)} ms`, isMet: slowest <= RELEASE_BAR_MS },
    },
    {
      claim: 'failed attaches',
      ...{ bar: '0', got: JSON.stringify(refusals), isMet: refused.length === 0 },
    },
    {
      claim: 'open files of the owner and its workers',
      bar: `${before.ownerFiles}, the initial value`,
      got: String(after.ownerFiles),
      isMet: after.ownerFiles <= before.ownerFiles,
    },
    {
      claim: 'bytes in shared memory',
      ...{
        bar: `${before.bytes}, the initial value`,
        got: String(after.bytes),
        isMet: after.bytes <= before.bytes,
      },
    },
  ]
}

export interface OwnerKillsResult {
  readonly kills: number
  readonly swaps: number
  readonly answers: number
  readonly refusals: Refusals
  /** Maximum number of segments that the following process maps after a new owner has started. */
  readonly mostSegments: number
  readonly filesBefore: number
  readonly filesAfter: number
  readonly runnerFiles: readonly [before: number, after: number]
}

/** Errors that a runner may get while its owner dies. */
const EXPECTED_REFUSALS = new Set(['MODEL_NOT_RESIDENT', 'SHUTTING_DOWN', 'SEGMENT_INVALID'])

export async function killOwners(
  server: SoakServer,
  { kills, swapEvery, onKill }: KillOptions,
  openFilesOf: (pid: number) => number,
): Promise<OwnerKillsResult> {
  const random = createRandom('attach-soak/owners')
  await using follower = new Runner(server.target)
  await follower.ask({ type: 'attach', onSwap: 'follow' })
  await using stayer = new Runner(server.target)
  await stayer.ask({ type: 'attach', onSwap: 'stay' })
  const valuesOf = async (runner: Runner) => {
    const report = await runner.ask({ type: 'run' })
    return report.type === 'ran' ? report.values : []
  }
  const stays = server.generationOf(await valuesOf(stayer))
  const isSwapped = (report: Report) => report.type === 'event' && report.name === 'swapped'
  const refusals: Refusals = {}
  const files: number[] = []
  let [answers, swaps, mostSegments, runnerFiles] = [0, 0, 0, 0]
  for (let i = 1; i <= kills; i++) {
    await using churning = new Runner(server.target)
    churning.send({ type: 'churn' })
    if (i % 2 === 0) await churning.reported(hasRun)
    await pause(random() * LONGEST_WAIT_MS)
    await server.killOwner()
    server.generationOf(await valuesOf(follower))
    if (server.generationOf(await valuesOf(stayer)) !== stays) server.wrongAnswers++
    await churning.kill()
    if (i % swapEvery === 0) {
      server.changeFile()
      swaps++
    }
    await server.start()
    await follower.reported(isSwapped, i)
    server.expectCurrent(await valuesOf(follower))
    answers += checkAnswers(server, churning) + 3
    countRefusals(refusals, churning)
    mostSegments = Math.max(mostSegments, server.segmentsMappedBy(follower.pid))
    if (i === 1) runnerFiles = openFilesOf(follower.pid)
    files.push((await server.memory()).files)
    onKill(`owner ${i} killed`)
  }
  const lastFiles = openFilesOf(follower.pid)
  await follower.ask({ type: 'close' })
  await stayer.ask({ type: 'close' })
  return {
    ...{ kills, swaps, answers, refusals, mostSegments },
    ...{ filesBefore: files[0] ?? 0, filesAfter: files.at(-1) ?? 0, runnerFiles: [runnerFiles, lastFiles] },
  }
}

export function ownerKillsChecks(result: OwnerKillsResult): Check[] {
  const { refusals, mostSegments, filesBefore, filesAfter, runnerFiles } = result
  const odd = Object.keys(refusals).filter((code) => !EXPECTED_REFUSALS.has(code))
  return [
    {
      claim: 'unexpected errors of runners while an owner dies',
      ...{ bar: '0', got: odd.length === 0 ? `0 (${JSON.stringify(refusals)})` : odd.join(', ') },
      isMet: odd.length === 0,
    },
    {
      claim: 'maximum segments mapped by the following process',
      ...{ bar: '2: the current one, and one not yet garbage-collected', got: String(mostSegments) },
      isMet: mostSegments <= 2,
    },
    {
      claim: 'open files of the following process',
      bar: `${runnerFiles[0]}, as after the first kill`,
      got: String(runnerFiles[1]),
      isMet: runnerFiles[1] <= runnerFiles[0],
    },
    {
      claim: 'files in shared memory after the last start',
      bar: `${filesBefore}, as after the first kill`,
      got: String(filesAfter),
      isMet: filesAfter <= filesBefore,
    },
  ]
}
