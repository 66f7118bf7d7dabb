/**
 * Attached processes that come, go and are killed, and owners that are: nothing is left behind, no answer is
 * wrong, and no lease outlives its process.
 */
import { readdirSync } from 'node:fs'
import { cyclesChecks, soakCycles } from './attach-soak/cycles.js'
import { killOwners, killRunners, ownerKillsChecks, runnerKillsChecks } from './attach-soak/kills.js'
import { World } from './attach-soak/world.js'
import { defineBench } from './harness/bench.js'
import { openFiles } from './harness/footprint.js'
import { countOption } from './harness/options.js'
import { createProgress } from './harness/progress.js'
import type { BenchReport, Check } from './harness/report.js'
import { Stage } from './harness/stage.js'
import { modelOption } from './models/subject.js'

export interface SoakOptions {
  readonly cycles: number
  readonly runners: number
  readonly owners: number
  readonly every: number
  readonly model: string
}

/** What one part did, and whether it left things as they were. */
export interface SoakResult {
  readonly rows: readonly (readonly [string, string])[]
  readonly checks: readonly Check[]
  readonly raw: unknown
}

type Part = (world: World, options: SoakOptions, onStep: (note: string) => void) => Promise<SoakResult>

export const PARTS: Readonly<Record<'cycles' | 'runners' | 'owners', Part>> = {
  cycles: async (world, options, onCycle) => {
    const raw = await soakCycles(world, { ...options, swapEvery: options.every, onCycle })
    const rows = [
      ['cycles of attach, run and close', String(raw.cycles)],
      ['swaps', String(raw.swaps)],
    ] as const
    return { rows, checks: cyclesChecks(raw), raw }
  },
  runners: async (world, options, onKill) => {
    const raw = await killRunners(world, { swapEvery: options.every, kills: options.runners, onKill })
    const rows = [
      ['runners killed', String(raw.kills)],
      ['of them with a lease', String(raw.killedWithLease)],
      ['answers', String(raw.answers)],
    ] as const
    return { rows, checks: runnerKillsChecks(raw), raw }
  },
  owners: async (world, options, onKill) => {
    const raw = await killOwners(
      world,
      { swapEvery: options.every, kills: options.owners, onKill },
      openFiles,
    )
    const rows = [
      ['owners killed', String(raw.kills)],
      ['of them followed by another generation', String(raw.swaps)],
      ['answers', String(raw.answers)],
    ] as const
    return { rows, checks: ownerKillsChecks(raw), raw }
  },
}

/** Runs one part with an owner of its own. */
export async function soak(
  part: keyof typeof PARTS,
  options: SoakOptions,
  onStep: (note: string) => void = () => {},
): Promise<SoakResult> {
  await using stage = new Stage()
  const world = await World.open(stage, options.model)
  await world.start()
  await world.warmUp()
  const { rows, checks, raw } = await PARTS[part](world, options, onStep)
  await world.stopOwner()
  const left = readdirSync(world.target.segmentDir)
  return {
    rows,
    checks: [
      { claim: 'wrong answers', bar: '0', got: String(world.wrongAnswers), isMet: world.wrongAnswers === 0 },
      ...checks,
      {
        claim: 'left in shared memory when the owner has stopped',
        ...{ bar: 'nothing', got: left.length === 0 ? 'nothing' : left.join(', '), isMet: left.length === 0 },
      },
    ],
    raw,
  }
}

async function soakReport(part: keyof typeof PARTS, options: SoakOptions): Promise<BenchReport> {
  const steps = { cycles: options.cycles, runners: options.runners, owners: options.owners }[part]
  using progress = createProgress(part, steps)
  const { rows, checks, raw } = await soak(part, options, (note) => progress.step(note))
  return {
    name: `attach-soak-${part}`,
    title: `${options.model}, attached processes: ${part}`,
    table: { head: ['what', 'count'], rows },
    checks,
    notes: [],
    charts: [],
    setting: options,
    raw,
  }
}

export const attachSoak = defineBench({
  name: 'attach-soak',
  summary:
    'Attached processes and owners that are closed and killed many times: nothing is left, no answer is wrong.',
  choices: {
    word: 'PART',
    entries: [
      { name: 'cycles', title: 'attach, run and close in one process' },
      { name: 'runners', title: 'SIGKILL to attached processes, a third of them with a lease' },
      { name: 'owners', title: 'SIGKILL to the process that keeps the model' },
    ],
  },
  options: {
    cycles: countOption({ help: 'Cycles of attach, run and close', default: '200', quick: '20' }),
    runners: countOption({ help: 'Runners to kill', default: '50', quick: '10' }),
    owners: countOption({ help: 'Owners to kill', default: '50', quick: '5' }),
    every: countOption({ help: 'Steps between two swaps of the model', default: '10', quick: '4' }),
    model: modelOption({ help: 'An mlp', default: 'mlp-6x512' }),
  },
  failsWhen: 'something is left, an answer is wrong or a lease lasts too long',
  reports: (options, chosen) =>
    (['cycles', 'runners', 'owners'] as const)
      .filter((part) => chosen.length === 0 || chosen.includes(part))
      .map((part) => () => soakReport(part, options)),
})
