/**
 * Measures variants in alternation, because machines are noisy for seconds at a time. A round measures every
 * variant once, one after the other, in an order that reverses each round. Only ratios within a round are
 * compared.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Progress } from './progress.js'

export interface Sample {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Responses other than 200, and connection errors. A sample with failures is not a result. */
  readonly failures: number
}

export interface Arm {
  readonly name: string
  measure(seconds: number): Promise<Sample>
}

export interface MeasuredArm {
  readonly name: string
  /** One sample per round. */
  readonly samples: readonly Sample[]
}

export interface RoundOptions {
  readonly rounds: number
  readonly seconds: number
  readonly progress: Progress
}

/** Long enough for the JIT compiler and the memory arenas to settle. */
const WARM_UP_SECONDS = 2
/** Lets requests in flight at the end of a measurement finish before the next variant. */
const PAUSE_MS = 200

/** The order of variants in a round: it reverses from round to round, to cancel drift. */
export function orderOf<T>(variants: readonly T[], round: number): readonly T[] {
  return round % 2 === 0 ? variants : [...variants].reverse()
}

export async function alternate(arms: readonly Arm[], options: RoundOptions): Promise<MeasuredArm[]> {
  const { rounds, seconds, progress } = options
  for (const arm of arms) {
    progress.step(`${arm.name}: warm-up`)
    await arm.measure(Math.min(WARM_UP_SECONDS, seconds))
  }
  const measured = new Map<Arm, Sample[]>(arms.map((arm) => [arm, []]))
  for (let round = 0; round < rounds; round++) {
    for (const arm of orderOf(arms, round)) {
      await pause(PAUSE_MS)
      progress.step(`${arm.name}: round ${round + 1}`)
      measured.get(arm)?.push(await arm.measure(seconds))
    }
  }
  return arms.map((arm) => ({ name: arm.name, samples: measured.get(arm) ?? [] }))
}

export function stepsOf(arms: number, rounds: number): number {
  return arms * (rounds + 1)
}
