/** What each part of a request took. Exists only where somebody wants to know; routes mark it through `?.`. */

/**
 * `receive`: the body arrives; `decode`: bytes to tensors; `queue`: waiting for the inference thread; `compute`: from there to
 * the result, the other rows of its batch included; `encode`: tensors to bytes.
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
  /** Rows of the request; null where it was not decoded. */
  rows: number | null = null
  /** Where its execution ran; null where none did. */
  placement: string | null = null
  #markMs = this.startMs

  /** What happened since the last mark does not belong to any phase. */
  begin(): void {
    this.#markMs = performance.now()
  }

  /** A phase ends now; it began where the one before ended. */
  end(phase: Phase): void {
    this.#add(phase, performance.now())
  }

  /** The result is there; of the time since the last mark `queueNs` were spent waiting. */
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
