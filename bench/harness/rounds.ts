/**
 * Variants measured in turns. Machines are noisy for seconds at a time: within a round every variant is
 * measured once, right after each other, in an order that turns around each round, and only ratios of
 * the same round are formed.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Progress } from './progress.js'

export interface Sample {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  /** Answers other than 200 and connection errors: a number with failures in it is not a result. */
  readonly failures: number
}

export interface Arm {
  readonly name: string
  measure(seconds: number): Promise<Sample>
}

export interface MeasuredArm {
  readonly name: string
  /** One sample a round. */
  readonly samples: readonly Sample[]
}

export interface RoundOptions {
  readonly rounds: number
  readonly seconds: number
  readonly progress: Progress
}

/** Long enough for the just-in-time compiler and the arenas to settle. */
const WARM_UP_SECONDS = 2
/** Lets what a load generator cut off in mid-request run out before the next variant's turn. */
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
