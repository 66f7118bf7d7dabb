/**
 * Durations of the phases of a request. Exists only if observability is enabled; routes mark phases through
 * `?.`.
 */

/**
 * `receive`: the body arrives; `decode`: bytes to tensors; `queue`: waiting for the inference thread;
 * `compute`: from there to the result, for the whole batch; `encode`: tensors to bytes.
 */
export const PHASES = ['receive', 'decode', 'queue', 'compute', 'encode'] as const
export type Phase = (typeof PHASES)[number]

export interface TimedPhase {
  readonly phase: Phase
  /** Both on the clock of `performance.now()`. */
  readonly startMs: number
  readonly endMs: number
}

export class RequestTimings {
  readonly startMs = performance.now()
  readonly phases: TimedPhase[] = []
  /** Rows of the request; null if it was not decoded. */
  rows: number | null = null
  /** Where its execution ran; null if none did. */
  placement: string | null = null
  #markMs = this.startMs

  /** The time since the last mark belongs to no phase. */
  begin(): void {
    this.#markMs = performance.now()
  }

  /** Ends a phase, which began at the end of the previous one. */
  end(phase: Phase): void {
    this.#add(phase, performance.now())
  }

  /** The result has arrived; `queueNs` of the time since the last mark were spent in the queue. */
  computed(queueNs: number, placement: string): void {
    this.placement = placement
    const nowMs = performance.now()
    this.#add('queue', Math.min(this.#markMs + queueNs / 1e6, nowMs))
    this.#add('compute', nowMs)
  }

  #add(phase: Phase, endMs: number): void {
    this.phases.push({ phase, startMs: this.#markMs, endMs })
    this.#markMs = endMs
  }

  /** Value of the header Server-Timing: milliseconds. */
  header(): string {
    const all = [...this.phases, { phase: 'total', startMs: this.startMs, endMs: performance.now() } as const]
    return all.map(({ phase, startMs, endMs }) => `${phase};dur=${(endMs - startMs).toFixed(3)}`).join(', ')
  }
}
