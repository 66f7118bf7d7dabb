/**
 * Where an execution runs. The inference thread keeps the event loop free and costs every execution two
 * wake-ups and two copies of its messages, about 0.1 ms. For an execution that takes less than a few
 * milliseconds, this protects no other request and is a large part of its latency: the event loop runs it
 * (docs/decisions/027-placement.md).
 */

import type { Placement } from '../metrics/series.js'

export interface PlacementPolicy {
  /**
   * Longest execution on the event loop while others may wait, in nanoseconds; 0 runs everything in the
   * thread.
   */
  readonly budgetNs: number
}

/**
 * How long loading a model for the event loop may block it, in milliseconds. During a start nothing
 * is served yet.
 */
export const LONGEST_LOAD_MS = { starting: 1000, serving: 50 } as const

/** A lone request blocks only requests that arrive while it runs. */
const ALONE_FACTOR = 3
/** Share of its time that an event loop may spend in the runtime while requests wait. */
const MAX_SHARE = 0.8
const WINDOW_NS = 100e6

/** The recent time of an event loop in the runtime: a moving sum that decays over the window. */
export class LoopShare {
  #spentNs = 0
  #atNs = 0

  add(nowNs: number, computeNs: number): void {
    this.#spentNs = this.#decayed(nowNs) + computeNs
    this.#atNs = nowNs
  }

  of(nowNs: number): number {
    return this.#decayed(nowNs) / WINDOW_NS
  }

  #decayed(nowNs: number): number {
    return this.#spentNs * Math.exp(-(nowNs - this.#atNs) / WINDOW_NS)
  }
}

export interface PlacementFacts {
  /** Null if unknown. */
  readonly estimateNs: number | null
  /** Whether the request is the only one in the server, and no other client is active. */
  readonly isAlone: boolean
  /** Recent share of its time that the event loop spent in the runtime. */
  readonly loopShare: number
}

export function placementOf(
  { budgetNs }: PlacementPolicy,
  { estimateNs, isAlone, loopShare }: PlacementFacts,
): Placement {
  if (estimateNs === null) return 'thread'
  if (isAlone) return estimateNs <= budgetNs * ALONE_FACTOR ? 'event-loop' : 'thread'
  return estimateNs <= budgetNs && loopShare <= MAX_SHARE ? 'event-loop' : 'thread'
}
