/**
 * Attaches and closes many times, and kills attached processes and model owners. Nothing may be
 * left behind, every output must be correct, and no lease may outlive its process.
 */
import { readdirSync } from 'node:fs'
import { cyclesChecks, soakCycles } from './attach-soak/cycles.js'
import { killOwners, killRunners, ownerKillsChecks, runnerKillsChecks } from './attach-soak/kills.js'
import { SoakServer } from './attach-soak/soak-server.js'
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

/** Counts of one part, and checks for leftovers and wrong outputs. */
export interface SoakResult {
  readonly rows: readonly (readonly [string, string])[]
  readonly checks: readonly Check[]
  readonly raw: unknown
}

type Part = (server: SoakServer, options: SoakOptions, onStep: (note: string) => void) => Promise<SoakResult>

export const PARTS: Readonly<Record<'cycles' | 'runners' | 'owners', Part>> = {
  cycles: async (server, options, onCycle) => {
    const raw = await soakCycles(server, { ...options, swapEvery: options.every, onCycle })
    const rows = [
      ['cycles of attach, run and close', String(raw.cycles)],
      ['swaps', String(raw.swaps)],
    ] as const
    return { rows, checks: cyclesChecks(raw), raw }
  },
  runners: async (server, options, onKill) => {
    const raw = await killRunners(server, { swapEvery: options.every, kills: options.runners, onKill })
    const rows = [
      ['runners killed', String(raw.kills)],
      ['runners killed with a lease', String(raw.killedWithLease)],
      ['answers', String(raw.answers)],
    ] as const
    return { rows, checks: runnerKillsChecks(raw), raw }
  },
  owners: async (server, options, onKill) => {
    const raw = await killOwners(
      server,
      { swapEvery: options.every, kills: options.owners, onKill },
      openFiles,
    )
    const rows = [
      ['owners killed', String(raw.kills)],
      ['new owners with another generation', String(raw.swaps)],
      ['answers', String(raw.answers)],
    ] as const
    return { rows, checks: ownerKillsChecks(raw), raw }
  },
}

/** Runs one part with a separate owner. */
export async function soak(
  part: keyof typeof PARTS,
  options: SoakOptions,
  onStep: (note: string) => void = () => {},
): Promise<SoakResult> {
  await using stage = new Stage()
  const server = await SoakServer.open(stage, options.model)
  await server.start()
  await server.warmUp()
  const { rows, checks, raw } = await PARTS[part](server, options, onStep)
  await server.stopOwner()
  const left = readdirSync(server.target.segmentDir)
  return {
    rows,
    checks: [
      {
        claim: 'wrong answers',
        bar: '0',
        got: String(server.wrongAnswers),
        isMet: server.wrongAnswers === 0,
      },
      ...checks,
      {
        claim: 'files left in shared memory after the owner has stopped',
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
    table: { head: ['event', 'count'], rows },
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
    'Closes and kills attached processes and model owners: nothing is left behind, and every output is correct.',
  choices: {
    word: 'PART',
    entries: [
      { name: 'cycles', title: 'attach, run and close in one process' },
      { name: 'runners', title: 'SIGKILL to attached processes, a third of them with a lease' },
      { name: 'owners', title: 'SIGKILL to the process that holds the model' },
    ],
  },
  options: {
    cycles: countOption({ help: 'Cycles of attach, run and close', default: '200', quick: '20' }),
    runners: countOption({ help: 'Runners to kill', default: '50', quick: '10' }),
    owners: countOption({ help: 'Owners to kill', default: '50', quick: '5' }),
    every: countOption({ help: 'Steps between two swaps of the model', default: '10', quick: '4' }),
    model: modelOption({ help: 'An mlp', default: 'mlp-6x512' }),
  },
  failsWhen: 'something is left behind, an output is wrong or a lease lasts too long',
  reports: (options, chosen) =>
    (['cycles', 'runners', 'owners'] as const)
      .filter((part) => chosen.length === 0 || chosen.includes(part))
      .map((part) => () => soakReport(part, options)),
})
