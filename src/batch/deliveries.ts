/**
 * Delivers results to their requests. The results of consecutive executions on the event loop are
 * delivered together: an execution reads all weights and evicts the code and data of request
 * handling from the CPU's caches, so alternating between the two slows both down
 * (docs/decisions/035-delivery-in-groups.md).
 */
import { monotonicNs } from '../process/clock.js'

/** How long the first result of a group may wait for the executions after it, in nanoseconds. */
const LONGEST_WAIT_NS = 5e6

export class Deliveries {
  #waiting: (() => void)[] = []
  /** When the first execution of the group began. */
  #sinceNs = 0

  /**
   * Delivers now, or after the executions that the event loop runs in the same turn. An execution
   * in the inference thread delays nothing: the turn ends when it begins.
   * @param startedNs When the execution began.
   */
  add(deliver: () => void, { startedNs, isLast }: { startedNs: number; isLast: boolean }): void {
    if (this.#waiting.length === 0) this.#sinceNs = startedNs
    this.#waiting.push(deliver)
    if (isLast || monotonicNs() - this.#sinceNs >= LONGEST_WAIT_NS) this.#deliverAll()
    // Runs after all promises of the turn have settled.
    else if (this.#waiting.length === 1) process.nextTick(() => this.#deliverAll())
  }

  #deliverAll(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const deliver of waiting) deliver()
  }
}
