/** Kills runners, with and without a lease, and owners. */

import type { Check } from '../harness/report.js'
import { createRandom } from '../models/random.js'
import type { Report } from './orders.js'
import { Runner } from './runner.js'
import type { World } from './world.js'

/** Kills between two looks at whether raw weights are released: each takes the seconds until they are. */
const LOOK_EVERY = 10
/** An attach takes less: the kill comes anywhere in it. */
const LONGEST_WAIT_MS = 800
/** docs/library.md: 5 s after the last lease, and some time to see it. */
const RELEASE_BAR_MS = 10_000

interface KillOptions {
  readonly kills: number
  readonly swapEvery: number
  readonly onKill: (note: string) => void
}

const hasRun = ({ type }: Report) => type === 'ran'
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

function judgeAll(world: World, runner: Runner): number {
  let answers = 0
  for (const report of runner.reports)
    if (report.type === 'ran') {
      answers++
      world.judge(report.values)
    }
  return answers
}

/** By code, how often a runner was refused. */
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

export async function killRunners(world: World, options: KillOptions): Promise<RunnerKillsResult> {
  const { kills, swapEvery, onKill } = options
  const random = createRandom('attach-soak')
  const held = async () => {
    const releaseMs = await world.released()
    return { releaseMs, ownerFiles: world.ownerFiles(), bytes: (await world.memory()).bytes }
  }
  const before = await held()
  const releaseMs: number[] = []
  const refusals: Refusals = {}
  let [killedWithLease, answers, swaps] = [0, 0, 0]
  for (let i = 1; i <= kills; i++) {
    await using runner = new Runner(world.target)
    if (i % 3 === 0) {
      killedWithLease++
      await runner.ask({ type: 'lease', serverFolder: world.serverFolder })
    } else {
      runner.send({ type: 'churn' })
      if (i % 3 === 1) await runner.reported(hasRun)
      await pause(random() * LONGEST_WAIT_MS)
    }
    const swapping = i % swapEvery === 0 ? world.swap() : null
    await runner.kill()
    await swapping
    if (swapping !== null) swaps++
    answers += judgeAll(world, runner)
    countRefusals(refusals, runner)
    if (i % LOOK_EVERY === 0) releaseMs.push(await world.released())
    onKill(`kill ${i}`)
  }
  if (swaps % 2 === 1) await world.swap()
  const { ownerFiles, bytes, releaseMs: last } = await held()
  releaseMs.push(last)
  return { kills, killedWithLease, answers, refusals, releaseMs, before, after: { ownerFiles, bytes } }
}

export function runnerKillsChecks({ refusals, releaseMs, before, after }: RunnerKillsResult): Check[] {
  const slowest = Math.max(...releaseMs)
  const refused = Object.entries(refusals)
  return [
    {
      claim: 'raw weights released after a kill, at the latest',
      ...{ bar: `${RELEASE_BAR_MS} ms`, got: `${Math.round(slowest)} ms`, isMet: slowest <= RELEASE_BAR_MS },
    },
    {
      claim: 'runners that were refused',
      ...{ bar: '0', got: JSON.stringify(refusals), isMet: refused.length === 0 },
    },
    {
      claim: 'open files of the owner and its workers',
      bar: `${before.ownerFiles}, as before`,
      got: String(after.ownerFiles),
      isMet: after.ownerFiles <= before.ownerFiles,
    },
    {
      claim: 'bytes in shared memory',
      ...{ bar: `${before.bytes}, as before`, got: String(after.bytes), isMet: after.bytes <= before.bytes },
    },
  ]
}

export interface OwnerKillsResult {
  readonly kills: number
  readonly swaps: number
  readonly answers: number
  readonly refusals: Refusals
  /** Segments that the process maps which follows, at most, after each new owner. */
  readonly mostSegments: number
  readonly filesBefore: number
  readonly filesAfter: number
  readonly runnerFiles: readonly [before: number, after: number]
}

/** Errors that a runner may get while its owner dies. */
const EXPECTED_REFUSALS = new Set(['MODEL_NOT_RESIDENT', 'SHUTTING_DOWN', 'SEGMENT_INVALID'])

export async function killOwners(
  world: World,
  { kills, swapEvery, onKill }: KillOptions,
  openFilesOf: (pid: number) => number,
): Promise<OwnerKillsResult> {
  const random = createRandom('attach-soak/owners')
  await using follower = new Runner(world.target)
  await follower.ask({ type: 'attach', onSwap: 'follow' })
  await using stayer = new Runner(world.target)
  await stayer.ask({ type: 'attach', onSwap: 'stay' })
  const valuesOf = async (runner: Runner) => {
    const report = await runner.ask({ type: 'run' })
    return report.type === 'ran' ? report.values : []
  }
  const stays = world.judge(await valuesOf(stayer))
  const isSwapped = (report: Report) => report.type === 'event' && report.name === 'swapped'
  const refusals: Refusals = {}
  const files: number[] = []
  let [answers, swaps, mostSegments, runnerFiles] = [0, 0, 0, 0]
  for (let i = 1; i <= kills; i++) {
    await using churning = new Runner(world.target)
    churning.send({ type: 'churn' })
    if (i % 2 === 0) await churning.reported(hasRun)
    await pause(random() * LONGEST_WAIT_MS)
    await world.killOwner()
    world.judge(await valuesOf(follower))
    if (world.judge(await valuesOf(stayer)) !== stays) world.wrongAnswers++
    await churning.kill()
    if (i % swapEvery === 0) {
      world.changeFile()
      swaps++
    }
    await world.start()
    await follower.reported(isSwapped, i)
    world.expectCurrent(await valuesOf(follower))
    answers += judgeAll(world, churning) + 3
    countRefusals(refusals, churning)
    mostSegments = Math.max(mostSegments, world.segmentsMappedBy(follower.pid))
    if (i === 1) runnerFiles = openFilesOf(follower.pid)
    files.push((await world.memory()).files)
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
      claim: 'runners refused while an owner dies, other than for that reason',
      ...{ bar: '0', got: odd.length === 0 ? `0 (${JSON.stringify(refusals)})` : odd.join(', ') },
      isMet: odd.length === 0,
    },
    {
      claim: 'segments mapped by the process that follows, at most',
      ...{ bar: '2: the current one, and one until it is collected', got: String(mostSegments) },
      isMet: mostSegments <= 2,
    },
    {
      claim: 'open files of the process that follows',
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
