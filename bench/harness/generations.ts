/**
 * Which generation of a model gave an answer, and whether it could. A generation may answer from the moment
 * its load is asked for; the one before it may until that load is answered. Times are those of this process:
 * taken before what begins and after what ends, so a span is never too short.
 */

/** Of an answer's scale: batches sum in another order. */
const TOLERANCE = 1e-4
/** Generations must differ by more than rounding ever could, or the answers would show nothing. */
const MIN_DISTANCE = 100 * TOLERANCE

export type Verdict = 'current' | 'not current' | 'of no generation'

/** By generation and request, what the model answers. */
export type References = readonly (readonly (readonly number[])[])[]

interface Span {
  readonly generation: number
  readonly fromMs: number
  untilMs: number
  answers: number
}

/** Largest difference of two answers, relative to the scale of the second. */
function distance(values: readonly number[], reference: readonly number[]): number {
  if (values.length !== reference.length) return Number.POSITIVE_INFINITY
  const scale = Math.max(...reference.map(Math.abs))
  const differences = values.map((value, i) => Math.abs(value - (reference[i] ?? Number.NaN)))
  return differences.some(Number.isNaN) ? Number.POSITIVE_INFINITY : Math.max(...differences) / scale
}

/** @throws Error when two generations answer alike. */
export function assertTellable(references: References): void {
  for (const [a, first] of references.entries()) {
    for (const [b, second] of references.entries()) {
      for (const [i, values] of first.entries()) {
        if (a === b || distance(values, second[i] ?? []) > MIN_DISTANCE) continue
        throw new Error(`generations ${a + 1} and ${b + 1} answer request ${i + 1} alike`)
      }
    }
  }
}

export class Generations {
  readonly #references: References
  readonly #spans: Span[] = []

  constructor(references: References, first: number) {
    assertTellable(references)
    this.#references = references
    this.begin(first)
  }

  /** Before a load is asked for. */
  begin(generation: number): void {
    this.#spans.push({ generation, fromMs: performance.now(), untilMs: Number.POSITIVE_INFINITY, answers: 0 })
  }

  /** After the load was answered: what came before the newest must not answer requests sent from here on. */
  settle(): void {
    for (const span of this.#spans.slice(0, -1).reverse()) {
      if (span.untilMs !== Number.POSITIVE_INFINITY) return
      span.untilMs = performance.now()
    }
  }

  /** Generations that answered nothing while they could. */
  get silent(): number {
    return this.#spans.filter(({ answers }) => answers === 0).length
  }

  judge(answer: {
    readonly requestIndex: number
    readonly values: readonly number[]
    readonly sentMs: number
    readonly answeredMs: number
  }): Verdict {
    const { requestIndex, values, sentMs, answeredMs } = answer
    const generation = this.#references.findIndex(
      (requests) => distance(values, requests[requestIndex] ?? []) <= TOLERANCE,
    )
    if (generation === -1) return 'of no generation'
    for (let i = this.#spans.length - 1; i >= 0; i--) {
      const span = this.#spans[i]
      // The newest first: those that ended before it was sent are all that is left.
      if (span === undefined || span.untilMs < sentMs) return 'not current'
      if (span.generation !== generation || span.fromMs > answeredMs) continue
      span.answers++
      return 'current'
    }
    return 'not current'
  }
}
